//! The source filter of real agents: it follows the links, comes back when others remove it, and
//! keeps forged frames from pods. All ways of forging are tested in `crates/filter/tests/filter/`.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../filter/tests/filter/packet.rs"]
mod packet;
mod support;

use std::{
    fs::File,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
    time::Instant,
};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
        sockopt,
    },
    time::TimeVal,
};
use ratchet_filter::{Filter, Found};
use ratchet_model::device::Passage;

use packet::{forge, forge_in_fragments, frame, vxlan, within};
use support::{Cluster, DEADLINE, Netns, Node, Pod, Sandbox, eventually};

fn open(netns: &Netns) -> File {
    File::open(netns.path()).unwrap()
}

/// The filter of a node.
fn filter(node: &Node) -> Filter {
    within(&open(&node.netns), || Filter::open_here().unwrap())
}

fn found(node: &Node) -> Found {
    filter(node).observe().unwrap()
}

/// Waits until a node's filter is unchanged and lets this many tunnels through.
fn wait_for_passages(node: &Node, count: usize) {
    eventually("passages", || {
        let found = found(node);
        if found.is_whole && found.passages.len() == count {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}

/// A pod on each of two nodes, with links between them.
fn linked(cluster: &Cluster, names: [&str; 2]) -> [Sandbox; 2] {
    let links = format!(
        "[{{interface: eth1, peer: {}, addresses: [10.1.0.1/24], peerAddresses: [10.1.0.2/24]}}]",
        names[1]
    );
    let pods = [
        Pod::with_links(names[0], &links),
        Pod::with_links(names[1], "[]"),
    ];
    let sandboxes = pods.map(|pod| pod.sandbox());
    for (node, sandbox) in cluster.nodes.iter().zip(&sandboxes) {
        node.add(sandbox);
    }
    sandboxes
}

#[test]
fn the_filter_follows_the_links() {
    let cluster = Cluster::with_agents(2);
    let sandboxes = linked(&cluster, ["a", "z"]);
    for node in &cluster.nodes {
        node.wait_for_links(1);
        wait_for_passages(node, 1);
        let passage = found(node).passages.pop_first().unwrap();
        assert!(passage.source.is_some(), "{passage:?}");
    }
    eventually("an answer", || {
        let answers = sandboxes[0].netns.ping("10.1.0.2");
        answers.then_some(()).ok_or("none".into())
    });
    for (node, sandbox) in cluster.nodes.iter().zip(&sandboxes) {
        node.del(sandbox);
    }
    for node in &cluster.nodes {
        wait_for_passages(node, 0);
    }
}

#[test]
fn a_filter_that_others_removed_comes_back() {
    let mut cluster = Cluster::with_agents(2);
    let _first = linked(&cluster, ["a", "z"]);
    cluster.nodes.iter().for_each(|node| node.wait_for_links(1));
    let before = found(&cluster.nodes[0]);
    // With a change.
    filter(&cluster.nodes[0]).set([]).unwrap();
    let _second = linked(&cluster, ["b", "y"]);
    wait_for_passages(&cluster.nodes[0], 2);
    assert!(
        found(&cluster.nodes[0])
            .passages
            .is_superset(&before.passages)
    );
    // With the resync of an agent that starts.
    let node = &mut cluster.nodes[0];
    node.netns.sh("nft flush ruleset");
    assert_eq!(found(node).passages.len(), 0);
    node.kill_agent();
    node.start_agent();
    wait_for_passages(node, 2);
}

/// What was let through for a device that went while no agent ran is let through no more.
#[test]
fn a_passage_without_device_is_taken_out() {
    let mut cluster = Cluster::with_agents(2);
    let _sandboxes = [linked(&cluster, ["a", "z"]), linked(&cluster, ["b", "y"])];
    let node = &mut cluster.nodes[0];
    wait_for_passages(node, 2);
    let before = found(node).passages;
    node.kill_agent();
    let stray = Passage {
        vni: 4242.try_into().unwrap(),
        ..*before.first().unwrap()
    };
    filter(node).change(&[stray], &[]).unwrap();
    node.start_agent();
    wait_for_passages(node, 2);
    assert_eq!(found(node).passages, before);
}

/// A kernel without nftables: links work, and everybody is told that they are not protected.
#[test]
fn links_work_without_nftables() {
    let mut cluster = Cluster::new(2);
    for node in &mut cluster.nodes {
        node.without_nftables = true;
        node.start_agent();
    }
    let sandboxes = linked(&cluster, ["a", "z"]);
    cluster.nodes.iter().for_each(|node| node.wait_for_links(1));
    assert!(sandboxes[0].netns.ping("10.1.0.2"));
    let node = &cluster.nodes[0];
    assert!(found(node).passages.is_empty());
    let notices = node.links().notice_details;
    let codes: Vec<&str> = notices.iter().map(|notice| notice.code.as_str()).collect();
    assert_eq!(codes, ["filter_missing"], "{notices:?}");
    assert!(notices[0].message.contains("nftables"), "{notices:?}");
    assert!(node.log_text().contains("tunnels are not protected"));
    node.del(&sandboxes[0]);
    node.wait_for_links(0);
}

/// Sees every frame that a namespace sends and receives, as tcpdump does.
struct Capture(OwnedFd);

impl Capture {
    fn of(netns: &Netns) -> Self {
        let socket = within(&open(netns), || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let all = SockProtocol::EthAll;
            socket(AddressFamily::Packet, SockType::Raw, flags, all).unwrap()
        });
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(1, 0)).unwrap();
        Self(socket)
    }

    /// Which of these texts are in frames that were seen before one with `last`.
    fn texts_before<'t>(&self, last: &str, texts: &[&'t str]) -> Vec<&'t str> {
        let deadline = Instant::now() + DEADLINE;
        let mut found = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            let seen = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap_or(0);
            let has = |text: &str| {
                let mut windows = buffer[..seen].windows(text.len());
                windows.any(|part| part == text.as_bytes())
            };
            if has(last) {
                return found;
            }
            found.extend(texts.iter().filter(|text| has(text)));
            assert!(
                Instant::now() < deadline,
                "no frame with {last:?}: {found:?}"
            );
        }
    }
}

