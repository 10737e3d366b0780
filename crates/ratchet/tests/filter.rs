//! The source filter of real agents: it follows the links, and comes back when others remove it.
//! What it stops is tested in `crates/filter/tests/filter/`.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs::File;

use nix::sched::{CloneFlags, setns};
use ratchet_filter::{Filter, Found};

use support::{Cluster, Node, Pod, Sandbox, eventually};

/// The filter of a node.
fn filter(node: &Node) -> Filter {
    let netns = File::open(node.netns.path()).unwrap();
    let open = move || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        Filter::open_here().unwrap()
    };
    std::thread::spawn(open).join().unwrap()
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
    filter(&cluster.nodes[0]).set([]).unwrap();
    let node = &mut cluster.nodes[0];
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
    let stray = ratchet_model::device::Passage {
        vni: 4242.try_into().unwrap(),
        ..*before.first().unwrap()
    };
    filter(node).change(&[stray], &[]).unwrap();
    node.start_agent();
    wait_for_passages(node, 2);
    assert_eq!(found(node).passages, before);
}
