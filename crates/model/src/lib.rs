//! The model: pods, links and their ends, how users declare them, and the planner that turns
//! what is wanted and what is there into operations on the kernel.
//!
//! Everything here is pure: no I/O, no clock, no randomness, no async. Two agents that read the
//! same facts come to the same result, which is what lets each make its own half of a link
//! without a word to the other.
#![cfg_attr(test, allow(clippy::too_many_lines))]

pub mod declaration;
pub mod device;
pub mod leftover;
pub mod link;
pub mod names;
pub mod planner;
pub mod quotas;
pub mod reason;
pub mod record;
pub mod resolve;
pub mod shape;
pub mod text;
pub mod wiring;

mod nearest;
mod vni_range;
mod wiring_kind;

pub use link::{DeclaredEnd, DeclaredLink, End, Endpoint, Identity, Mac, Mtu, Route, Vni};
pub use names::{InterfaceName, LinkId, NameError, NodeName, PodKey, SandboxId};
pub use nearest::nearest;
pub use quotas::Quotas;
pub use reason::Reason;
pub use record::{Location, PodRecord};
pub use shape::Shape;
pub use vni_range::VniRange;
pub use wiring_kind::WiringKind;
