//! Nodes that are lost, and nodes that only seem to be.

use std::process::Output;

use ratchet_protocol::LinkState;

use crate::support::{
    Cluster, Node, Pinger, Pod, RATCHET, Sandbox,
    etcd::{Cut, EtcdCluster},
    eventually,
};

/// `node_timeout` of these nodes, in seconds. It is shorter than the deadline of the tests, and
/// long enough for an agent on a busy machine.
const TIMEOUT: &str = "5";

/// What an agent logs when it has forgotten a lost node.
const FORGOTTEN: &str = "its pods have gone";

/// Nodes with agents that count as lost after [`TIMEOUT`].
fn nodes(count: usize) -> EtcdCluster {
    let mut all = EtcdCluster::new(count);
    for node in &mut all.cluster.nodes {
        node.start_agent_with(&["--node-timeout", TIMEOUT]);
    }
    all
}

fn pod(name: &str, links: &str) -> Sandbox {
    Pod::with_links(name, &format!("[{links}]")).sandbox()
}

/// A link from `eth<n>` to the peer's interface of the same name, with addresses 10.0.n.1 here and
/// 10.0.n.2 there.
fn link(n: u32, peer: &str) -> String {
    format!(
        "{{interface: eth{n}, peer: {peer}, addresses: [10.0.{n}.1/24], peerAddresses: \
         [10.0.{n}.2/24]}}"
    )
}

/// Waits until these are all keys, except for those of links.
#[track_caller]
fn wait_for_keys(all: &EtcdCluster, expected: &[&str]) {
    eventually("the keys", || {
        let found: Vec<String> = all
            .etcd
            .everything()
            .into_keys()
            .map(|key| key.replace("/ratchet/", ""))
            .collect();
        let found: Vec<&str> = found
            .iter()
            .filter(|key| !key.starts_with("links/") && !key.starts_with("numbers/"))
            .map(String::as_str)
            .collect();
        if found == expected {
            Ok(())
        } else {
            Err(format!("{found:#?}"))
        }
    });
}

fn vnis(all: &EtcdCluster) -> Option<String> {
    all.etcd.everything().remove("/ratchet/vnis")
}

fn is_located(all: &EtcdCluster, pod: &str) -> bool {
    all.etcd
        .everything()
        .get(&format!("/ratchet/pods/default/{pod}"))
        .is_some_and(|record| record.contains("location"))
}

