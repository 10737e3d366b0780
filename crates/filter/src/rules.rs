//! The table, its chains and their rules, as nfnetlink messages. Constant: only elements of sets
//! ever change.
//!
//! In the words of nft, where `th` is the UDP header and the VNI is at `@th,96,24` (8 bytes of UDP,
//! then 4 of flags, RFC 7348 section 5):
//!
//! ```text
//! chain input   { type filter hook input …;   udp dport @ports jump arriving }
//! chain output  { type filter hook output …;  udp dport @ports jump leaving }
//! chain forward { type filter hook forward …; udp dport @ports jump forwarded }
//! chain arriving {
//!   udp dport . VNI . ip saddr . ip daddr @arriving4 accept      # and the same for IPv6
//!   udp dport . VNI @ours drop
//!   VNI accept
//!   drop                                                          # there is no VNI in it
//! }
//! chain leaving {
//!   meta skuid exists: udp dport . VNI @ours drop
//!   udp sport & 0xfffc . udp dport . VNI . ip saddr . ip daddr @leaving4 accept
//!   udp dport . VNI . ip saddr . ip daddr @anyport4 accept        # and both for IPv6
//!   udp dport . VNI @ours drop
//! }
//! chain forwarded { udp dport . VNI @ours drop; VNI accept; drop }
//! ```
//!
//! Why so:
//! * In the input hook IPv4 packets are whole; in the hooks before it a forged packet passes in
//!   fragments. IPv6 fragments are put together later (net/ipv6/reassembly.c), so there and in the
//!   forward hook the first fragment is judged: it has the UDP header (since Linux 5.11 one without
//!   is dropped, `ipv6_frag_rcv`), and one that ends before the VNI is dropped. Without the first
//!   fragment the others are never delivered.
//! * A packet that a program of the node sends itself has a socket of the node's namespace
//!   (net/netfilter/nft_meta.c, `nft_meta_get_eval_skugid`). What our devices send has none: the
//!   inner packet's is of the pod's namespace.

use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber, MetaKey};
use ratchet_model::device::SourcePorts;

use crate::{
    elements::{Family, Set},
    expressions::{
        ACCEPT, DROP, TRANSPORT, addresses, and, is, is_of, jump, load, load_meta, lookup, verdict,
        vni,
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
    let base = |name, hook, to| Chain {
        name,
        hook: Some(hook),
        rules: vec![to_tunnel_port(to)],
    };
    vec![
        Chain {
            name: "arriving",
            hook: None,
            rules: arriving(),
        },
        Chain {
            name: "leaving",
            hook: None,
            rules: leaving(),
        },
        Chain {
            name: "forwarded",
            hook: None,
            rules: vec![drop_ours("only nodes tunnel"), accept_vni(), drop_rest()],
        },
        base("input", InetHookNumber::LocalIn, "arriving"),
        base("output", InetHookNumber::LocalOut, "leaving"),
        base("forward", InetHookNumber::Forward, "forwarded"),
    ]
}

fn arriving() -> Vec<Rule> {
    let from_peer = |family| {
        let comment = "from the link's other node";
        wired(comment, family, tunnel_port(), Set::Arriving(family))
    };
    let mut rules: Vec<Rule> = Family::BOTH.map(from_peer).into();
    rules.extend([drop_ours("from anywhere else"), accept_vni(), drop_rest()]);
    rules
}

fn leaving() -> Vec<Rule> {
    let from_device = |family| {
        let comment = "from the link's device";
        wired(
            comment,
            family,
            source_and_tunnel_port(),
            Set::Leaving(family),
        )
    };
    let from_any_port = |family| {
        let comment = "from a device without source ports of its own";
        wired(comment, family, tunnel_port(), Set::LeavingAnyPort(family))
    };
    let mut rules = vec![drop_ours_of_programs()];
    rules.extend(Family::BOTH.map(from_device));
    rules.extend(Family::BOTH.map(from_any_port));
    rules.push(drop_ours("to anywhere else, or from another device"));
    rules
}

/// Accepts what is in a set: ports, VNI and addresses.
fn wired(comment: &'static str, family: Family, ports: Vec<Expressions>, set: Set) -> Rule {
    let parts = [
        is_of(family).into(),
        ports,
        vni(1).into(),
        addresses(family, 2),
        vec![lookup(set), verdict(ACCEPT)],
    ];
    Rule {
        comment,
        expressions: parts.concat(),
    }
}

fn tunnel_port() -> Vec<Expressions> {
    vec![load(TRANSPORT, 2, 2, 0)]
}

fn source_and_tunnel_port() -> Vec<Expressions> {
    let block = !(SourcePorts::BLOCK - 1);
    let [a, b] = block.to_be_bytes();
    vec![load(TRANSPORT, 0, 4, 0), and(0, &[a, b, 0xff, 0xff])]
}

fn to_tunnel_port(chain: &str) -> Rule {
    const UDP: u8 = 17;
    Rule {
        comment: "to a tunnel port",
        expressions: vec![
            load_meta(MetaKey::L4Proto),
            is(&[UDP]),
            load(TRANSPORT, 2, 2, 0),
            lookup(Set::Ports),
            jump(chain),
        ],
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
    let mut rule = drop_ours("by a program of the node");
    // Where there is no socket, loading it ends the rule.
    rule.expressions.insert(0, load_meta(MetaKey::SocketUserId));
    rule
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
