//! What the source filter of a node lets through.

use std::net::IpAddr;

use super::tunnel::Tunnel;
use crate::link::Vni;

/// The UDP source ports of what a VXLAN device sends (IFLA_VXLAN_PORT_RANGE). A device has its own,
/// and its pod cannot change them: they tell the node which device sent a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePorts {
    /// The first of them.
    pub low: u16,
    /// The first that is not one of them (include/net/udp.h, `udp_flow_src_port`).
    pub high: u16,
}

impl SourcePorts {
    /// How many ports a block has. The filter knows blocks, not ports: 10,000 devices have one
    /// each, and a block is found by a mask.
    pub const BLOCK: u16 = 4;

    /// How many blocks a device may get.
    pub const SIZES: [u16; 3] = [16, 4, 1];

    /// Whether they are such as a node gives its devices: whole blocks, as many as
    /// [`SIZES`](Self::SIZES) says.
    pub fn are_assigned(self) -> bool {
        let count = self.high.saturating_sub(self.low);
        self.low.is_multiple_of(Self::BLOCK)
            && Self::SIZES.iter().any(|size| count == size * Self::BLOCK)
    }

    /// The first ports of the blocks that these ports are in.
    pub fn blocks(self) -> impl Iterator<Item = u16> {
        let first = self.low / Self::BLOCK;
        let last = self.high.saturating_sub(1).max(self.low) / Self::BLOCK;
        (first..=last).map(|block| block * Self::BLOCK)
    }
}

/// What the source filter lets through for one tunnel: its packets from the other node to this one,
/// and from this one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Passage {
    /// The UDP destination port.
    pub port: u16,
    /// The network identifier.
    pub vni: Vni,
    /// This node's VTEP.
    pub local: IpAddr,
    /// The other node's VTEP.
    pub remote: IpAddr,
    /// The source ports of the device; none if it has none of its own, and may use any.
    pub source: Option<SourcePorts>,
}

impl Passage {
    /// The passage of a tunnel whose device has these source ports.
    pub fn of(tunnel: &Tunnel, source: Option<SourcePorts>) -> Self {
        Self {
            port: tunnel.port,
            vni: tunnel.vni,
            local: tunnel.local,
            remote: tunnel.remote,
            source,
        }
    }
}
