//! The source filter of a node: an nftables table that lets packets with one of this node's VNIs
//! pass only as the links are wired. What belongs to other people's VNIs is not touched.
//!
//! From passages ([`ratchet_model::device::Passage`]) to the elements of sets, and from there to
//! transactions over nfnetlink. Which passages there are is decided by the planner. Nothing here
//! knows of devices, and no program is run.

mod elements;
mod error;
mod expressions;
mod filter;
mod messages;
mod observe;
mod rules;
mod socket;
mod table;

pub use error::FilterError;
pub use filter::{Filter, Found};
pub use rules::TABLE;
