//! An agent of this release takes over a node from one of the previous release: no packet is lost,
//! and of the devices nothing changes but their aliases, which it signs.
//!
//! `RATCHET_PREVIOUS=PATH` names the previous release's binary, which then makes the links. Without
//! it this build makes them, and the aliases of the devices are rewritten to what the previous
//! release would have written.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    collections::BTreeMap,
    io::Read,
    path::PathBuf,
    process::{Child, Stdio},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

use support::{Cluster, Netns, Node, Pinger, Pod, RATCHET, Sandbox, eventually};

/// Links between two pods of one node, and from one of them to a pod of another node.
const WITHIN: usize = 150;
const ACROSS: usize = 50;

/// Everything that the kernel reports of a namespace's devices while it runs.
struct Monitor {
    child: Child,
}

impl Monitor {
    fn start(netns: &Netns) -> Self {
        let mut child = netns
            .command("ip")
            .args(["monitor", "link", "address", "route"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It listens once it has its netlink socket, bound to the groups: one beside none.
        let pid = child.id();
        eventually("ip monitor", || {
            let table = std::fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap();
            let listens = table.lines().skip(1).any(|line| {
                let mut fields = line.split_whitespace().skip(2);
                let (port, groups) = (fields.next(), fields.next());
                port == Some(pid.to_string().as_str()) && groups.is_some_and(|g| g != "00000000")
            });
            if listens {
                Ok(())
            } else if child.try_wait().unwrap().is_some() {
                Err("it has ended".into())
            } else {
                Err("it does not listen yet".into())
            }
        });
        Self { child }
    }

    /// Ends it and returns what it printed.
    fn stop(mut self) -> String {
        support::terminate(self.child.id());
        let mut text = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        self.child.wait().unwrap();
        text
    }
}

fn declaration(prefix: &str, peer: &str, third_byte: usize, count: usize) -> String {
    let link = |n: usize| {
        let (high, low) = (third_byte + n / 60, n % 60 * 4);
        format!(
            "{{interface: {prefix}{n}, peer: {peer}/{prefix}{n}, \
             addresses: [10.20.{high}.{}/30], peerAddresses: [10.20.{high}.{}/30]}}",
            low + 1,
            low + 2
        )
    };
    (0..count).map(link).collect::<Vec<_>>().join(", ")
}

/// Two nodes, three pods and their links, made by this program.
fn nodes_with_links(program: &str) -> (Cluster, [Sandbox; 3]) {
    let mut cluster = Cluster::new(2);
    for node in &mut cluster.nodes {
        node.program = PathBuf::from(program);
        node.start_agent();
    }
    let links = format!(
        "[{}, {}]",
        declaration("v", "near", 0, WITHIN),
        declaration("x", "far", 100, ACROSS)
    );
    let pods = [
        Pod::with_links("hub", &links),
        Pod::with_links("near", "[]"),
        Pod::with_links("far", "[]"),
    ];
    let [hub, near, far] = pods.map(|pod| pod.sandbox());
    cluster.nodes[0].add(&near);
    cluster.nodes[1].add(&far);
    cluster.nodes[0].add(&hub);
    cluster.nodes[0].wait_for_links(WITHIN + ACROSS);
    cluster.nodes[1].wait_for_links(ACROSS);
    (cluster, [hub, near, far])
}

/// Every device as `ip` shows it, but for its alias.
fn devices(netns: &Netns) -> BTreeMap<String, Value> {
    let mut links = netns.links();
    for link in links.values_mut() {
        link["ifalias"].take();
    }
    links
}

/// Asserts that the kernel reported one change of each device, and nothing else.
#[track_caller]
fn assert_one_change_each(report: &str, count: usize) {
    // Addresses and routes begin otherwise.
    let is_link = |line: &&str| line.contains(" mtu ");
    let is_rest = |line: &&str| line.starts_with(' ');
    let mut changed: Vec<&str> = report
        .lines()
        .filter(is_link)
        .filter_map(|line| line.split([':', '@']).nth(1))
        .collect();
    let others: Vec<&str> = report
        .lines()
        .filter(|line| !is_link(line) && !is_rest(line))
        .collect();
    assert_eq!(others, [""; 0]);
    changed.sort_unstable();
    assert_eq!(changed.len(), count);
    changed.dedup();
    assert_eq!(changed.len(), count, "a device was changed twice");
}

#[track_caller]
fn assert_signed(netns: &Netns) {
    for (name, link) in netns.links() {
        let alias = link["ifalias"].as_str().unwrap_or_default();
        assert!(alias.contains(" mac="), "{name}: {alias}");
    }
}

/// Waits until the kernel has finished duplicate address detection, which it reports as a change.
fn wait_for_link_local_addresses(netns: &Netns) {
    eventually("the end of duplicate address detection", || {
        match netns.sh("ip -o -6 address show tentative").lines().count() {
            0 => Ok(()),
            tentative => Err(format!("{tentative} addresses are tentative")),
        }
    });
}

fn take_over(node: &mut Node) {
    node.stop_agent();
    node.program = PathBuf::from(RATCHET);
    node.start_agent();
}

#[test]
fn an_upgrade_loses_no_packet_and_only_signs_the_devices() {
    let previous = std::env::var("RATCHET_PREVIOUS");
    let (mut cluster, sandboxes) = nodes_with_links(previous.as_deref().unwrap_or(RATCHET));
    if previous.is_err() {
        for node in &mut cluster.nodes {
            node.stop_agent();
        }
        for sandbox in &sandboxes {
            rewrite_aliases(&sandbox.netns);
        }
    }
    let [hub, near, far] = &sandboxes;
    let pingers = [
        Pinger::start(&hub.netns, "10.20.0.2"),
        Pinger::start(&hub.netns, "10.20.100.2"),
    ];
    for sandbox in &sandboxes {
        wait_for_link_local_addresses(&sandbox.netns);
    }
    let before = [hub, near, far].map(|sandbox| devices(&sandbox.netns));
    assert_eq!(before[0].len(), WITHIN + ACROSS);
    let monitors = [hub, near, far].map(|sandbox| Monitor::start(&sandbox.netns));

    for node in &mut cluster.nodes {
        take_over(node);
    }
    // An agent answers once it has looked at everything.
    cluster.nodes[0].wait_for_links(WITHIN + ACROSS);
    cluster.nodes[1].wait_for_links(ACROSS);

    let reports = monitors.map(Monitor::stop);
    let counts = [WITHIN + ACROSS, WITHIN, ACROSS];
    for (report, count) in reports.iter().zip(counts) {
        assert_one_change_each(report, count);
    }
    for pinger in pingers {
        pinger.assert_no_loss();
    }
    let after = [hub, near, far].map(|sandbox| devices(&sandbox.netns));
    assert_eq!(before, after);
    for sandbox in &sandboxes {
        assert_signed(&sandbox.netns);
    }
    // From here on nothing is to be done.
    let monitors = [hub, near, far].map(|sandbox| Monitor::start(&sandbox.netns));
    for node in &mut cluster.nodes {
        take_over(node);
    }
    assert_eq!(monitors.map(Monitor::stop), ["", "", ""]);
    for (node, sandbox) in [(0, hub), (0, near), (1, far)] {
        cluster.nodes[node].del(sandbox);
    }
    cluster.assert_nothing_left();
}

/// Writes the aliases that the previous release would have written.
fn rewrite_aliases(netns: &Netns) {
    for (name, link) in netns.links() {
        let alias = link["ifalias"].as_str().unwrap();
        let addresses: Vec<String> = link["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|address| address["scope"] == "global")
            .map(|address| {
                let local = address["local"].as_str().unwrap();
                format!("{local}/{}", address["prefixlen"])
            })
            .collect();
        let config = previous_digest(
            link["address"].as_str().unwrap(),
            link["mtu"].as_u64().unwrap(),
            &addresses,
        );
        let (alias, _) = alias.split_once(" mac=").unwrap();
        let (head, tail) = alias.split_once("config=").unwrap();
        let rewritten = format!("{head}config={config:08x}{}", &tail[8..]);
        netns.sh(&format!("ip link set {name} alias '{rewritten}'"));
    }
}

/// The previous release hashed the Debug form of a configuration.
fn previous_digest(mac: &str, mtu: u64, addresses: &[String]) -> u32 {
    let text = format!("{mac} {mtu} [{}] []", addresses.join(", "));
    let digest = Sha256::digest(text);
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}
