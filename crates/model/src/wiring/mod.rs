//! Wirings: from a link and the places of its pods to the kernel objects that this node wants.
//!
//! A wiring decides kinds, names and parameters. It does not look at the devices that exist: that
//! is the planner's work. What is decided for every link is in `wire`; each way to wire has a file
//! with the objects that it wants.

mod direct;
mod ends;
mod outcome;
mod place;
mod stitched;
mod wire;

pub use ends::{name_on_node, names_on_node, parked, parked_name};
pub use outcome::Wiring;
pub use place::{Node, Place, VniState, Vtep};
pub use wire::{asked, needs_vni, wire};

#[cfg(test)]
mod tests;
