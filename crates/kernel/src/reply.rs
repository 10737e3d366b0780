//! What the kernel says of devices, addresses and routes, read into the model's words.
//!
//! Read by hand and leniently, on purpose: namespaces hold devices of every kind and kernels grow
//! attributes, and nothing that a stranger's device reports may keep Ratchet from seeing its own.
//! So only the attributes that are needed are looked at, and a message that makes no sense is
//! passed over.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use ratchet_model::{
    device::{
        Kind, Netns, Observed, ObservedAddress, ObservedRoute, PROTOCOL_OURS, Peer, SourcePorts,
    },
    link::{Mac, Route},
};

/// Splits netlink attributes into type and value (include/uapi/linux/netlink.h, `struct nlattr`);
/// ends at the first one that is not whole.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        // NLA_TYPE_MASK: less NLA_F_NESTED and NLA_F_NET_BYTEORDER.
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u32_of(value: &[u8]) -> u32 {
    u32_at(value, 0).unwrap_or_default()
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value)
        .trim_end_matches('\0')
        .to_owned()
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

/// IFF_UP and IFF_LOWER_UP, include/uapi/linux/if.h.
const UP: u32 = 1;
const LOWER_UP: u32 = 1 << 16;

/// Reads RTM_NEWLINK: `struct ifinfomsg` (include/uapi/linux/rtnetlink.h) and IFLA_* (if_link.h).
///
/// Nothing of what an alias says is proven yet, and a peer counts as in the same namespace.
pub(crate) fn link(netns: &Netns, payload: &[u8]) -> Option<Observed> {
    let index = u32_at(payload, 4)?;
    let flags = u32_at(payload, 8)?;
    let mut found = Observed {
        netns: netns.clone(),
        name: String::new(),
        index,
        kind: Kind::Other,
        source: None,
        alias: None,
        unproven: None,
        group: 0,
        mac: None,
        mtu: 0,
        up: flags & UP != 0,
        carrier: flags & LOWER_UP != 0,
        joined: None,
        addresses: Vec::new(),
        routes: Vec::new(),
    };
    let mut info: &[u8] = &[];
    let mut lower = 0;
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            1 => found.mac = <[u8; 6]>::try_from(value).ok().map(Mac::from_bytes),
            3 => found.name = text(value),
            4 => found.mtu = u32_of(value),
            5 => lower = u32_of(value),
            18 => info = value,
            20 => found.unproven = text(value).parse().ok(),
            27 => found.group = u32_of(value),
            _ => {}
        }
    }
    let peer = Peer {
        netns: netns.clone(),
        index: lower,
    };
    (found.kind, found.source) = kind(info, peer);
    Some(found)
}

/// Reads IFLA_IFALIAS.
pub(crate) fn alias(payload: &[u8]) -> Option<String> {
    let (_, value) = attributes(payload.get(16..)?).find(|(kind, _)| *kind == 20)?;
    Some(text(value))
}

/// Reads IFLA_LINK_NETNSID: the number that the namespace of a tunnel's socket, or of a veth's
/// peer, has in the device's own; `None` when both are the same.
pub(crate) fn home(payload: &[u8]) -> Option<i32> {
    let (_, value) = attributes(payload.get(16..)?).find(|(kind, _)| *kind == 37)?;
    Some(u32_of(value).cast_signed())
}

/// Reads NETNSA_NSID behind `struct rtgenmsg` (include/uapi/linux/net_namespace.h): the number of a
/// namespace that was asked for; `None` when it has none.
pub(crate) fn namespace_number(payload: &[u8]) -> Option<i32> {
    let (_, value) = attributes(payload.get(4..)?).find(|(kind, _)| *kind == 1)?;
    Some(u32_of(value).cast_signed()).filter(|number| *number >= 0)
}

/// Reads NETNSA_NSID and NETNSA_CURRENT_NSID: the number of a namespace in the one that was asked
/// about, and in that of the socket.
pub(crate) fn namespace_numbers(payload: &[u8]) -> Option<(i32, i32)> {
    let number = |wanted| {
        let (_, value) = attributes(payload.get(4..)?).find(|(kind, _)| *kind == wanted)?;
        Some(u32_of(value).cast_signed())
    };
    Some((number(1)?, number(5)?))
}

