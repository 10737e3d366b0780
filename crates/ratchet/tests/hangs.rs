//! The Kubernetes API and the store accept connections and never answer: calls that need neither go
//! on.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{sync::mpsc, thread};

use nix::sys::signal::Signal;
use serde_json::Value;

use support::{Cluster, Node, Pod, Sandbox, api::Api, etcd::EtcdCluster, eventually};

/// ADD of a pod whose runtime passes no annotations: its labels are needed.
fn add_by_labels(node: &Node, sandbox: &Sandbox) -> Result<(), Value> {
    let mut config = sandbox.pod.configure(node.config());
    let keys = config.as_object_mut().unwrap();
    keys.remove("runtimeConfig");
    keys.remove("args");
    let output = node.plugin("ADD", sandbox, &config);
    if output.status.success() {
        return Ok(());
    }
    Err(serde_json::from_slice(&output.stdout).unwrap())
}

#[track_caller]
fn assert_says_that_the_api_hangs(error: &Value) {
    assert_eq!(error["code"], 11, "{error}");
    let text = error["msg"].as_str().unwrap();
    for words in ["the Kubernetes API does not answer", "labels are not known"] {
        assert!(text.contains(words), "does not say {words:?}: {text}");
    }
}

fn pair() -> [Sandbox; 2] {
    let links = "[{interface: eth1, peer: z, addresses: [10.0.0.1/24], \
                 peerAddresses: [10.0.0.2/24]}]";
    [Pod::with_links("a", links), Pod::with_links("z", "[]")].map(|pod| pod.sandbox())
}

/// Returns whether a DEL and an ADD of others were answered while an ADD still waited for the API.
/// A machine that is busy may take longer for them than the ADD waits.
fn others_overtake_an_add_that_waits() -> bool {
    let mut cluster = Cluster::with_agents(1);
    let [a, z] = pair();
    [&a, &z]
        .iter()
        .for_each(|sandbox| drop(cluster.nodes[0].add(sandbox)));
    cluster.nodes[0].wait_for_links(1);
    cluster.nodes[0].stop_agent();
    let api = Api::hanging(&cluster);
    let kubeconfig = api.kubeconfig.to_str().unwrap().to_owned();
    cluster.nodes[0].start_agent_with(&["--kubeconfig", &kubeconfig]);
    let without_api = cluster.nodes[0].config();
    cluster.nodes[0].set("kubeconfig", kubeconfig.into());
    let node = &cluster.nodes[0];

    let unknown = Pod::new("unknown").sandbox();
    let late = Pod::with_links("late", "[{interface: eth1, peer: z/eth2}]").sandbox();
    let (done, waits) = mpsc::channel();
    let is_overtaken = thread::scope(|scope| {
        scope.spawn(|| done.send(add_by_labels(node, &unknown)).unwrap());
        api.wait_for_request("unknown");
        node.del(&a);
        // Of this pod, the call says all that counts.
        let mut config = late.pod.configure(without_api);
        config["use_labels"] = false.into();
        let output = node.plugin("ADD", &late, &config);
        assert!(output.status.success(), "{output:?}");
        let is_overtaken = waits.try_recv().is_err();
        if is_overtaken {
            let error = waits.recv().unwrap().unwrap_err();
            assert_says_that_the_api_hangs(&error);
        }
        is_overtaken
    });
    // Only the first call waits for the API. Annotations that are passed decide, and what needs
    // labels is refused.
    let again = Pod::new("again").sandbox();
    assert_says_that_the_api_hangs(&add_by_labels(node, &again).unwrap_err());
    node.add(&a);
    node.wait_for_links(2);
    let notices = node.links().notices;
    let expected = "the Kubernetes API does not answer within 2 s";
    assert_eq!(notices, [expected]);
    for sandbox in [&a, &z, &late, &unknown, &again] {
        node.del(sandbox);
    }
    cluster.assert_nothing_left();
    is_overtaken
}

#[test]
fn with_an_api_that_hangs_one_add_waits_and_others_go_on() {
    assert!((0..3).any(|_| others_overtake_an_add_that_waits()));
}

#[test]
fn an_api_that_answers_again_is_noticed() {
    let mut cluster = Cluster::new(1);
    let api = Api::hanging(&cluster);
    let kubeconfig = api.kubeconfig.to_str().unwrap().to_owned();
    // Started by the plugin, with the config's kubeconfig.
    cluster.nodes[0].set("kubeconfig", kubeconfig.into());
    let node = &cluster.nodes[0];
    let pod = Pod::new("by-labels");
    let refused = pod.sandbox();
    assert_says_that_the_api_hangs(&add_by_labels(node, &refused).unwrap_err());
    assert_eq!(node.links().notices.len(), 1);
    node.del(&refused);
    let labels = r#"{"ratchet": "true", "ratchet.primary": "true", "ratchet.pair_name": "z",
        "ratchet.local_ip": "10.0.0.1", "ratchet.pair_ip": "10.0.0.2",
        "ratchet.local_ifname": "in1", "ratchet.pair_ifname": "in2"}"#;
    api.answer_with("by-labels", labels);
    eventually("no notice", || match &*node.links().notices {
        [] => Ok(()),
        notices => Err(format!("{notices:?}")),
    });
    let sandboxes = [pod.sandbox(), Pod::with_links("z", "[]").sandbox()];
    add_by_labels(node, &sandboxes[0]).unwrap();
    node.add(&sandboxes[1]);
    node.wait_for_links(1);
    assert!(sandboxes[0].netns.ping("10.0.0.2"));
    sandboxes.iter().for_each(|sandbox| node.del(sandbox));
    cluster.assert_nothing_left();
}

#[test]
fn api_and_store_hang_and_pods_go_all_the_same() {
    let mut all = EtcdCluster::new(1);
    let api = Api::hanging(&all.cluster);
    let kubeconfig = api.kubeconfig.to_str().unwrap().to_owned();
    all.cluster.nodes[0].start_agent_with(&["--kubeconfig", &kubeconfig]);
    all.cluster.nodes[0].set("kubeconfig", kubeconfig.into());
    let node = &all.cluster.nodes[0];
    let [a, z] = pair();
    [&a, &z].iter().for_each(|sandbox| drop(node.add(sandbox)));
    node.wait_for_links(1);

    all.etcd.signal(Signal::SIGSTOP);
    let unknown = Pod::new("unknown").sandbox();
    assert_says_that_the_api_hangs(&add_by_labels(node, &unknown).unwrap_err());
    node.del(&unknown);
    // Its annotations decide, and then the store is missing.
    let late = Pod::with_links("late", "[]").sandbox();
    let error = node.try_add(&late).unwrap_err();
    assert_eq!(error["code"], 11, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("etcd"), "{error}");
    node.del(&late);
    node.del(&a);
    assert_eq!(a.netns.links().len(), 0);
    let notices = node.links().notices.join("\n");
    for words in ["store: ", "the Kubernetes API does not answer"] {
        assert!(notices.contains(words), "no {words:?}: {notices}");
    }
    all.etcd.signal(Signal::SIGCONT);
    let again = a.pod.sandbox();
    eventually("ADD", || {
        node.try_add(&again).map(drop).map_err(|error| {
            node.del(&again);
            error.to_string()
        })
    });
    node.wait_for_links(1);
    [&again, &z].iter().for_each(|sandbox| node.del(sandbox));
    all.etcd.wait_until_empty();
    all.cluster.assert_nothing_left();
}
