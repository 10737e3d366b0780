//! What a wiring says.

use crate::{
    device::{LinkKind, Wanted, WantedEnd},
    link::{Mtu, Vni},
    reason::Reason,
};

/// What this node does for a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// The kernel objects that it wants; none: nothing is made and nothing kept.
    pub wanted: Vec<Wanted>,
    /// What the link waits for, or why it cannot be made.
    pub obstacle: Option<Box<Reason>>,
}

impl Wiring {
    /// The ends of the devices that it makes.
    pub fn made_ends(&self) -> impl Iterator<Item = &WantedEnd> {
        self.wanted.iter().flat_map(Wanted::made_ends)
    }

    /// The kind of the link on this node; none if it is not made.
    pub fn kind(&self) -> Option<LinkKind> {
        let kinds = self.wanted.iter().filter_map(Wanted::kind);
        kinds.max_by_key(|kind| *kind == LinkKind::Vxlan)
    }

    /// Whether all is known that the link has on this node, once this is done: nothing of it stays
    /// as it is.
    pub fn is_certain(&self) -> bool {
        !self.wanted.iter().any(Wanted::keeps)
    }

    /// The MTU of the devices that it makes.
    pub fn mtu(&self) -> Option<Mtu> {
        self.made_ends().next().map(|end| end.mtu)
    }

    /// The VNI of the tunnel that it makes.
    pub fn vni(&self) -> Option<Vni> {
        self.wanted.iter().find_map(Wanted::vni)
    }
}
