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
        /// The index of its peer in the peer's own namespace (IFLA_LINK).
        peer: u32,
    },
    /// A VXLAN device.
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
    /// Anything else.
    Other,
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
    /// Its alias, if it is one of ours.
    pub alias: Option<Alias>,
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
    /// Its addresses, without the link-local ones that the kernel made itself. Empty when they were
    /// not asked for.
    pub addresses: Vec<ObservedAddress>,
    /// Its routes. Empty when they were not asked for.
    pub routes: Vec<ObservedRoute>,
}

impl Observed {
    /// Whether Ratchet made this device: by its alias or, until that is written, by its group.
    pub fn is_ours(&self) -> bool {
        self.alias.is_some() || self.group == GROUP_OURS || self.group == GROUP_DOOMED
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
