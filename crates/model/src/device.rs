//! The vocabulary between the planner and the kernel: what is wanted, what was observed, and the
//! operations that lead from one to the other.
//!
//! Words only. `planner` decides, the kernel crate executes; neither knows the other.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    leftover::Leftover,
    link::{End, Mac, Mtu, Route, Vni},
    names::{LinkId, SandboxId},
};

/// The device group (IFLA_GROUP) that every interface of ours is born into: "Rtch". With it a
/// device that has no alias yet, because its maker died in between, still is known as ours.
pub const GROUP_OURS: u32 = 0x5274_6368;

/// The device group that devices are put into to be deleted in one go: "Rtcx".
pub const GROUP_DOOMED: u32 = 0x5274_6378;

/// The protocol number that our addresses (IFA_PROTO, kernel 5.18 and later) and routes
/// (rtm_protocol) carry, so that they are told from the pod's own. Not used in
/// iproute2's etc/iproute2/rt_protos.
pub const PROTOCOL_OURS: u8 = 82;

/// The UDP port of VXLAN, assigned by IANA (RFC 7348 section 8).
pub const VXLAN_PORT: u16 = 4789;

/// A network namespace in which devices of ours may be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Netns {
    /// The node's own, where the agent lives, tunnels start and ends are parked.
    Node,
    /// A sandbox's.
    Sandbox(SandboxId),
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Netns::Node => f.write_str("node"),
            Netns::Sandbox(id) => write!(f, "sandbox {id}"),
        }
    }
}

/// Whose end of which link a device is, and what it was configured to. It is written into the
/// device's alias (IFLA_IFALIAS) as the **last** step of its set-up: a device whose alias equals
/// the wanted one has had everything else done to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alias {
    /// The link.
    pub link: LinkId,
    /// The end of it that this device is.
    pub end: End,
    /// The sandbox it serves; none while it is parked.
    pub sandbox: Option<SandboxId>,
    /// Digest of the configuration it was given ([`config_digest`]).
    pub config: u32,
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ratchet link={} end={} config={:08x} ",
            self.link, self.end, self.config
        )?;
        match &self.sandbox {
            Some(id) => write!(f, "sandbox={id}"),
            None => f.write_str("parked"),
        }
    }
}

/// The text is not an alias of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an alias of Ratchet's")]
pub struct NotOurs;

impl FromStr for Alias {
    type Err = NotOurs;
    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let mut words = text.split(' ');
        let mut value = |prefix: &str| {
            words
                .next()
                .and_then(|w| w.strip_prefix(prefix))
                .ok_or(NotOurs)
        };
        value("ratchet")?;
        let link = value("link=")?.parse().map_err(|_| NotOurs)?;
        let end = match value("end=")? {
            "a" => End::A,
            "z" => End::Z,
            _ => return Err(NotOurs),
        };
        let config = u32::from_str_radix(value("config=")?, 16).map_err(|_| NotOurs)?;
        let sandbox = match value("")? {
            "parked" => None,
            word => Some(
                word.strip_prefix("sandbox=")
                    .ok_or(NotOurs)?
                    .parse()
                    .map_err(|_| NotOurs)?,
            ),
        };
        Ok(Self {
            link,
            end,
            sandbox,
            config,
        })
    }
}

/// What one end of a link is to be in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedEnd {
    /// Where.
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
    /// Whether it is set up (administratively); a parked end is not.
    pub up: bool,
    /// The alias that it ends with.
    pub alias: Alias,
    /// What a device in whose place it comes has left to it, if that one is gone already.
    pub leftover: Option<Leftover>,
}

/// A digest of what an end is configured to, for [`Alias::config`].
pub fn config_digest(mac: Mac, mtu: Mtu, addresses: &[IpNet], routes: &[Route]) -> u32 {
    let digest = Sha256::digest(format!("{mac} {mtu} {addresses:?} {routes:?}"));
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

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
    /// The link's other pod is away: what `survivor` has is kept as it is, and nothing is made. The
    /// other end of a veth, which its pod is about to take with it, is moved to `parked`.
    Hold {
        /// The end that stays.
        survivor: WantedEnd,
        /// Where the other end of a veth is put.
        parked: WantedEnd,
    },
    /// The link's declarations are at odds: what there is of it stays as it is, and nothing is
    /// made.
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

    /// The ends that are to be there.
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

/// What kind of device was observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A veth; the index of its peer in the peer's own namespace (IFLA_LINK).
    Veth {
        /// The peer's index.
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
    /// Whether it carries [`PROTOCOL_OURS`].
    pub ours: bool,
}

/// A route through an observed device. Only those of our protocol and those that a person or a
/// script added (RTPROT_BOOT, RTPROT_STATIC) in the main table are reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedRoute {
    /// The route.
    pub route: Route,
    /// Whether it carries [`PROTOCOL_OURS`].
    pub ours: bool,
}

/// A network device as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Where it is.
    pub netns: Netns,
    /// Its name.
    pub name: String,
    /// Its index there.
    pub index: u32,
    /// Its kind.
    pub kind: Kind,
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
    /// Its addresses (not link-local ones that the kernel made itself); empty when they were not
    /// asked for.
    pub addresses: Vec<ObservedAddress>,
    /// Its routes; empty when they were not asked for.
    pub routes: Vec<ObservedRoute>,
}

impl Observed {
    /// Whether Ratchet made this device: by alias, or, while it is still being set up, by group.
    pub fn is_ours(&self) -> bool {
        self.alias.is_some() || self.group == GROUP_OURS || self.group == GROUP_DOOMED
    }

