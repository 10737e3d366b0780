//! A real containerd runs sandboxes with Ratchet: by the CRI, as for a kubelet, and by `ctr run
//! --cni`.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod cri;
mod image;
mod node;

use std::{
    collections::BTreeSet,
    process::{Child, Stdio},
};

use serde_json::{Value, json};

use cri::{LinuxSandbox, Metadata, Sandbox};
use image::IMAGE;
use node::{DATABASE, ETCD_HOST, Node};
use support::eventually;

/// The article's 10-ratchet.conf, with the pods' annotations, and with ptp instead of flannel,
/// which needs a cluster.
fn article() -> Value {
    json!({
        "name": "ratchet-demo",
        "type": "ratchet",
        "etcd_host": ETCD_HOST,
        "etcd_port": "2379",
        "child_path": "/opt/cni/bin/ratchet-child",
        "parent_interface": "eth0",
        "parent_address": "192.168.1.73",
        "use_labels": true,
        "capabilities": {"io.kubernetes.cri.pod-annotations": true},
        "delegate": {
            "name": "cbr0",
            "type": "ptp",
            "ipam": {"type": "host-local", "subnet": "10.88.0.0/24",
            "routes": [{"dst": "0.0.0.0/0"}]},
        },
        "boot_network": {"type": "loopback"},
    })
}

/// The article's config with an SQLite store on the node.
fn without_etcd() -> Value {
    let mut config = article();
    config
        .as_object_mut()
        .unwrap()
        .retain(|key, _| !key.starts_with("etcd_"));
    config["store"] = json!(format!("sqlite:{DATABASE}"));
    config
}

fn pod(node: &Node, name: &str, attempt: u32, annotations: &[(&str, &str)]) -> Sandbox {
    Sandbox {
        metadata: Some(Metadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "lab".into(),
            attempt,
        }),
        hostname: name.into(),
        annotations: annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        linux: Some(LinuxSandbox {
            cgroup_parent: node.cgroup().to_owned(),
        }),
    }
}

/// Waits until the node has no other traces than `before`. The kernel deletes namespaces in the
/// background.
#[track_caller]
fn assert_nothing_left(node: &Node, before: &BTreeSet<String>) {
    eventually("no traces of pods", || {
        let now = node.traces();
        let left: Vec<&String> = now.difference(before).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("left: {left:#?}"))
        }
    });
}

const LINKS: &str = "[{interface: net1, peer: r2/net1, addresses: [10.0.0.1/24, 'fd00::1/64'], \
                     peerAddresses: [10.0.0.2/24]}]";

/// Starts, stops and removes pods as a kubelet does, with this network config.
fn kubelet_calls(node: &Node, file: &str, config: &Value) {
    let cri = node.cri();
    node.configure(file, config);
    cri.wait_for_network();
    let plain = pod(node, "plain", 0, &[]);
    let first = cri.run(&plain).unwrap();
    assert!(
        cri.address(&first).starts_with("10.88.0."),
        "{}",
        cri.address(&first)
    );
    // The state after the first pod's end is the reference for all later ones.
    cri.stop(&first).unwrap();
    cri.remove(&first).unwrap();
    let before = node.traces();

    let plain_id = cri.run(&plain).unwrap();
    let r1 = pod(node, "r1", 0, &[("ratchet.dev/links", LINKS)]);
    let r2 = pod(node, "r2", 0, &[("ratchet", "true")]);
    let r3 = pod(node, "r3", 0, &[("ratchet", "true")]);
    let [r1_id, r2_id, r3_id] = [&r1, &r2, &r3].map(|pod| cri.run(pod).unwrap());
    // With loopback alone as boot network, the result has an address of a link or of loopback, as
    // containerd needs one.
    assert_eq!(
        (cri.address(&r1_id).as_str(), cri.address(&r3_id).as_str()),
        ("10.0.0.1", "127.0.0.1")
    );
    let containers = [cri.container(&r1_id, &r1), cri.container(&r2_id, &r2)];
    let ping = |from: &str, to: &str| cri.exec(from, &format!("ping -c1 -W2 {to}"));
    eventually("an answer from r2", || ping(&containers[0], "10.0.0.2"));
    eventually("an answer from r1", || ping(&containers[1], "10.0.0.1"));

    assert!(
        node.traces()
            .iter()
            .any(|trace| trace.starts_with("row") && trace.contains("r1")),
        "{:#?}",
        node.traces()
    );

    // Without an agent, existing links stay, and pods can be stopped and started.
    assert!(node.kill_agent());
    ping(&containers[0], "10.0.0.2").unwrap();
    cri.stop(&r1_id).unwrap();
    cri.stop(&r1_id).unwrap();
    assert!(node.kill_agent());
    let again = pod(node, "r1", 1, &[("ratchet.dev/links", LINKS)]);
    let again_id = cri.run(&again).unwrap();
    eventually("an answer from r1 in its new sandbox", || {
        ping(&containers[1], "10.0.0.1")
    });
    // The old sandbox is removed late, which does not affect the new one.
    cri.remove(&r1_id).unwrap();
    cri.remove(&r1_id).unwrap();
    ping(&containers[1], "10.0.0.1").unwrap();

    // A kubelet that was restarted finds the pods and stops them.
    assert_eq!(cri.sandboxes().len(), 4);
    for id in [&plain_id, &again_id, &r2_id, &r3_id] {
        cri.stop(id).unwrap();
        cri.stop(id).unwrap();
        cri.remove(id).unwrap();
    }
    assert_eq!(cri.sandboxes(), Vec::<String>::new());
    assert!(node.kill_agent());
    assert_nothing_left(node, &before);
}

