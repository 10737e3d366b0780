//! The devices that a wiring wants.

use ipnet::IpNet;

use super::{
    alias::Alias,
    digest::{Configuration, unversioned_digest},
    netns::{At, Netns},
    observed::Observed,
    tunnel::Tunnel,
};
use crate::{
    link::{Mac, Mtu, Route, Vni},
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
}

impl WantedEnd {
    /// Its location.
    pub fn at(&self) -> At {
        At {
            netns: self.netns.clone(),
            name: self.name.clone(),
        }
    }

    /// Whether a device is this end and complete, which its alias says.
    ///
    /// An alias of release 0.1.0 says so, too: its device has the same configuration and is not
    /// touched, not even for a new alias.
    pub fn is_complete(&self, device: &Observed) -> bool {
        let alias = device.alias.as_ref();
        alias.is_some_and(|alias| self.is_complete_by(alias))
    }

    /// Whether the alias of a device that is known to be this end by other means says, without
    /// proof, that it is complete. If so, it only needs a proven alias: what its pod did to it
    /// since is the pod's own affair. If it is a lie, only the liar's end lacks something.
    pub fn is_said_complete(&self, device: &Observed) -> bool {
        let alias = device.unproven.as_ref();
        alias.is_some_and(|alias| self.is_complete_by(alias))
    }

    fn is_complete_by(&self, alias: &Alias) -> bool {
        let wanted = &self.alias;
        let is_this_end =
            (alias.link, alias.end, &alias.sandbox) == (wanted.link, wanted.end, &wanted.sandbox);
        let is_as_wanted = || {
            alias.config == wanted.config
                || alias.config != Alias::UNFINISHED
                    && alias.config == unversioned_digest(&self.configuration())
        };
        is_this_end && is_as_wanted()
    }

    fn configuration(&self) -> Configuration<'_> {
        Configuration {
            mac: self.mac,
            mtu: self.mtu,
            addresses: &self.addresses,
            routes: &self.routes,
        }
    }
}

/// The kind of the devices that a link is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// A veth pair: both pods are on this node.
    Veth,
    /// A VXLAN device: the other pod is on another node.
    Vxlan,
}

impl LinkKind {
    /// Its name in reports: `veth` or `vxlan`.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkKind::Veth => "veth",
            LinkKind::Vxlan => "vxlan",
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

    /// The kind of the devices that it makes; none if it makes none and only keeps what exists.
    pub fn kind(&self) -> Option<LinkKind> {
        match self {
            Wanted::Veth { .. } => Some(LinkKind::Veth),
            Wanted::Vxlan { .. } => Some(LinkKind::Vxlan),
            Wanted::Hold { .. } | Wanted::Frozen(_) => None,
        }
    }

    /// The VNI of the tunnel that it makes.
    pub fn vni(&self) -> Option<Vni> {
        match self {
            Wanted::Vxlan { tunnel, .. } => Some(tunnel.vni),
            Wanted::Veth { .. } | Wanted::Hold { .. } | Wanted::Frozen(_) => None,
        }
    }

    /// The ends of the devices that it makes, in the order a, z.
    pub fn made_ends(&self) -> impl Iterator<Item = &WantedEnd> {
        let ends = match self {
            Wanted::Veth { a, z } => [Some(a), Some(z)],
            Wanted::Vxlan { end, .. } => [Some(end), None],
            Wanted::Hold { .. } | Wanted::Frozen(_) => [None, None],
        };
        ends.into_iter().flatten()
    }

    /// The end that waits in the node's namespace for its pod.
    pub fn parked(&self) -> Option<&WantedEnd> {
        match self {
            Wanted::Hold { parked, .. } => Some(parked),
            Wanted::Veth { .. } | Wanted::Vxlan { .. } | Wanted::Frozen(_) => None,
        }
    }

    /// All ends that are known, made or only kept.
    pub fn ends(&self) -> impl Iterator<Item = &WantedEnd> {
        let kept = match self {
            Wanted::Hold { survivor, parked } => [Some(survivor), Some(parked)],
            Wanted::Veth { .. } | Wanted::Vxlan { .. } | Wanted::Frozen(_) => [None, None],
        };
        self.made_ends().chain(kept.into_iter().flatten())
    }
}