/// Two nodes with agents and a link, and a third host on the underlay.
struct Attacked {
    cluster: Cluster,
    pods: [Sandbox; 2],
    /// What the first node's filter lets through.
    passage: Passage,
}

impl Attacked {
    fn new(is_ipv6: bool) -> Self {
        let mut cluster = Cluster::new(3);
        for (number, node) in (1..).zip(&mut cluster.nodes) {
            if is_ipv6 {
                node.address = format!("fd91::{number}");
                let address = &node.address;
                node.netns
                    .sh(&format!("ip address add {address}/64 dev eth0 nodad"));
            }
        }
        cluster.nodes[..2].iter_mut().for_each(Node::start_agent);
        let pods = linked(&cluster, ["a", "z"]);
        cluster.nodes[..2]
            .iter()
            .for_each(|node| node.wait_for_links(1));
        wait_for_passages(&cluster.nodes[0], 1);
        let passage = found(&cluster.nodes[0]).passages.pop_first().unwrap();
        Self {
            cluster,
            pods,
            passage,
        }
    }

    fn address(&self, node: usize) -> IpAddr {
        self.cluster.nodes[node].address.parse().unwrap()
    }

    /// Takes a node's filter away, and its agent, which would put it back.
    fn unprotect(&mut self, node: usize) {
        self.cluster.nodes[node].kill_agent();
        filter(&self.cluster.nodes[node]).set([]).unwrap();
    }

    /// Sends forged frames for the first node's pod, one of them in fragments; then the link's
    /// other pod sends. Returns which of the forged ones the first pod has seen.
    fn forge(&self, forger: &File, from: IpAddr) -> Vec<&'static str> {
        let capture = Capture::of(&self.pods[0].netns);
        let to = self.address(0);
        let payload = |text| vxlan(self.passage.vni.number(), &frame(2, 1, 7777, text));
        forge(forger, from, to, &payload("forged whole")).unwrap();
        forge_in_fragments(forger, from, to, &payload("forged in parts"), 16);
        self.pods[1]
            .netns
            .sh("ping -c 1 -W 5 -p 7472756568656172 10.1.0.1");
        capture.texts_before("truehear", &["forged whole", "forged in parts"])
    }
}

const BOTH: [&str; 2] = ["forged whole", "forged in parts"];

/// By what is seen in the pod: frames with the right VNI from a third host are not delivered, and
/// the other pod's are.
#[test]
fn a_third_host_sends_nothing_into_a_pod() {
    for is_ipv6 in [false, true] {
        let mut attacked = Attacked::new(is_ipv6);
        let forger = open(&attacked.cluster.nodes[2].netns);
        let from = attacked.address(2);
        assert!(attacked.forge(&forger, from).is_empty());
        // It is the filter that stops them.
        attacked.unprotect(0);
        assert_eq!(attacked.forge(&forger, from), BOTH);
    }
}

/// A plain pod on the link's other node, which masquerades it: what it sends arrives with the
/// address of that node's tunnels.
#[test]
fn a_masqueraded_pod_sends_nothing_into_a_pod() {
    for is_ipv6 in [false, true] {
        let mut attacked = Attacked::new(is_ipv6);
        let node = &attacked.cluster.nodes[1];
        let plain = Netns::new("plain");
        let (own, gateway, length, nodad) = if is_ipv6 {
            ("fd01::2", "fd01::1", 64, " nodad")
        } else {
            ("198.51.100.2", "198.51.100.1", 24, "")
        };
        node.netns.sh(&format!(
            "ip link add plain type veth peer name eth0 netns {} && ip link set plain up && \
             ip address add {gateway}/{length} dev plain{nodad} && \
             sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 && \
             nft add table inet nat && \
             nft 'add chain inet nat post {{ type nat hook postrouting priority srcnat; }}' && \
             nft add rule inet nat post oifname eth0 masquerade",
            plain.name
        ));
        plain.sh(&format!(
            "ip link set eth0 up && ip address add {own}/{length} dev eth0{nodad} && \
             ip route add default via {gateway}"
        ));
        eventually("a route to the other node", || {
            let answers = plain.ping(&attacked.cluster.nodes[0].address);
            answers.then_some(()).ok_or("no answer".into())
        });
        let (plain, from) = (open(&plain), own.parse().unwrap());
        assert!(attacked.forge(&plain, from).is_empty());
        // It is the filter of the sending node that stops them.
        attacked.unprotect(1);
        assert_eq!(attacked.forge(&plain, from), BOTH);
    }
}
