//! The vocabulary between the planner and the kernel: the devices that are wanted, the devices that
//! were observed, and the operations that lead from the observed to the wanted ones.
//!
//! Only types. The planner decides and the kernel crate executes; neither knows the other.

mod alias;
mod digest;
mod interface;
mod netns;
mod observed;
mod operation;
mod ours;
mod passage;
mod tunnel;
mod wanted;

pub use alias::{Alias, NotOurs, Part};
pub use digest::{Configuration, config_digest};
pub use interface::Interface;
pub use netns::{At, Netns};
pub use observed::{Kind, Observed, ObservedAddress, ObservedRoute, Peer};
pub use operation::{NewDevice, Operation, Step};
pub use ours::{GROUP_DOOMED, GROUP_OURS, PROTOCOL_OURS};
pub use passage::{Passage, SourcePorts};
pub use tunnel::{Tunnel, VXLAN_PORT};
pub use wanted::{Joint, LinkKind, Wanted, WantedEnd};
