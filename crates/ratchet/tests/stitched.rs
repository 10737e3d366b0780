//! Stitched links end to end: the pod's interface is there before the peer is, and nothing in the
//! pod changes when the peer comes, goes, moves to another node or has its agent killed.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    fs::File,
    process::{Child, Stdio},
};

use ratchet_protocol::{LinkReport, LinkState};
use serde_json::Value;

use support::{Cluster, Netns, Pinger, Pod, Sandbox, eventually};

const R1: &str = "[{interface: eth1, peer: r2/eth1, addresses: [10.0.0.1/30], \
                  peerAddresses: [10.0.0.2/30]}]";

fn cluster(nodes: usize, wiring: &str) -> Cluster {
    let mut cluster = Cluster::new(nodes);
    for node in &mut cluster.nodes {
        node.set("wiring", wiring.into());
        node.start_agent_with(&["--wiring", wiring]);
    }
    cluster
}

fn pods() -> [Sandbox; 2] {
    [
        Pod::with_links("r1", R1).sandbox(),
        Pod::with_links("r2", "[]").sandbox(),
    ]
}

/// What must stay of an interface: its index, addresses and kind, and that it has counted so many
/// packets at least.
fn interface(netns: &Netns) -> (Value, u64) {
    let text = netns.sh("ip -details -statistics -json address show dev eth1");
    let mut found: Value = serde_json::from_str(&text).unwrap();
    let mut found = found[0].take();
    // With its carrier the kernel takes the IPv6 address of the link itself.
    let addresses = found["addr_info"].as_array_mut().unwrap();
    addresses.retain(|address| address["scope"] == "global");
    let kept = [
        "ifindex",
        "address",
        "mtu",
        "addr_info",
        "linkinfo",
        "txqlen",
    ];
    let kept: Vec<&Value> = kept.iter().map(|key| &found[*key]).collect();
    let received = found["stats64"]["rx"]["packets"].as_u64().unwrap();
    (serde_json::to_value(kept).unwrap(), received)
}

fn has_carrier(netns: &Netns) -> bool {
    netns.sh("ip link show dev eth1").contains("LOWER_UP")
}

#[track_caller]
fn wait_for_carrier(netns: &Netns, expected: bool) {
    eventually(&format!("carrier: {expected}"), || {
        if has_carrier(netns) == expected {
            Ok(())
        } else {
            Err(netns.sh("ip link show dev eth1"))
        }
    });
}

/// What the kernel tells of interfaces and addresses in a namespace, from now on.
struct Monitor {
    child: Child,
    text: tempfile::NamedTempFile,
}

