//! The requests that Ratchet sends, as netlink messages: pure functions from the model's words, no
//! I/O.
//!
//! Attribute layouts and numbers are netlink-packet-route's; what the kernel makes of them is said
//! where it surprises.

mod joints;
mod numbers;

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::RawFd,
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Rtnl,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol},
    link::{
        InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags,
        LinkInfo, LinkMessage,
    },
    route::{
        RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia,
    },
};
use ratchet_model::{
    device::{GROUP_OURS, PROTOCOL_OURS, SourcePorts, Tunnel},
    link::{Mac, Mtu, Route},
};

use crate::socket::Request;
pub(crate) use joints::{get_joint, join, prepare_joint, silence};
pub(crate) use numbers::{dump_namespace_numbers, get_namespace_number, number_namespace};

/// A device to be created.
pub(crate) struct NewLink<'a> {
    pub(crate) netns: RawFd,
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    pub(crate) mtu: Mtu,
    pub(crate) index: Option<u32>,
    /// Whether it is one of the node's own, and has no ARP: it answers nothing.
    pub(crate) is_on_node: bool,
}

fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = attributes;
    message
}

fn named(name: &str, attribute: Option<LinkAttribute>) -> LinkMessage {
    let mut attributes = vec![LinkAttribute::IfName(name.to_owned())];
    attributes.extend(attribute);
    link(attributes)
}

fn attributes_of(new: &NewLink<'_>) -> Vec<LinkAttribute> {
    vec![
        LinkAttribute::IfName(new.name.to_owned()),
        LinkAttribute::NetNsFd(new.netns),
        LinkAttribute::Address(new.mac.bytes().to_vec()),
        LinkAttribute::Mtu(new.mtu.bytes()),
        LinkAttribute::Group(GROUP_OURS),
    ]
}

const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// A veth pair, each end in its namespace. Neither can be created up (ENOTCONN, drivers/net/veth.c
/// `veth_open`).
pub(crate) fn create_veth(a: &NewLink<'_>, z: &NewLink<'_>) -> Request {
    let mut attributes = attributes_of(a);
    let peer = InfoData::Veth(InfoVeth::Peer(with_header(z, link(attributes_of(z)))));
    attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(peer),
    ]));
    Request {
        message: Rtnl::NewLink(with_header(a, link(attributes))),
        flags: CREATE,
    }
}

fn with_header(new: &NewLink<'_>, mut message: LinkMessage) -> LinkMessage {
    message.header.index = new.index.unwrap_or(0);
    if new.is_on_node {
        message.header.flags = LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Noarp;
    }
    message
}

/// A VXLAN device. Its UDP socket is made in the namespace of the netlink socket that this is sent
/// over.
pub(crate) fn create_vxlan(
    new: &NewLink<'_>,
    tunnel: &Tunnel,
    source: Option<SourcePorts>,
) -> Request {
    let mut data = far_end(tunnel);
    data.extend(source.map(|ports| InfoVxlan::PortRange((ports.low, ports.high))));
    data.extend([
        InfoVxlan::Id(tunnel.vni.number()),
        InfoVxlan::Port(tunnel.port),
        // One peer only: there is nothing to learn, and nobody is to teach the device another one.
        InfoVxlan::Learning(false),
    ]);
    if tunnel.remote.is_ipv6() {
        // The inner frame has checksums of its own, and RFC 7348 section 5 lets the outer one be
        // zero; over IPv4 the kernel leaves it out by default. Receiving both kinds lets the two
        // ends differ.
        data.extend([
            InfoVxlan::UDPZeroCsumTX(true),
            InfoVxlan::UDPZeroCsumRX(true),
        ]);
    }
    let mut attributes = attributes_of(new);
    attributes.push(vxlan(data));
    Request {
        message: Rtnl::NewLink(with_header(new, link(attributes))),
        flags: CREATE,
    }
}

