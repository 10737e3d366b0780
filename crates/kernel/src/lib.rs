//! Linux networking over rtnetlink: reports the devices that exist and does what a plan says,
//! nothing else.
//!
//! No policy lives here: what is wanted is decided by the planner (`ratchet_model`), whose words
//! ([`Step`], [`Observed`]) this crate executes and speaks. It runs no other program, needs no
//! async runtime, keeps no state but open namespaces and sockets, and never changes the namespace
//! of a thread that it did not start.
//!
//! [`Step`]: ratchet_model::device::Step
//! [`Observed`]: ratchet_model::device::Observed

mod carriers;
mod error;
mod execute;
mod filter;
mod joints;
mod kernel;
mod key;
mod netns;
mod observe;
mod peers;
mod probe;
mod reply;
mod request;
mod socket;
mod sysctl;
mod tunnels;
mod underlay;

pub use carriers::{CarrierNews, Carriers};
pub use error::KernelError;
pub use execute::Outcome;
pub use kernel::Kernel;
pub use key::{KeyError, NodeKey};
pub use netns::{NetnsHandle, NetnsIdentity};
pub use observe::Look;
pub use probe::{Capabilities, probe, probe_nftables};
pub use ratchet_filter::Found as FoundFilter;
pub use tunnels::NodeTunnel;
pub use underlay::{Underlay, UnderlayError};