impl Monitor {
    fn start(netns: &Netns) -> Self {
        let text = tempfile::NamedTempFile::new().unwrap();
        let child = netns
            .command("ip")
            .args(["monitor", "link", "address", "route"])
            .stdout(Stdio::from(File::create(text.path()).unwrap()))
            .spawn()
            .unwrap();
        let monitor = Self { child, text };
        // It listens when it tells of this.
        eventually("the monitor", || {
            netns.sh(
                "ip address replace 127.0.0.77/32 dev lo && ip address del 127.0.0.77/32 dev lo",
            );
            let text = monitor.text();
            if text.contains("127.0.0.77") {
                Ok(())
            } else {
                Err(text)
            }
        });
        monitor
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.text.path()).unwrap()
    }

    /// Everything that it tells of an interface, but for the kernel's own IPv6 address there: that
    /// is usable a second or two after the carrier came.
    fn about(&self, interface: &str) -> Vec<String> {
        let text = self.text();
        let is_kernels = |line: &str| line.contains("fe80::") || line.contains("ff00::");
        let lines = text.lines().filter(|line| line.contains(interface));
        let lines = lines.filter(|line| !is_kernels(line));
        lines.map(str::to_owned).collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn nothing_in_a_pod_changes_when_its_peer_comes_goes_and_moves() {
    let cluster = cluster(2, "stitched");
    let [r1, r2] = pods();
    cluster.nodes[0].add(&r1);
    let (before, _) = interface(&r1.netns);
    assert!(!has_carrier(&r1.netns), "the peer is not there");
    let monitor = Monitor::start(&r1.netns);

    let mut received = 0;
    for (number, place) in [0, 0, 1, 1, 0].into_iter().enumerate() {
        let r2 = Pod::with_links("r2", "[]").sandbox();
        cluster.nodes[place].add(&r2);
        wait_for_carrier(&r1.netns, true);
        r1.netns.wait_for_answer("10.0.0.2");
        let (now, count) = interface(&r1.netns);
        assert_eq!(now, before, "peer number {number}, on node {place}");
        assert!(count > received, "the counters go on");
        received = count;
        let kind = if place == 0 { "veth" } else { "vxlan" };
        let link = cluster.nodes[0].links().links.remove(0);
        assert_eq!(
            (link.kind.as_deref(), link.state),
            (Some(kind), LinkState::Up)
        );
        cluster.nodes[place].del(&r2);
        wait_for_carrier(&r1.netns, false);
        assert_eq!(interface(&r1.netns).0, before);
    }
    let told = monitor.about("eth1");
    let is_loss = |line: &&String| line.starts_with("Deleted") && !line.contains("dev eth1");
    assert!(!told.is_empty());
    assert_eq!(told.iter().find(is_loss), None, "{told:#?}");
    drop((monitor, r2));
    cluster.nodes[0].del(&r1);
    cluster.assert_nothing_left();
}

#[test]
fn a_pod_has_nothing_of_a_tunnel() {
    let cluster = cluster(2, "stitched");
    let [r1, r2] = pods();
    for (node, pod) in [&r1, &r2].into_iter().enumerate() {
        cluster.nodes[node].add(pod);
    }
    r1.netns.wait_for_answer("10.0.0.2");
    for (node, pod) in [&r1, &r2].into_iter().enumerate() {
        let links = pod.netns.links();
        let kinds: Vec<&Value> = links
            .values()
            .map(|link| &link["linkinfo"]["info_kind"])
            .collect();
        assert_eq!(kinds, ["veth"], "{links:?}");
        // The tunnel is on the node, with the node's end of the pod's veth.
        let links = cluster.nodes[node].netns.links();
        let ours: Vec<&String> = links.keys().filter(|name| *name != "eth0").collect();
        assert_eq!(ours.len(), 2, "{ours:?}");
        // What the root of the pod does to its interface does not reach the tunnel.
        let tunnel = ours.iter().find(|name| name.starts_with("rx")).unwrap();
        let shown = |node: usize| {
            let netns = &cluster.nodes[node].netns;
            netns.sh(&format!(
                "bridge fdb show dev {tunnel}; ip -details link show {tunnel}"
            ))
        };
        let before = shown(node);
        for line in [
            "bridge fdb append 00:00:00:00:00:00 dev eth1 dst 192.0.2.9 vni 4242",
            "ip link set eth1 type vxlan remote 192.0.2.9",
            &format!("ip link set {tunnel} down"),
        ] {
            pod.netns.run(line);
        }
        assert_eq!(shown(node), before);
    }
    r1.netns.wait_for_answer("10.0.0.2");
}

#[test]
fn an_agent_that_is_killed_and_started_again_changes_nothing() {
    let mut cluster = cluster(2, "stitched");
    let [r1, r2] = pods();
    cluster.nodes[0].add(&r1);
    cluster.nodes[1].add(&r2);
    let pinger = Pinger::start(&r1.netns, "10.0.0.2");
    let devices = |cluster: &Cluster| cluster.nodes[0].netns.links();
    let before = devices(&cluster);
    let monitor = Monitor::start(&r1.netns);
    for _ in 0..2 {
        cluster.nodes[0].kill_agent();
        cluster.nodes[0].start_agent_with(&["--wiring", "stitched"]);
        cluster.nodes[0].wait_for_links(1);
    }
    pinger.assert_no_loss();
    let mut told = monitor.about("eth1");
    // An agent announces the addresses of a new interface once more, 2 s after it was made.
    told.retain(|line| line.starts_with("Deleted") || !line.contains("inet 10.0.0.1/30"));
    assert_eq!(told, [""; 0], "interfaces in the pod");
    assert_eq!(devices(&cluster), before, "devices of the node");
}

fn the_link(cluster: &Cluster) -> LinkReport {
    let mut links = cluster.nodes[0].links().links;
    assert_eq!(links.len(), 1);
    links.remove(0)
}

/// Whether the interface's other end is on the node, and so not in the other pod.
fn is_stitched(cluster: &Cluster) -> bool {
    let links = cluster.nodes[0].netns.links();
    links.keys().any(|name| name.starts_with("rn"))
}

#[test]
fn another_wiring_is_taken_when_a_pod_starts_again() {
    for (first, second) in [("direct", "stitched"), ("stitched", "direct")] {
        let mut cluster = cluster(1, first);
        let [r1, r2] = pods();
        for pod in [&r1, &r2] {
            cluster.nodes[0].add(pod);
        }
        let pinger = Pinger::start(&r1.netns, "10.0.0.2");
        let before = interface(&r1.netns).0;
        cluster.nodes[0].stop_agent();
        cluster.nodes[0].set("wiring", second.into());
        cluster.nodes[0].start_agent_with(&["--wiring", second]);
        cluster.nodes[0].wait_for_links(1);
        pinger.assert_no_loss();
        assert_eq!(interface(&r1.netns).0, before);
        let codes: Vec<String> = the_link(&cluster)
            .warning_details
            .into_iter()
            .map(|warning| warning.code)
            .collect();
        assert_eq!(codes, ["wiring_stays"]);
        assert_eq!(is_stitched(&cluster), first == "stitched");

        cluster.nodes[0].del(&r2);
        let r2 = Pod::with_links("r2", "[]").sandbox();
        cluster.nodes[0].add(&r2);
        cluster.nodes[0].wait_for_links(1);
        r1.netns.wait_for_answer("10.0.0.2");
        assert_eq!(is_stitched(&cluster), second == "stitched");
        assert_eq!(the_link(&cluster).warnings, [""; 0]);
        for pod in [&r1, &r2] {
            cluster.nodes[0].del(pod);
        }
        cluster.assert_nothing_left();
    }
}

#[test]
fn a_link_may_be_wired_otherwise_than_its_node_and_its_other_end() {
    let mut cluster = Cluster::new(2);
    for (node, wiring) in cluster.nodes.iter_mut().zip(["direct", "stitched"]) {
        node.set("wiring", wiring.into());
        node.start_agent_with(&["--wiring", wiring]);
    }
    // A direct end and a stitched one.
    let [r1, r2] = pods();
    cluster.nodes[0].add(&r1);
    cluster.nodes[1].add(&r2);
    r1.netns.wait_for_answer("10.0.0.2");
    let kind = |pod: &Sandbox| pod.netns.links()["eth1"]["linkinfo"]["info_kind"].clone();
    assert_eq!((kind(&r1), kind(&r2)), ("vxlan".into(), "veth".into()));
    // What the declaration says counts at both ends.
    let declared = R1.replace("peer:", "wiring: stitched, peer:");
    let both = [
        Pod::with_links("r3", &declared.replace("r2", "r4")).sandbox(),
        Pod::with_links("r4", "[]").sandbox(),
    ];
    for (node, pod) in both.iter().enumerate() {
        cluster.nodes[node].add(pod);
    }
    both[0].netns.wait_for_answer("10.0.0.2");
    let kinds = both.each_ref().map(kind);
    assert_eq!(kinds, ["veth"; 2].map(Value::from));
}

#[test]
fn a_wiring_that_does_not_exist_is_refused() {
    let cluster = cluster(1, "direct");
    let links = R1.replace("peer:", "wiring: glued, peer:");
    let pod = Pod::with_links("r1", &links).sandbox();
    let error = cluster.nodes[0].try_add(&pod).unwrap_err().to_string();
    assert!(
        error.contains("glued") && error.contains("stitched"),
        "{error}"
    );
}

/// Pulls an interface: sets it down in its pod, and up again.
#[test]
fn the_carrier_follows_the_other_end_on_the_same_node() {
    let mut cluster = cluster(1, "stitched");
    let [r1, r2] = pods();
    for pod in [&r1, &r2] {
        cluster.nodes[0].add(pod);
    }
    for (near, far) in [(&r1, &r2), (&r2, &r1)] {
        near.netns.sh("ip link set eth1 down");
        wait_for_carrier(&far.netns, false);
        near.netns.sh("ip link set eth1 up");
        wait_for_carrier(&far.netns, true);
        wait_for_carrier(&near.netns, true);
    }
    r1.netns.wait_for_answer("10.0.0.2");

    // Both are pulled, and then plugged in one after the other.
    r1.netns.sh("ip link set eth1 down");
    wait_for_carrier(&r2.netns, false);
    r2.netns.sh("ip link set eth1 down");
    r1.netns.sh("ip link set eth1 up");
    wait_for_carrier(&r1.netns, false);
    r2.netns.sh("ip link set eth1 up");
    for pod in [&r1, &r2] {
        wait_for_carrier(&pod.netns, true);
    }
    r1.netns.wait_for_answer("10.0.0.2");

    // What happens without an agent is seen by the next one.
    cluster.nodes[0].kill_agent();
    r1.netns.sh("ip link set eth1 down");
    cluster.nodes[0].start_agent_with(&["--wiring", "stitched"]);
    wait_for_carrier(&r2.netns, false);
    r1.netns.sh("ip link set eth1 up");
    wait_for_carrier(&r2.netns, true);
    r1.netns.sh("ip link set eth1 down");
    wait_for_carrier(&r2.netns, false);
    cluster.nodes[0].kill_agent();
    r1.netns.sh("ip link set eth1 up");
    cluster.nodes[0].start_agent_with(&["--wiring", "stitched"]);
    wait_for_carrier(&r2.netns, true);
    r1.netns.wait_for_answer("10.0.0.2");
}
