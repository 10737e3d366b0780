//! The article's config works as in 2017, and links cost as many writes as they should.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{
    Node, Pod, Sandbox, cloud_router,
    etcd::{ADDRESS, EtcdCluster, PORT},
    eventually,
};

/// A config with the article's keys for the store; the plugin starts the agent.
fn articles_config(node: &Node, pod: &Pod) -> Value {
    let mut config = pod.configure(node.config());
    config.as_object_mut().unwrap().remove("store");
    config["etcd_host"] = json!(ADDRESS);
    config["etcd_port"] = json!(PORT.to_string());
    config["use_labels"] = json!(true);
    config
}

#[test]
fn the_articles_config_from_first_to_last() {
    let EtcdCluster { cluster, etcd } = EtcdCluster::new(2);
    let places = [0, 0, 1, 1];
    let call = |verb: &str, pod: usize, sandbox: &Sandbox| {
        let node = &cluster.nodes[places[pod]];
        let output = node.plugin(verb, sandbox, &articles_config(node, &sandbox.pod));
        assert!(output.status.success(), "{verb}: {output:?}");
    };
    let sandboxes: Vec<Sandbox> = cloud_router().iter().map(Pod::sandbox).collect();
    for (pod, sandbox) in sandboxes.iter().enumerate() {
        call("ADD", pod, sandbox);
    }
    for node in &cluster.nodes {
        node.wait_for_links(2);
    }
    for (pod, address) in [
        (0, "192.168.2.101"),
        (1, "192.168.3.101"),
        (2, "192.168.4.101"),
    ] {
        eventually(address, || {
            if sandboxes[pod].netns.ping(address) {
                Ok(())
            } else {
                Err("no answer".into())
            }
        });
    }
    let tunnel = sandboxes[1].netns.links()["mid1"]["linkinfo"].clone();
    assert_eq!(
        (&tunnel["info_kind"], &tunnel["info_data"]["id"]),
        (&json!("vxlan"), &json!(11))
    );
    let keys: Vec<String> = etcd.everything().into_keys().collect();
    // Four records, three links with one declarer each, a link's VNI, a VNI's link, the list of
    // VNIs, and two keys per node.
    assert_eq!(keys.len(), 4 + 3 + 1 + 1 + 1 + 2 * 2, "{keys:#?}");
    assert!(
        keys.iter().all(|key| key.starts_with("/ratchet/")),
        "{keys:#?}"
    );
    for (pod, sandbox) in sandboxes.iter().enumerate() {
        call("DEL", pod, sandbox);
    }
    cluster.assert_nothing_left();
    assert_eq!(etcd.everything(), BTreeMap::new());
    drop(cluster);
}

#[test]
fn a_thousand_links_are_two_writes_each_at_most() {
    const PODS: usize = 20;
    const LINKS: usize = 50;
    // Half of the links are within a node.
    let node_of = |pod: usize| pod / 2 % 2;
    let EtcdCluster { cluster, etcd } = EtcdCluster::with_agents(2);
    let pods = (0..PODS).map(|n| {
        let links: Vec<String> = (1..=LINKS)
            .map(|k| format!("{{interface: e{k}, peer: p{}/f{k}}}", (n + 1) % PODS))
            .collect();
        Pod::with_links(&format!("p{n}"), &format!("[{}]", links.join(", ")))
    });
    let sandboxes: Vec<Sandbox> = pods.map(|pod| pod.sandbox()).collect();
    let before = etcd.writes();
    for (n, sandbox) in sandboxes.iter().enumerate() {
        cluster.nodes[node_of(n)].add(sandbox);
    }
    for node in &cluster.nodes {
        node.wait_for_links(PODS * LINKS * 3 / 4);
    }
    let (written, keys) = (etcd.writes() - before, etcd.everything().len());
    println!(
        "{} links between {PODS} pods: {written} writes, {keys} keys",
        PODS * LINKS
    );
    assert!(written <= 2 * (PODS * LINKS + PODS) as u64, "{written}");
    for (n, sandbox) in sandboxes.iter().enumerate() {
        cluster.nodes[node_of(n)].del(sandbox);
    }
    println!("and after DEL: {} writes", etcd.writes() - before);
    cluster.assert_nothing_left();
    assert_eq!(etcd.everything(), BTreeMap::new());
    drop(cluster);
}
