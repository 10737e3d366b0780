//! What a wiring knows of this node, of the pods' places and of the VNI.

use std::net::IpAddr;

use crate::{
    WiringKind,
    link::{Mtu, Vni},
    names::{LinkId, NodeName, SandboxId},
};

/// This node, as far as wiring goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Where its tunnels start; none while its underlay is not known.
    pub vtep: Option<Vtep>,
    /// The greatest link MTU for which a tunnel has room.
    pub mtu: Mtu,
    /// The MTU that links get unless their declaration says otherwise (`mtu` of the config).
    pub default_mtu: Option<Mtu>,
    /// How links are wired unless their declaration says otherwise (`wiring` of the config).
    pub default_wiring: WiringKind,
    /// How many devices it may have, when it has no room for those of the link.
    pub full: Option<usize>,
}

/// Where a node's tunnels start and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vtep {
    /// Its address: the parent address.
    pub address: IpAddr,
    /// Index of the parent interface in the node's namespace.
    pub parent: u32,
}

/// Where a pod is, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a sandbox of this node.
    Here(SandboxId),
    /// On another node.
    There {
        /// That node.
        node: NodeName,
        /// Its VTEP.
        vtep: IpAddr,
        /// The greatest link MTU for which its underlay has room.
        mtu: Mtu,
    },
    /// It existed and is gone.
    Gone,
    /// No record names it.
    Unknown,
    /// Its record says that it is on this node, but this agent has no such sandbox.
    Lost(SandboxId),
}

/// What is known of a link's VNI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VniState {
    /// There is none that this node may use yet.
    None,
    /// The link has this one.
    Granted(Vni),
    /// The one that it asks for belongs to another link.
    TakenBy(Vni, LinkId),
    /// The one that it asks for is that of a device of this node that is not ours.
    Blocked(Vni, NodeName),
}
