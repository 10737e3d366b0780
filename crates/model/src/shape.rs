//! The shapes that a link can have: which ends it has, and of what.
//!
//! Only cables can be declared and made. The others are named so that what is added later has its
//! place: a form of declaration, ends that are not pods' interfaces, a wiring. The planner needs no
//! change for them, since a link may have several kernel objects on a node ([`crate::planner`]).

use std::ops::RangeInclusive;

/// The shape of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// An interface of one pod and an interface of another one, or of the same pod. What goes into
    /// one end comes out of the other.
    Cable,
    /// An interface of a pod and something of a node, or beyond it: a veth on the node, a NIC, a
    /// VLAN, a macvlan device, a VTEP that is not Ratchet's.
    Uplink,
    /// An interface of a pod that gets copies of the frames that pass through another one.
    Mirror,
    /// Interfaces of any number of pods in one broadcast domain.
    Segment,
}

impl Shape {
    /// How many of its ends are interfaces of pods.
    pub fn pod_ends(self) -> RangeInclusive<usize> {
        match self {
            Shape::Cable | Shape::Mirror => 2..=2,
            Shape::Uplink => 1..=1,
            Shape::Segment => 1..=usize::MAX,
        }
    }
}
