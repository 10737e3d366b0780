//! The devices that the kernel reports.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    alias::Alias,
    netns::{At, Netns},
    ours::{GROUP_DOOMED, GROUP_OURS},
    passage::SourcePorts,
    tunnel::Tunnel,
};
use crate::link::{Mac, Route};

/// The kind of an observed device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A veth.
    Veth {
        /// Its peer, as the kernel says; none if that is in no namespace that is known here.
        peer: Option<Peer>,
    },
    /// A VXLAN device whose socket is in the node's namespace.
    Vxlan {
        /// Network identifier (0 when the kernel reports none).
        vni: u32,
        /// Remote VTEP, if one is set.
        remote: Option<IpAddr>,
        /// Local VTEP, if one is set.
        local: Option<IpAddr>,
        /// Index of the lower device, in the namespace of the UDP socket; 0: none.
        parent: u32,
        /// UDP destination port.
        port: u16,
    },
    /// Anything else, which Ratchet cannot have made.
    Other,
}

/// The other end of a veth (IFLA_LINK and IFLA_LINK_NETNSID).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Its namespace.
    pub netns: Netns,
    /// Its index there.
    pub index: u32,
}

impl From<&Tunnel> for Kind {
    fn from(tunnel: &Tunnel) -> Self {
        Kind::Vxlan {
            vni: tunnel.vni.number(),
            remote: Some(tunnel.remote),
            local: Some(tunnel.local),
            parent: tunnel.parent,
            port: tunnel.port,
        }
    }
}

/// An address on an observed device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedAddress {
    /// Address and prefix.
    pub address: IpNet,
    /// Whether it carries [`PROTOCOL_OURS`](super::PROTOCOL_OURS).
    pub ours: bool,
}

/// A route through an observed device. Reported are those of our protocol and those that a person
/// or a script added (RTPROT_BOOT, RTPROT_STATIC) to the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedRoute {
    /// The route.
    pub route: Route,
    /// Whether it carries [`PROTOCOL_OURS`](super::PROTOCOL_OURS).
    pub ours: bool,
}

/// A network device as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Its namespace.
    pub netns: Netns,
    /// Its name.
    pub name: String,
    /// Its index there.
    pub index: u32,
    /// Its kind.
    pub kind: Kind,
    /// The source ports of a VXLAN device, if it has some of its own.
    pub source: Option<SourcePorts>,
    /// What its alias says, if this node's agent wrote it, and for this device in this place.
    pub alias: Option<Alias>,
    /// What its alias says, if that is not proven: anything that the pod's root may have written,
    /// or an agent with another key. It never tells whose a device is.
    pub unproven: Option<Alias>,
    /// Its device group.
    pub group: u32,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Whether it has a carrier.
    pub carrier: bool,
    /// The index of the device to which every frame that it receives is passed on, in the same
    /// namespace. Only told of devices that an agent joins ([`Part`](super::Part)).
    pub joined: Option<u32>,
    /// Its addresses, without the link-local ones that the kernel made itself. Empty when they were
    /// not asked for.
    pub addresses: Vec<ObservedAddress>,
    /// Its routes. Empty when they were not asked for.
    pub routes: Vec<ObservedRoute>,
}

impl Observed {
    /// Whether Ratchet made this device: by its alias or, until that is written, by its group. A
    /// pod's root can put a device of its own into the group. That only puts the device at risk.
    ///
    /// A tunnel in a sandbox is also known by its source ports, so that a pod's root cannot hide
    /// it, and keep its VNI from the next link.
    pub fn is_ours(&self) -> bool {
        let is_marked =
            self.alias.is_some() || self.group == GROUP_OURS || self.group == GROUP_DOOMED;
        self.kind != Kind::Other && (is_marked || self.has_assigned_ports())
    }

    fn has_assigned_ports(&self) -> bool {
        let is_in_sandbox = matches!(self.netns, Netns::Sandbox(_));
        is_in_sandbox && self.source.is_some_and(SourcePorts::are_assigned)
    }

    /// Whether it may be an end whose set-up was not finished: ours, but nothing says which.
    pub fn is_unfinished(&self) -> bool {
        self.is_ours() && self.alias.is_none() && self.group != GROUP_DOOMED
    }

    /// What its alias says, proven or not: only for what concerns the device's own pod.
    pub fn says(&self) -> Option<&Alias> {
        self.alias.as_ref().or(self.unproven.as_ref())
    }

    /// Whether this is the other end of a veth pair, as the kernel says of both.
    pub fn is_peer_of(&self, other: &Self) -> bool {
        self.has_peer(other) && other.has_peer(self)
    }

    fn has_peer(&self, other: &Self) -> bool {
        match &self.kind {
            Kind::Veth { peer: Some(peer) } => {
                peer.index == other.index && peer.netns == other.netns
            }
            _ => false,
        }
    }

    /// Its location.
    pub fn at(&self) -> At {
        At {
            netns: self.netns.clone(),
            name: self.name.clone(),
        }
    }

    /// Whether it is where `at` says.
    pub fn is_at(&self, netns: &Netns, name: &str) -> bool {
        self.netns == *netns && self.name == name
    }
}