/// Reads the names that a device has beside its own: IFLA_ALT_IFNAME within IFLA_PROP_LIST.
pub(crate) fn alternative_names(payload: &[u8]) -> Vec<String> {
    let lists = attributes(payload.get(16..).unwrap_or_default()).filter(|(kind, _)| *kind == 52);
    lists
        .flat_map(|(_, list)| attributes(list))
        .filter(|(kind, _)| *kind == 53)
        .map(|(_, name)| text(name))
        .collect()
}

/// Reads RTM_NEWTFILTER, `struct tcmsg` with TCA_* (include/uapi/linux/rtnetlink.h): the device to
/// which a joint redirects frames; `None` if that has gone, or it is no joint.
pub(crate) fn joint(payload: &[u8]) -> Option<u32> {
    // TCA_OPTIONS, TCA_BPF_ACT, the first action, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS
    // (pkt_cls.h, tc_act/tc_mirred.h).
    let mut value = payload.get(20..)?;
    for wanted in [2, 1, 1, 2, 2] {
        (_, value) = attributes(value).find(|(kind, _)| *kind == wanted)?;
    }
    // `struct tc_mirred`: five numbers, what is done (1: TCA_EGRESS_REDIR), and the device.
    let index = u32_at(value, 24).filter(|index| *index != 0);
    index.filter(|_| u32_at(value, 20) == Some(1))
}

/// Reads IFLA_LINKINFO: IFLA_INFO_KIND and IFLA_INFO_DATA.
fn kind(info: &[u8], peer: Peer) -> (Kind, Option<SourcePorts>) {
    let part = |wanted| {
        attributes(info)
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| value)
            .unwrap_or_default()
    };
    match text(part(1)).as_str() {
        "veth" => (Kind::Veth { peer: Some(peer) }, None),
        "vxlan" => (vxlan(part(2)), source_ports(part(2))),
        _ => (Kind::Other, None),
    }
}

/// Reads IFLA_VXLAN_* (include/uapi/linux/if_link.h).
fn vxlan(data: &[u8]) -> Kind {
    let (mut vni, mut remote, mut local, mut parent, mut port) = (0, None, None, 0, 0);
    for (kind, value) in attributes(data) {
        match kind {
            1 => vni = u32_of(value),
            2 | 16 => remote = ip(value),
            3 => parent = u32_of(value),
            4 | 17 => local = ip(value),
            15 => {
                port = <[u8; 2]>::try_from(value)
                    .map(u16::from_be_bytes)
                    .unwrap_or_default()
            }
            _ => {}
        }
    }
    Kind::Vxlan {
        vni,
        remote,
        local,
        parent,
        port,
    }
}

/// Reads IFLA_VXLAN_PORT_RANGE, `struct ifla_vxlan_port_range` there: zero for a device that has no
/// source ports of its own.
fn source_ports(data: &[u8]) -> Option<SourcePorts> {
    let (_, range) = attributes(data).find(|(kind, _)| *kind == 10)?;
    let [a, b, c, d] = <[u8; 4]>::try_from(range).ok()?;
    let (low, high) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    (low < high).then_some(SourcePorts { low, high })
}

/// An address and what the kernel says about it.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) index: u32,
    pub(crate) net: IpNet,
    /// RT_SCOPE_UNIVERSE.
    pub(crate) global: bool,
    /// IFA_F_*, include/uapi/linux/if_addr.h.
    pub(crate) flags: u32,
    /// IFA_PROTO; kernels before 5.18 know none.
    protocol: u8,
}

impl Address {
    /// IFAPROT_KERNEL_LL: a link-local address that the kernel made itself.
    const KERNEL_LINK_LOCAL: u8 = 3;

    /// The address as a part of its device; nothing for a link-local one that the kernel made
    /// itself.
    pub(crate) fn observed(&self, mac: Option<Mac>) -> Option<ObservedAddress> {
        let made_by_kernel = match self.protocol {
            0 => mac.is_some_and(|mac| self.net.addr() == IpAddr::V6(eui64(mac))),
            protocol => protocol == Self::KERNEL_LINK_LOCAL,
        };
        (!made_by_kernel).then_some(ObservedAddress {
            address: self.net,
            ours: self.protocol == PROTOCOL_OURS,
        })
    }
}

