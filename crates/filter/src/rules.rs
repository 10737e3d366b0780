//! The table, its chains and their rules, as nfnetlink messages. Constant: only elements of sets
//! ever change.
//!
//! In the words of nft, where `th` is the UDP header and the VNI is at `@th,96,24` (8 bytes of UDP,
//! then 4 of flags, RFC 7348 section 5):
//!
//! ```text
//! chain input {
//!   type filter hook input …
//!   udp, VNI . ip saddr . ip daddr @arriving4 accept
//!   udp dport @ports jump arriving
//! }
//! chain arriving {
//!   udp, VNI . ip6 saddr . ip6 daddr @arriving6 accept
//!   udp dport . VNI @ours drop
//!   VNI accept
//!   drop                                                          # there is no VNI in it
//! }
//! chain output {
//!   type filter hook output …
//!   udp, meta skuid exists: udp dport . VNI @ours drop
//!   udp sport & 0xfffc . VNI . ip daddr @leaving4 accept
//!   udp dport @ports jump leaving
//! }
//! chain leaving {
//!   udp sport & 0xfffc . VNI . ip6 daddr @leaving6 accept
//!   udp, VNI . ip daddr @anyport4 accept                          # and the same for IPv6
//!   udp dport . VNI @ours drop
//! }
//! chain forward { type filter hook forward …; udp dport @ports jump forwarded }
//! chain forwarded { udp dport . VNI @ours drop; VNI accept; drop }
//! ```
//!
//! Why so:
//! * In the input hook IPv4 packets are whole; in the hooks before it a forged packet passes in
//!   fragments. IPv6 fragments are put together later (net/ipv6/reassembly.c), so there and in the
//!   forward hook the first fragment is judged: it has the UDP header (since Linux 5.11 one without
//!   is dropped, `ipv6_frag_rcv`), and one that ends before the VNI is dropped. Without the first
//!   fragment the others are never delivered.
//! * What a tunnel over IPv4 carries is let through by the first rule that concerns it, with one
//!   lookup of 12 bytes: each expression is a part of what a small packet costs
//!   (docs/performance.md). So these rules ask neither for the tunnel port nor for the family of
//!   the packet. What they let through beyond tunnels is let through anyway, or goes to a socket
//!   that has no device with that VNI: the kernel finds devices by family, port and VNI
//!   (drivers/net/vxlan/vxlan_core.c, `vxlan_vs_find_vni`), and no two of our links have one VNI.
//! * A packet that a program of the node sends itself has a socket of the node's namespace
//!   (net/netfilter/nft_meta.c, `nft_meta_get_eval_skugid`). What our devices send has none: the
//!   inner packet's is of the pod's namespace.

use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber, MetaKey};
use ratchet_model::device::SourcePorts;

use crate::{
    elements::{Family, Set},
    expressions::{
        ACCEPT, DROP, TRANSPORT, and, destination, is, jump, load, load_meta, lookup, source,
        verdict, vni,
    },
};

/// The name of the table, which is of the family inet.
pub const TABLE: &str = "ratchet";

/// A chain.
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) hook: Option<InetHookNumber>,
    pub(crate) rules: Vec<Rule>,
}

/// A rule.
pub(crate) struct Rule {
    pub(crate) comment: &'static str,
    pub(crate) expressions: Vec<Expressions>,
}

/// All chains. Those that others jump to come first.
pub(crate) fn chains() -> Vec<Chain> {
    let base = |name, hook, rules: Vec<Rule>, to| Chain {
        name,
        hook: Some(hook),
        rules: rules.into_iter().chain([to_tunnel_port(to)]).collect(),
    };
    let others = |name, rules| Chain {
        name,
        hook: None,
        rules,
    };
    vec![
        others("arriving", arriving()),
        others("leaving", leaving()),
        others("forwarded", strangers("only nodes tunnel")),
        base(
            "input",
            InetHookNumber::LocalIn,
            vec![from_peer(Family::V4)],
            "arriving",
        ),
        base(
            "output",
            InetHookNumber::LocalOut,
            vec![drop_ours_of_programs(), from_device(Family::V4)],
            "leaving",
        ),
        base("forward", InetHookNumber::Forward, Vec::new(), "forwarded"),
    ]
}

/// What is to a tunnel port and from no tunnel of ours.
fn strangers(comment: &'static str) -> Vec<Rule> {
    vec![drop_ours(comment), accept_vni(), drop_rest()]
}

fn arriving() -> Vec<Rule> {
    let mut rules = vec![from_peer(Family::V6)];
    rules.extend(strangers("from anywhere else"));
    rules
}

fn leaving() -> Vec<Rule> {
    let mut rules = vec![from_device(Family::V6)];
    rules.extend(Family::BOTH.map(from_any_port));
    rules.push(drop_ours("to anywhere else, or from another device"));
    rules
}

fn from_peer(family: Family) -> Rule {
    let addresses = [
        source(family, 1),
        destination(family, 1 + family.address_words()),
    ];
    wired(
        "from the link's other node",
        [vni(0).as_slice(), &addresses].concat(),
        Set::Arriving(family),
    )
}

fn from_device(family: Family) -> Rule {
    let block = !(SourcePorts::BLOCK - 1);
    let [a, b] = block.to_be_bytes();
    let ports = [load(TRANSPORT, 0, 2, 0), and(0, &[a, b, 0, 0])];
    wired(
        "from the link's device",
        [ports.as_slice(), &vni(1), &[destination(family, 2)]].concat(),
        Set::Leaving(family),
    )
}

fn from_any_port(family: Family) -> Rule {
    wired(
        "from a device without source ports of its own",
        [vni(0).as_slice(), &[destination(family, 1)]].concat(),
        Set::LeavingAnyPort(family),
    )
}

/// Accepts UDP whose key is in a set.
fn wired(comment: &'static str, key: Vec<Expressions>, set: Set) -> Rule {
    let parts = [udp().into(), key, vec![lookup(set), verdict(ACCEPT)]];
    Rule {
        comment,
        expressions: parts.concat(),
    }
}

/// Goes on with UDP only.
fn udp() -> [Expressions; 2] {
    const UDP: u8 = 17;
    [load_meta(MetaKey::L4Proto), is(&[UDP])]
}

fn tunnel_port() -> Vec<Expressions> {
    vec![load(TRANSPORT, 2, 2, 0)]
}

fn to_tunnel_port(chain: &str) -> Rule {
    let parts = [
        udp().into(),
        tunnel_port(),
        vec![lookup(Set::Ports), jump(chain)],
    ];
    Rule {
        comment: "to a tunnel port",
        expressions: parts.concat(),
    }
}

fn drop_ours(comment: &'static str) -> Rule {
    let parts = [
        tunnel_port(),
        vni(1).into(),
        vec![lookup(Set::Ours), verdict(DROP)],
    ];
    Rule {
        comment,
        expressions: parts.concat(),
    }
}

fn drop_ours_of_programs() -> Rule {
    let Rule {
        comment,
        expressions,
    } = drop_ours("by a program of the node");
    // Where there is no socket, loading it ends the rule.
    let first = [udp().as_slice(), &[load_meta(MetaKey::SocketUserId)]].concat();
    Rule {
        comment,
        expressions: [first, expressions].concat(),
    }
}

fn accept_vni() -> Rule {
    Rule {
        comment: "others' VNIs",
        expressions: [vni(0).as_slice(), &[verdict(ACCEPT)]].concat(),
    }
}

fn drop_rest() -> Rule {
    Rule {
        comment: "no VNI in it: what follows may be in another fragment",
        expressions: vec![verdict(DROP)],
    }
}