/// Another far end for a VXLAN device, in place. What is left out is kept
/// (drivers/net/vxlan/vxlan_core.c, `vxlan_nl2conf` with `changelink`); giving the port, even the
/// same, is refused there.
pub(crate) fn retarget(name: &str, tunnel: &Tunnel) -> Request {
    let message = named(name, Some(vxlan(far_end(tunnel))));
    Request {
        message: Rtnl::NewLink(message),
        flags: 0,
    }
}

fn vxlan(data: Vec<InfoVxlan>) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vxlan),
        LinkInfo::Data(InfoData::Vxlan(data)),
    ])
}

fn far_end(tunnel: &Tunnel) -> Vec<InfoVxlan> {
    let remote = match tunnel.remote {
        IpAddr::V4(remote) => InfoVxlan::Group(remote),
        IpAddr::V6(remote) => InfoVxlan::Group6(remote),
    };
    let local = match tunnel.local {
        IpAddr::V4(local) => InfoVxlan::Local(local),
        IpAddr::V6(local) => InfoVxlan::Local6(local),
    };
    vec![remote, local, InfoVxlan::Link(tunnel.parent)]
}

/// Asks for one device. Answered by one message, or ENODEV.
pub(crate) fn get_link(name: &str) -> Request {
    let message = named(
        name,
        Some(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])),
    );
    Request {
        message: Rtnl::GetLink(message),
        flags: 0,
    }
}

/// Dumps all devices of a namespace, without their counters.
pub(crate) fn dump_links() -> Request {
    let message = link(vec![LinkAttribute::ExtMask(vec![
        LinkExtentMask::SkipStats,
    ])]);
    Request {
        message: Rtnl::GetLink(message),
        flags: 0,
    }
}

fn set(message: LinkMessage) -> Request {
    Request {
        message: Rtnl::SetLink(message),
        flags: 0,
    }
}

pub(crate) fn set_mac(name: &str, mac: Mac) -> Request {
    set(named(
        name,
        Some(LinkAttribute::Address(mac.bytes().to_vec())),
    ))
}

pub(crate) fn set_mtu(name: &str, mtu: Mtu) -> Request {
    set(named(name, Some(LinkAttribute::Mtu(mtu.bytes()))))
}

pub(crate) fn set_alias(index: u32, alias: String) -> Request {
    let mut message = link(vec![LinkAttribute::IfAlias(alias)]);
    message.header.index = index;
    set(message)
}

pub(crate) fn set_group(index: u32, group: u32) -> Request {
    let mut message = link(vec![LinkAttribute::Group(group)]);
    message.header.index = index;
    set(message)
}

pub(crate) fn set_up(name: &str, up: bool) -> Request {
    let mut message = named(name, None);
    message.header.change_mask = LinkFlags::Up;
    if up {
        message.header.flags = LinkFlags::Up;
    }
    set(message)
}

/// Moves a device, or only renames it. By index: given a name, the kernel takes IFLA_IFNAME for the
/// device to look up and does not rename (net/core/rtnetlink.c, `do_setlink`).
pub(crate) fn move_link(
    index: u32,
    netns: Option<RawFd>,
    name: &str,
    alias: Option<String>,
) -> Request {
    let mut attributes = vec![LinkAttribute::IfName(name.to_owned())];
    attributes.extend(netns.map(LinkAttribute::NetNsFd));
    attributes.extend(alias.map(LinkAttribute::IfAlias));
    let mut message = link(attributes);
    message.header.index = index;
    set(message)
}

pub(crate) fn delete_link(index: u32) -> Request {
    let mut message = link(Vec::new());
    message.header.index = index;
    Request {
        message: Rtnl::DelLink(message),
        flags: 0,
    }
}

