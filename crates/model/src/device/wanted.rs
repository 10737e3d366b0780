//! The devices that a wiring wants.

use ipnet::IpNet;

use super::{
    alias::Alias,
    netns::{At, Netns},
    tunnel::Tunnel,
};
use crate::{
    leftover::Leftover,
    link::{Mac, Mtu, Route},
    names::LinkId,
};

/// One end of a link as the kernel should have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedEnd {
    /// The namespace.
    pub netns: Netns,
    /// The interface's name there.
    pub name: String,
    /// Ethernet address.
    pub mac: Mac,
    /// MTU.
    pub mtu: Mtu,
    /// Addresses.
    pub addresses: Vec<IpNet>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Whether it is set up (administratively). A parked end is not.
    pub up: bool,
    /// The alias that it gets in the end.
    pub alias: Alias,
    /// What a device in whose place it comes has left to it, if that one is gone already.
    pub leftover: Option<Leftover>,
}

impl WantedEnd {
    /// Its location.
    pub fn at(&self) -> At {
        At {
            netns: self.netns.clone(),
            name: self.name.clone(),
        }
    }
}

/// A kernel object that a wiring wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// A veth pair.
    Veth {
        /// One end.
        a: WantedEnd,
        /// The other.
        z: WantedEnd,
    },
    /// A VXLAN device whose UDP socket is in the node's namespace.
    Vxlan {
        /// The device.
        end: WantedEnd,
        /// Its parameters.
        tunnel: Tunnel,
    },
    /// The link's other pod is gone: what `survivor` has stays as it is, and nothing is made. The
    /// other end of a veth, which its pod would take with it, is moved to `parked`.
    Hold {
        /// The end that stays.
        survivor: WantedEnd,
        /// Where the other end of a veth is put.
        parked: WantedEnd,
    },
    /// The link's declarations contradict each other: the devices that it has stay as they are, and
    /// none is made.
    Frozen(LinkId),
}

impl Wanted {
    /// The link it belongs to.
    pub fn link(&self) -> LinkId {
        match self {
            Wanted::Veth { a: end, .. }
            | Wanted::Vxlan { end, .. }
            | Wanted::Hold { survivor: end, .. } => end.alias.link,
            Wanted::Frozen(link) => *link,
        }
    }

    /// The ends that should exist.
    pub fn ends(&self) -> Vec<&WantedEnd> {
        match self {
            Wanted::Veth { a, z } => vec![a, z],
            Wanted::Vxlan { end, .. } => vec![end],
            Wanted::Hold { survivor, parked } => vec![survivor, parked],
            Wanted::Frozen(_) => vec![],
        }
    }

    /// The same, to be changed.
    pub fn ends_mut(&mut self) -> Vec<&mut WantedEnd> {
        match self {
            Wanted::Veth { a, z } => vec![a, z],
            Wanted::Vxlan { end, .. } => vec![end],
            Wanted::Hold { survivor, parked } => vec![survivor, parked],
            Wanted::Frozen(_) => vec![],
        }
    }
}