#[test]
fn a_lost_node_is_forgotten_automatically() {
    let mut all = nodes(3);
    let hub = pod("hub", &link(1, "leaf"));
    all.cluster.nodes[0].add(&hub);
    // A pod that the survivor declares a link to, and two pods that are linked to each other.
    let lost = [
        (1, pod("leaf", "")),
        (1, pod("one", &link(2, "two"))),
        (2, pod("two", "")),
    ];
    for (node, sandbox) in &lost {
        all.cluster.nodes[*node].add(sandbox);
    }
    hub.netns.wait_for_answer("10.0.1.2");
    lost[1].1.netns.wait_for_answer("10.0.2.2");
    assert_eq!(vnis(&all).as_deref(), Some("11-12"));
    let index = hub.netns.links()["eth1"]["ifindex"].clone();
    for mut node in all.cluster.nodes.drain(1..) {
        node.kill_agent();
    }
    drop(lost);
    wait_for_keys(
        &all,
        &[
            "alive/node1",
            "nodes/node1",
            "peers/default/leaf/default/hub",
            "pods/default/hub",
            "vnis",
        ],
    );
    eventually("a log of the forgotten nodes", || {
        let log = all.cluster.nodes[0].log_text();
        if log.matches(FORGOTTEN).count() == 2 {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert_eq!(vnis(&all).as_deref(), Some("11-12"), "they may be back");
    for node in ["node2", "node3"] {
        let output = forget_node(&all.cluster.nodes[0], &[node]);
        assert_output(&output, true, "nothing to forget");
    }
    assert_eq!(
        vnis(&all).as_deref(),
        Some("11"),
        "the other VNI is free again"
    );
    assert_eq!(
        hub.netns.links()["eth1"]["ifindex"],
        index,
        "the survivor keeps its interface"
    );
    all.cluster.nodes[0].del(&hub);
    all.cluster.assert_nothing_left();
    all.etcd.wait_until_empty();
}

#[test]
fn a_node_that_was_cut_off_for_longer_gets_its_links_back() {
    let all = nodes(3);
    let nodes = &all.cluster.nodes;
    // Links within the node that is cut off, to the node that remains (one declared by each side),
    // and to another node that is cut off.
    let sandboxes = [
        (0, pod("hub", &link(1, "one"))),
        (
            1,
            pod(
                "one",
                &[link(2, "two"), link(3, "hub"), link(4, "far")].join(","),
            ),
        ),
        (1, pod("two", "")),
        (2, pod("far", "")),
    ];
    for (node, sandbox) in &sandboxes {
        nodes[*node].add(sandbox);
    }
    let [hub, one, ..] = &sandboxes.each_ref().map(|(_, sandbox)| sandbox);
    let all_answer = || {
        hub.netns.wait_for_answer("10.0.1.2");
        ["10.0.2.2", "10.0.3.2", "10.0.4.2"]
            .iter()
            .for_each(|address| one.netns.wait_for_answer(address));
    };
    all_answer();
    let (before, devices) = (all.etcd.everything(), one.netns.links());
    assert_eq!(vnis(&all).as_deref(), Some("11-13"));
    let local = Pinger::start(&one.netns, "10.0.2.2");
    nodes[1].cut(Cut::Underlay);
    nodes[2].cut(Cut::Underlay);
    for pod in ["one", "two", "far"] {
        eventually(&format!("no location of {pod}"), || {
            if is_located(&all, pod) {
                Err("it has one".into())
            } else {
                Ok(())
            }
        });
    }
    assert_eq!(vnis(&all).as_deref(), Some("11-13"), "they may be back");
    assert!(is_located(&all, "hub"));
    nodes[1].reconnect();
    nodes[2].reconnect();
    all_answer();
    local.assert_no_loss();
    eventually("the keys as before", || {
        let found = all.etcd.everything();
        if found == before {
            Ok(())
        } else {
            Err(format!("{found:#?}, not {before:#?}"))
        }
    });
    for (name, device) in one.netns.links() {
        assert_eq!(
            device["ifindex"], devices[&name]["ifindex"],
            "{name} is the same device"
        );
    }
    for (node, sandbox) in &sandboxes {
        nodes[*node].del(sandbox);
    }
    all.cluster.assert_nothing_left();
    all.etcd.wait_until_empty();
}

/// Only etcd cannot be reached: frames pass between the nodes all the time, although the others
/// forget the node.
#[test]
fn a_node_without_etcd_for_longer_does_not_lose_a_frame() {
    let all = nodes(2);
    let (hub, leaf) = (pod("hub", &link(1, "leaf")), pod("leaf", ""));
    all.cluster.nodes[0].add(&hub);
    all.cluster.nodes[1].add(&leaf);
    hub.netns.wait_for_answer("10.0.1.2");
    let before = all.etcd.everything();
    let pinger = Pinger::start(&hub.netns, "10.0.1.2");
    all.cluster.nodes[1].cut(Cut::Etcd);
    eventually("no location of the leaf", || {
        if is_located(&all, "leaf") {
            Err("it has one".into())
        } else {
            Ok(())
        }
    });
    eventually("a survivor that waits for its peer", || {
        match &all.cluster.nodes[0].links().links[..] {
            [link] if link.state == LinkState::Pending => Ok(()),
            links => Err(format!("{links:?}")),
        }
    });
    all.cluster.nodes[1].reconnect();
    eventually("the keys as before", || {
        let found = all.etcd.everything();
        if found == before {
            Ok(())
        } else {
            Err(format!("{found:#?}, not {before:#?}"))
        }
    });
    all.cluster.nodes[0].wait_for_links(1);
    pinger.assert_no_loss();
    all.cluster.nodes[0].del(&hub);
    all.cluster.nodes[1].del(&leaf);
    all.etcd.wait_until_empty();
}

#[test]
fn an_agent_that_is_only_restarted_is_not_forgotten() {
    let mut all = nodes(2);
    let (hub, leaf) = (pod("hub", &link(1, "leaf")), pod("leaf", ""));
    all.cluster.nodes[0].add(&hub);
    all.cluster.nodes[1].add(&leaf);
    hub.netns.wait_for_answer("10.0.1.2");
    for _ in 0..3 {
        let node = &mut all.cluster.nodes[1];
        node.kill_agent();
        node.start_agent_with(&["--node-timeout", TIMEOUT]);
    }
    // The leases of the killed agents expire, and the node stays known.
    eventually("two leases", || {
        let list = all.etcd.ctl(&["lease", "list"]);
        if list.starts_with("found 2 leases") {
            Ok(())
        } else {
            Err(list)
        }
    });
    assert!(is_located(&all, "leaf"));
    let log = all.cluster.nodes[0].log_text();
    assert!(!log.contains(FORGOTTEN), "{log}");
    all.cluster.nodes[1].del(&leaf);
    all.cluster.nodes[0].del(&hub);
    all.etcd.wait_until_empty();
    assert!(
        all.etcd
            .ctl(&["lease", "list"])
            .starts_with("found 0 leases")
    );
    drop(all.cluster);
}

fn forget_node(by: &Node, arguments: &[&str]) -> Output {
    let mut command = by.netns.command(RATCHET);
    command
        .arg("forget-node")
        .args(arguments)
        .arg("--socket")
        .arg(&by.socket)
        .output()
        .unwrap()
}

#[track_caller]
fn assert_output(output: &Output, succeeds: bool, text: &str) {
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() == succeeds && printed.contains(text),
        "{output:?}"
    );
}

#[test]
fn a_node_is_forgotten_on_request() {
    let mut all = EtcdCluster::with_agents(2);
    let (hub, leaf) = (pod("hub", &link(1, "leaf")), pod("leaf", ""));
    all.cluster.nodes[0].add(&hub);
    all.cluster.nodes[1].add(&leaf);
    hub.netns.wait_for_answer("10.0.1.2");
    let before = all.etcd.everything();
    let node = &all.cluster.nodes[0];
    assert_output(
        &forget_node(node, &["node1"]),
        false,
        "node node1 is this one",
    );
    assert_output(
        &forget_node(node, &["node2"]),
        false,
        "node node2 lives: its agent has been heard of within its node_timeout",
    );
    assert_output(&forget_node(node, &["node3"]), true, "nothing to forget");
    assert_output(&forget_node(node, &["no/name"]), false, "node name");
    assert_eq!(all.etcd.everything(), before);
    // A wrong request: the node is alive and publishes its pod again.
    assert_output(
        &forget_node(node, &["node2", "--force"]),
        true,
        "pod default/leaf of node node2 is removed",
    );
    eventually("the keys as before", || {
        let found = all.etcd.everything();
        if found == before {
            Ok(())
        } else {
            Err(format!("{found:#?}, not {before:#?}"))
        }
    });
    hub.netns.wait_for_answer("10.0.1.2");
    all.cluster.nodes[1].kill_agent();
    assert_output(
        &forget_node(&all.cluster.nodes[0], &["node2", "--force"]),
        true,
        "pod default/leaf of node node2 is removed",
    );
    all.cluster.nodes[0].del(&hub);
    all.etcd.wait_until_empty();
    drop((all.cluster, leaf));
}

#[test]
fn a_node_with_a_local_store_is_forgotten_on_request() {
    let mut cluster = Cluster::with_agents(2);
    let (hub, leaf) = (pod("hub", &link(1, "leaf")), pod("leaf", ""));
    cluster.nodes[0].add(&hub);
    cluster.nodes[1].add(&leaf);
    hub.netns.wait_for_answer("10.0.1.2");
    cluster.nodes[1].kill_agent();
    drop((cluster.nodes.remove(1), leaf));
    assert_output(
        &forget_node(&cluster.nodes[0], &["node2"]),
        false,
        "cannot tell whether node node2 lives; use --force",
    );
    assert_output(
        &forget_node(&cluster.nodes[0], &["node2", "--force"]),
        true,
        "pod default/leaf of node node2 is removed",
    );
    cluster.nodes[0].del(&hub);
    assert_eq!(cluster.store_rows().trim(), "[]");
    cluster.assert_nothing_left();
}
