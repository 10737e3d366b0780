//! The devices that a wiring wants.

use ipnet::IpNet;

use super::{
    alias::{Alias, Part},
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
        let is_this_end = alias.end_id() == wanted.end_id() && alias.sandbox == wanted.sandbox;
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

/// What the node end of a stub is joined to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joint {
    /// The device of this name in the node's namespace. The node end is up.
    To(String),
    /// Nothing. The node end is down, so that the pod sees no carrier.
    Cut,
    /// What it is joined to now, if it is: all that the link has in the node's namespace stays. The
    /// peer's place is not known.
    Keep,
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
        /// The name of the device in the node's namespace that it is joined to; none if it is the
        /// pod's interface itself.
        joined: Option<String>,
    },
    /// A veth pair between a pod and the node (stitched wiring).
    Stub {
        /// The pod's interface.
        pod: WantedEnd,
        /// The other end, in the node's namespace.
        node: WantedEnd,
        /// What that is joined to.
        joint: Joint,
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
            | Wanted::Stub { pod: end, .. }
            | Wanted::Hold { survivor: end, .. } => end.alias.link,
            Wanted::Frozen(link) => *link,
        }
    }

    /// The kind of the link by this object; none if it only keeps what exists, or is joined to
    /// nothing.
    pub fn kind(&self) -> Option<LinkKind> {
        match self {
            Wanted::Veth { .. } => Some(LinkKind::Veth),
            Wanted::Stub { joint, .. } => matches!(joint, Joint::To(_)).then_some(LinkKind::Veth),
            Wanted::Vxlan { .. } => Some(LinkKind::Vxlan),
            Wanted::Hold { .. } | Wanted::Frozen(_) => None,
        }
    }

    /// Whether it is part of a stitched link.
    pub fn is_stitched(&self) -> bool {
        matches!(
            self,
            Wanted::Stub { .. }
                | Wanted::Vxlan {
                    joined: Some(_),
                    ..
                }
        )
    }

    /// Whether it makes devices.
    pub fn makes(&self) -> bool {
        self.made_ends().next().is_some()
    }

    /// Whether devices of its link stay as they are.
    pub fn keeps(&self) -> bool {
        matches!(
            self,
            Wanted::Hold { .. }
                | Wanted::Frozen(_)
                | Wanted::Stub {
                    joint: Joint::Keep,
                    ..
                }
        )
    }

    /// The VNI of the tunnel that it makes.
    pub fn vni(&self) -> Option<Vni> {
        match self {
            Wanted::Vxlan { tunnel, .. } => Some(tunnel.vni),
            _ => None,
        }
    }

    /// The ends of the devices that it makes, in the order a, z; of a stub the pod's, the node's.
    pub fn made_ends(&self) -> impl Iterator<Item = &WantedEnd> {
        let ends = match self {
            Wanted::Veth { a, z } => [Some(a), Some(z)],
            Wanted::Stub { pod, node, .. } => [Some(pod), Some(node)],
            Wanted::Vxlan { end, .. } => [Some(end), None],
            Wanted::Hold { .. } | Wanted::Frozen(_) => [None, None],
        };
        ends.into_iter().flatten()
    }

    /// Whether it has devices in the node's namespace.
    pub fn is_on_node(&self) -> bool {
        self.ends().any(|end| end.netns == Netns::Node)
    }

    /// Whether a device in the node's namespace belongs to it, or stays with it.
    pub fn holds_on_node(&self, device: &Observed) -> bool {
        let Some(alias) = device
            .alias
            .as_ref()
            .filter(|alias| alias.link == self.link())
        else {
            return false;
        };
        let mut ends = self.ends().filter(|end| end.netns == Netns::Node);
        ends.any(|end| end.name == device.name && end.alias == *alias) || self.keeps_joined(alias)
    }

    /// Whether a device stays with it that has this alias: what a stub is joined to of which it is
    /// not known what it is to be joined to. What an earlier sandbox of the pod had does not.
    pub fn keeps_joined(&self, alias: &Alias) -> bool {
        let Wanted::Stub {
            node,
            joint: Joint::Keep,
            ..
        } = self
        else {
            return false;
        };
        let own = &node.alias;
        let is_of_link = alias.link == own.link && alias.part != Part::Pod;
        is_of_link && (alias.end != own.end || alias.sandbox == own.sandbox)
    }

    /// All ends that are known, made or only kept.
    pub fn ends(&self) -> impl Iterator<Item = &WantedEnd> {
        let kept = match self {
            Wanted::Hold { survivor, parked } => [Some(survivor), Some(parked)],
            _ => [None, None],
        };
        self.made_ends().chain(kept.into_iter().flatten())
    }
}