/// The article's config has no version, which means CNI 0.1.0.
#[test]
fn a_kubelets_calls_with_the_articles_config() {
    let node = Node::new("article");
    node.start_etcd();
    kubelet_calls(&node, "10-ratchet.conf", &article());
}

/// A list, of the newest version that this containerd supports.
#[test]
fn a_kubelets_calls_with_a_list() {
    let list = json!({"cniVersion": "1.0.0", "name": "ratchet-demo", "plugins": [without_etcd()]});
    kubelet_calls(&Node::new("list"), "10-ratchet.conflist", &list);
}

/// The kubelet gets the error of a broken declaration, and the failed sandbox leaves nothing.
#[test]
fn a_pod_that_cannot_be_started_says_why_and_leaves_nothing() {
    let node = Node::new("refused");
    let cri = node.cri();
    node.configure("10-ratchet.conf", &without_etcd());
    let good = pod(&node, "good", 0, &[("ratchet", "true")]);
    cri.wait_for_network();
    let id = cri.run(&good).unwrap();
    cri.stop(&id).unwrap();
    cri.remove(&id).unwrap();
    let before = node.traces();
    let bad = pod(
        &node,
        "bad",
        0,
        &[("ratchet.dev/links", "[{interface: net1, pear: r2}]")],
    );
    let error = cri.run(&bad).unwrap_err();
    assert!(
        error.contains("pod lab/bad") && error.contains("did you mean peer?"),
        "{error}"
    );
    assert_eq!(cri.sandboxes(), Vec::<String>::new());
    assert!(node.kill_agent());
    assert_nothing_left(&node, &before);
}

/// A container in the foreground of `ctr`, which calls DEL when the container ends.
struct Foreground<'a> {
    node: &'a Node,
    name: &'static str,
    child: Child,
}

impl<'a> Foreground<'a> {
    fn run(node: &'a Node, name: &'static str) -> Self {
        let cgroup = node.cgroup();
        let line =
            format!("exec ctr run --cni --rm --cgroup {cgroup}/{name} {IMAGE} {name} sleep 100000");
        let mut command = node.command(&line);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Self { node, name, child };
        eventually("the container", || {
            if running.child.try_wait().unwrap().is_some() {
                let mut text = String::new();
                std::io::Read::read_to_string(running.child.stderr.as_mut().unwrap(), &mut text)
                    .unwrap();
                panic!("ctr run ended: {text}");
            }
            running.exec("cat /proc/1/cmdline").and_then(|line| {
                if line.starts_with("sleep") {
                    Ok(())
                } else {
                    Err(format!("{line:?} runs"))
                }
            })
        });
        running
    }

    fn exec(&self, command: &str) -> Result<String, String> {
        let output = self.node.run(&format!(
            "ctr task exec --exec-id x{} {} {command}",
            unique(),
            self.name
        ));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(format!("{output:?}"))
        }
    }

    fn stop(self) {
        self.node
            .sh(&format!("ctr task kill -s KILL {}", self.name));
        let output = self.child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        // ctr reports a failed DEL as an error of the network.
        assert!(!stderr.contains("network"), "{stderr}");
    }
}

fn unique() -> u32 {
    static COUNTER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// `ctr` passes no annotations: the declarations are in the config, under the key of CNI's
/// conventions.
#[test]
fn ctr_runs_containers_with_links() {
    let node = Node::new("ctr");
    let with_labels = |labels: Value| {
        let mut config = without_etcd();
        config["args"] = json!({"cni": {"labels": labels}});
        node.configure("10-ratchet.conf", &config);
    };
    let primary = json!({
        "ratchet": "true", "ratchet.pod_name": "c1", "ratchet.primary": "true",
        "ratchet.local_ip": "192.168.2.100", "ratchet.local_ifname": "in1",
        "ratchet.pair_name": "c2", "ratchet.pair_ip": "192.168.2.101", "ratchet.pair_ifname": "in2",
    });
    let pair = json!({"ratchet": "true", "ratchet.pod_name": "c2", "ratchet.primary": "false"});

    with_labels(json!({}));
    let plain = Foreground::run(&node, "plain");
    assert!(
        plain
            .exec("ip -4 addr show dev eth0")
            .unwrap()
            .contains("10.88.0.")
    );
    plain.stop();
    let before = node.traces();

    for agent_dies in [false, true] {
        with_labels(primary.clone());
        let c1 = Foreground::run(&node, "c1");
        with_labels(pair.clone());
        let c2 = Foreground::run(&node, "c2");
        eventually("an answer from c2", || {
            c1.exec("ping -c1 -W2 192.168.2.101")
        });
        assert!(
            c1.exec("ip link show dev in1")
                .unwrap()
                .contains("mtu 1450")
        );
        if agent_dies {
            assert!(node.kill_agent());
            c2.exec("ping -c1 -W2 192.168.2.100").unwrap();
        }
        // The DEL of c1 has the labels of c2 in the config and no CNI_NETNS, and there may be no
        // agent.
        c1.stop();
        c2.stop();
        node.kill_agent();
        assert_nothing_left(&node, &before);
    }
}
