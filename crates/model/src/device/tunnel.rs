//! The parameters of a tunnel.

use std::net::IpAddr;

use crate::link::Vni;

/// The UDP port of VXLAN, assigned by IANA (RFC 7348 section 8).
pub const VXLAN_PORT: u16 = 4789;

/// The parameters of a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The network identifier.
    pub vni: Vni,
    /// The other node's VTEP.
    pub remote: IpAddr,
    /// This node's VTEP.
    pub local: IpAddr,
    /// Index of the parent interface in the node's namespace.
    pub parent: u32,
    /// UDP destination port.
    pub port: u16,
}