    /// How operations refer to it.
    pub fn at(&self) -> At {
        At {
            netns: self.netns.clone(),
            name: self.name.clone(),
        }
    }
}

/// A device, by place and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// Where.
    pub netns: Netns,
    /// Its name there.
    pub name: String,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.name, self.netns)
    }
}

/// A device at its birth. It is born down, in [`GROUP_OURS`], without alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// Where and under which name.
    pub at: At,
    /// Ethernet address.
    pub mac: Mac,
    /// MTU.
    pub mtu: Mtu,
    /// The index to have, if it is free: that of the device in whose place it comes, by which
    /// daemons in the pod know it.
    pub index: Option<u32>,
}

/// One thing to do to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Delete the device (and with a veth its peer). All deletions of a plan are done in one go.
    Delete(At),
    /// Put a device into another namespace, down, under another name. The alias goes into the same
    /// request, so that no crash can leave a moved device (which has lost its addresses) with the
    /// alias of a finished one.
    Move {
        /// The device as it is now.
        from: At,
        /// Where it is to be. `from.netns == to.netns` only renames.
        to: At,
        /// The alias it has from then on, until it is committed: a parked one's.
        alias: Alias,
    },
    /// Make a veth pair, each end in place.
    CreateVeth {
        /// One end.
        a: Birth,
        /// The other.
        z: Birth,
    },
    /// Make a VXLAN device in place, its socket in the node's namespace.
    CreateVxlan {
        /// The device.
        birth: Birth,
        /// Its parameters.
        tunnel: Tunnel,
    },
    /// Change remote and local address of a VXLAN device in place.
    Retarget {
        /// The device.
        at: At,
        /// Its parameters from now on.
        tunnel: Tunnel,
    },
    /// The first step of changing a finished device: take away its claim to be finished, by an
    /// alias that is no wanted one's. What is begun and fails, or is cut off, is so found again.
    Begin(At, Alias),
    /// Give it this Ethernet address.
    SetMac(At, Mac),
    /// Give it this MTU.
    SetMtu(At, Mtu),
    /// Set it up or down.
    SetUp(At, bool),
    /// Add an address; that it is there already is no error. Clears `disable_ipv6` for a v6 one; no
    /// duplicate address detection.
    AddAddress(At, IpNet),
    /// Remove an address; that it is not there is no error.
    RemoveAddress(At, IpNet),
    /// Add a route, before others for the same destination; the device must be up. That it is there
    /// already is no error.
    AddRoute(At, Route),
    /// Remove a route; that it is not there is no error.
    RemoveRoute(At, Route),
    /// Like `AddAddress`, for an address that the pod had given to the device which this one
    /// replaces: it is not marked as ours.
    RestoreAddress(At, IpNet),
    /// Like `AddRoute`, for a route of the pod's own: it is not marked as ours.
    RestoreRoute(At, Route),
    /// Have the kernel say once more that the device has this address. FRR's zebra (8.4, Debian
    /// 12's) learns of devices and of addresses by two threads and drops an address whose device it
    /// has not heard of yet: born in one go as ours are, it loses about one in three. The planner
    /// never asks for this; the agent does, when the routers have had time.
    AnnounceAddress(At, IpNet),
    /// The last step: write the alias. Only done when every other step of the same link and end
    /// succeeded.
    Commit(At, Alias),
}

impl Operation {
    /// The devices that it is about: a pair's ends, and with a move where from, then where to.
    pub fn devices(&self) -> impl DoubleEndedIterator<Item = &At> {
        let (one, other) = match self {
            Operation::CreateVeth { a, z } => (&a.at, Some(&z.at)),
            Operation::Move { from, to, .. } => (from, Some(to)),
            Operation::CreateVxlan { birth, .. } => (&birth.at, None),
            Operation::Retarget { at, .. }
            | Operation::Delete(at)
            | Operation::SetMac(at, _)
            | Operation::SetMtu(at, _)
            | Operation::SetUp(at, _)
            | Operation::AddAddress(at, _)
            | Operation::RemoveAddress(at, _)
            | Operation::AddRoute(at, _)
            | Operation::RemoveRoute(at, _)
            | Operation::RestoreAddress(at, _)
            | Operation::AnnounceAddress(at, _)
            | Operation::RestoreRoute(at, _)
            | Operation::Begin(at, _)
            | Operation::Commit(at, _) => (at, None),
        };
        std::iter::once(one).chain(other)
    }
}

/// An operation, and the link for whose sake it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The link.
    pub link: LinkId,
    /// The operation.
    pub operation: Operation,
}

/// The state of an interface for reports: read back after a plan was executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name in the sandbox.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Its MTU.
    pub mtu: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_read_back_as_they_were_written() {
        for sandbox in [None, Some("ab.c-d_1".parse().unwrap())] {
            let alias = Alias {
                link: "00000000000000ff".parse().unwrap(),
                end: End::Z,
                sandbox,
                config: 7,
            };
            assert_eq!(alias.to_string().parse::<Alias>().unwrap(), alias);
        }
        for foreign in [
            "",
            "ratchet",
            "uplink to r2",
            "ratchet link=zz end=a config=0 parked",
            "ratchet link=00000000000000ff end=q config=0 parked",
        ] {
            assert!(foreign.parse::<Alias>().is_err(), "{foreign}");
        }
    }

    #[test]
    fn the_longest_alias_fits_the_kernel() {
        let sandbox = "x".repeat(SandboxId::MAX).parse().unwrap();
        let alias = Alias {
            link: "00000000000000ff".parse().unwrap(),
            end: End::A,
            sandbox: Some(sandbox),
            config: u32::MAX,
        };
        assert!(alias.to_string().len() < 256);
    }
}
