//! The direct wiring: the pod's interface is the veth end or the VXLAN device itself.
//!
//! A wiring turns a link and the places of its pods into the kernel objects that this node wants.
//! It decides kinds, names and parameters. It does not look at the devices that exist: that is the
//! planner's work.

mod direct;
mod ends;
mod outcome;
mod place;

pub use direct::{direct, needs_vni};
pub use ends::{parked, parked_name};
pub use outcome::Wiring;
pub use place::{Node, Place, VniState, Vtep};

#[cfg(test)]
mod tests;