/// Deletes every device of a group, with one RCU barrier for all (net/core/rtnetlink.c,
/// `rtnl_group_dellink`).
pub(crate) fn delete_group(group: u32) -> Request {
    Request {
        message: Rtnl::DelLink(link(vec![LinkAttribute::Group(group)])),
        flags: 0,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn address(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(net.addr()),
        AddressAttribute::Address(net.addr()),
    ];
    message
}

/// Adds an address as `ip address add … brd +` does, without duplicate address detection, marked
/// with a protocol number if one is given.
pub(crate) fn add_address(index: u32, net: IpNet, protocol: Option<u8>) -> Request {
    let mut message = address(index, net);
    message
        .attributes
        .extend(protocol.map(|number| AddressAttribute::Protocol(AddressProtocol::Other(number))));
    match net {
        IpNet::V4(net) => message
            .attributes
            .extend(broadcast(net).map(AddressAttribute::Broadcast)),
        IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    Request {
        message: Rtnl::NewAddress(message),
        flags: CREATE,
    }
}

/// Adds an address that is there, which changes nothing and makes the kernel tell everybody
/// (net/ipv4/devinet.c, `inet_rtm_newaddr`; net/ipv6/addrconf.c, `inet6_addr_modify`).
pub(crate) fn announce_address(index: u32, net: IpNet) -> Request {
    Request {
        flags: NLM_F_REPLACE,
        ..add_address(index, net, Some(PROTOCOL_OURS))
    }
}

/// The broadcast address; a /31 (RFC 3021) and a /32 have none.
fn broadcast(net: ipnet::Ipv4Net) -> Option<Ipv4Addr> {
    (net.prefix_len() < 31).then(|| net.broadcast())
}

pub(crate) fn remove_address(index: u32, net: IpNet) -> Request {
    Request {
        message: Rtnl::DelAddress(address(index, net)),
        flags: 0,
    }
}

/// Dumps one family's addresses of one device, or of all (index 0).
pub(crate) fn dump_addresses(family: AddressFamily, index: u32) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family;
    message.header.index = index;
    Request {
        message: Rtnl::GetAddress(message),
        flags: 0,
    }
}

fn route(index: u32, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let dst = route.dst.trunc();
    message.header.address_family = family(dst.addr());
    message.header.destination_prefix_length = dst.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Other(PROTOCOL_OURS);
    message.header.kind = RouteType::Unicast;
    message.header.scope = match (dst, route.via) {
        // A destination on the link itself, as iproute2 scopes it; IPv6 has no scopes.
        (IpNet::V4(_), None) => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    message.attributes = vec![
        RouteAttribute::Destination(dst.addr().into()),
        RouteAttribute::Oif(index),
    ];
    match (dst, route.via) {
        (_, None) => {}
        (IpNet::V4(_), Some(IpAddr::V6(via))) => message
            .attributes
            .push(RouteAttribute::Via(RouteVia::Inet6(via))),
        (_, Some(via)) => message.attributes.push(RouteAttribute::Gateway(via.into())),
    }
    message
        .attributes
        .extend(route.metric.map(RouteAttribute::Priority));
    message
}

/// Adds a route before others for the same destination, such as the pod's own default route, and
/// leaves them: NLM_F_REPLACE would take them away for good.
pub(crate) fn add_route(index: u32, wanted: &Route, protocol: RouteProtocol) -> Request {
    let mut message = route(index, wanted);
    message.header.protocol = protocol;
    Request {
        message: Rtnl::NewRoute(message),
        flags: NLM_F_CREATE,
    }
}

/// Removes a route of ours; one that somebody else added for the same destination is not matched.
pub(crate) fn remove_route(index: u32, gone: &Route) -> Request {
    Request {
        message: Rtnl::DelRoute(route(index, gone)),
        flags: 0,
    }
}

/// Dumps the routes of the main table that carry a protocol number; 0: any.
pub(crate) fn dump_routes(family: AddressFamily, protocol: u8) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.protocol = RouteProtocol::from(protocol);
    message.attributes = vec![RouteAttribute::Table(u32::from(RouteHeader::RT_TABLE_MAIN))];
    Request {
        message: Rtnl::GetRoute(message),
        flags: 0,
    }
}