/// The link-local address that the kernel derives from a MAC address: RFC 4291 appendix A. For
/// kernels that do not tell by IFA_PROTO who made an address.
fn eui64(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
}

/// Reads RTM_NEWADDR: `struct ifaddrmsg` and IFA_* (include/uapi/linux/if_addr.h).
pub(crate) fn address(payload: &[u8]) -> Option<Address> {
    let prefix = *payload.get(1)?;
    let index = u32_at(payload, 4)?;
    let (mut local, mut far, mut protocol, mut flags) =
        (None, None, 0, u32::from(*payload.get(2)?));
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            1 => far = ip(value),
            2 => local = ip(value),
            8 => flags = u32_of(value),
            11 => protocol = value.first().copied().unwrap_or_default(),
            _ => {}
        }
    }
    let net = IpNet::new(local.or(far)?, prefix).ok()?;
    Some(Address {
        index,
        net,
        global: payload.get(3) == Some(&0),
        flags,
        protocol,
    })
}

/// A unicast route of the main table.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    /// The interface it leaves by; of several next hops the first one's.
    pub(crate) index: u32,
    pub(crate) route: Route,
    protocol: u8,
}

impl Hop {
    pub(crate) fn observed(self) -> ObservedRoute {
        ObservedRoute {
            ours: self.protocol == PROTOCOL_OURS,
            route: self.route,
        }
    }
}

/// RTN_UNICAST, RT_TABLE_MAIN, RTM_F_CLONED, and the metric of an IPv6 route for which none was
/// given (IP6_RT_PRIO_USER, include/uapi/linux/ipv6_route.h).
const UNICAST: u8 = 1;
const MAIN: u32 = 254;
const CLONED: u32 = 0x200;
const DEFAULT_METRIC_V6: u32 = 1024;

/// Reads RTM_NEWROUTE: `struct rtmsg` and RTA_* (include/uapi/linux/rtnetlink.h).
pub(crate) fn route(payload: &[u8]) -> Option<Hop> {
    let v6 = match i32::from(*payload.first()?) {
        nix::libc::AF_INET => false,
        nix::libc::AF_INET6 => true,
        _ => return None,
    };
    let prefix = *payload.get(1)?;
    let protocol = *payload.get(5)?;
    let (mut index, mut dst, mut via, mut metric) = (0, None, None, None);
    let mut table = u32::from(*payload.get(4)?);
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            1 => dst = ip(value),
            4 => index = u32_of(value),
            5 => via = ip(value),
            6 => metric = Some(u32_of(value)),
            // RTA_MULTIPATH: `struct rtnexthop`, whose ifindex is at 4.
            9 => index = u32_at(value, 4).unwrap_or_default(),
            15 => table = u32_of(value),
            // RTA_VIA: `struct rtvia`, a family of two bytes and an address.
            18 => via = value.get(2..).and_then(ip),
            _ => {}
        }
    }
    if *payload.get(7)? != UNICAST
        || table != MAIN
        || u32_at(payload, 8)? & CLONED != 0
        || index == 0
    {
        return None;
    }
    let any = if v6 {
        IpAddr::from([0_u8; 16])
    } else {
        IpAddr::from([0_u8; 4])
    };
    let metric = metric.filter(|metric| *metric != if v6 { DEFAULT_METRIC_V6 } else { 0 });
    Some(Hop {
        index,
        route: Route {
            dst: IpNet::new(dst.unwrap_or(any), prefix).ok()?,
            via,
            metric,
        },
        protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_passed_over() {
        for length in 0..80 {
            let bytes = vec![0xff; length];
            assert_eq!(attributes(&bytes).count(), 0);
            let _ = (link(&Netns::Node, &bytes), address(&bytes), route(&bytes));
        }
        // An attribute shorter than its own header.
        assert_eq!(attributes(&[2, 0, 1, 0, 9, 9, 9, 9]).count(), 0);
    }

    #[test]
    fn link_local_addresses_of_old_kernels_are_known_by_their_form() {
        let mac = Mac::from_bytes([2, 0xa, 0, 0, 0, 1]);
        assert_eq!(eui64(mac).to_string(), "fe80::a:ff:fe00:1");
    }
}
