//! A node that was rebooted, and a node that lost its state directory.

use crate::support::{Netns, Node, Pod, Sandbox, etcd::EtcdCluster, eventually};

fn pods() -> [Pod; 3] {
    let link = |n: usize, peer: &str| {
        format!(
            "{{interface: e{n}, peer: {peer}/eth1, addresses: [10.0.{n}.1/24], peerAddresses: \
             [10.0.{n}.2/24]}}"
        )
    };
    let hub = Pod::with_links("r1", &format!("[{}, {}]", link(0, "r2"), link(1, "r3")));
    [
        hub,
        Pod::with_links("r2", "[]"),
        Pod::with_links("r3", "[]"),
    ]
}

/// Changes the state files to what a node finds after a reboot: files of another boot.
fn age_state(node: &Node) {
    for file in std::fs::read_dir(node.state_dir.join("sandboxes")).unwrap() {
        let path = file.unwrap().path();
        let mut state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert!(state["boot_id"].as_str().unwrap().len() > 30, "{state}");
        state["boot_id"] = "11111111-2222-3333-4444-555555555555".into();
        std::fs::write(&path, state.to_string()).unwrap();
    }
}

#[test]
fn after_a_reboot_old_sandboxes_are_deregistered_and_new_ones_get_links() {
    let EtcdCluster { mut cluster, etcd } = EtcdCluster::with_agents(2);
    let [hub, near, far] = pods();
    let old = [hub.sandbox(), near.sandbox()];
    let survivor = far.sandbox();
    old.iter()
        .for_each(|sandbox| drop(cluster.nodes[0].add(sandbox)));
    cluster.nodes[1].add(&survivor);
    old[0].netns.wait_for_answer("10.0.1.2");
    let index = survivor.netns.links()["eth1"]["ifindex"].clone();

    cluster.nodes[0].kill_agent();
    // The old namespaces are gone, but the runtime will still call DEL for them.
    let ghosts = old.map(|Sandbox { id, pod, .. }| Sandbox {
        netns: Netns::new("ghost"),
        id,
        pod,
    });
    age_state(&cluster.nodes[0]);
    cluster.nodes[0].start_agent();
    eventually("etcd without the old sandboxes", || {
        let found = etcd.everything();
        // The hub's declaration is kept for the peer on the other node. No pod needs r2's record.
        let hub = found
            .get("/ratchet/pods/default/r1")
            .cloned()
            .unwrap_or_default();
        let ok = hub.contains("\"links\"")
            && !hub.contains("location")
            && !found.contains_key("/ratchet/pods/default/r2");
        if ok {
            Ok(())
        } else {
            Err(format!("{found:#?}"))
        }
    });
    assert_eq!(
        std::fs::read_dir(cluster.nodes[0].state_dir.join("sandboxes"))
            .unwrap()
            .count(),
        0
    );

    let new = [hub.sandbox(), near.sandbox()];
    new.iter()
        .for_each(|sandbox| drop(cluster.nodes[0].add(sandbox)));
    new[0].netns.wait_for_answer("10.0.0.2");
    new[0].netns.wait_for_answer("10.0.1.2");
    assert_eq!(
        survivor.netns.links()["eth1"]["ifindex"],
        index,
        "the survivor keeps its interface"
    );
    ghosts
        .iter()
        .for_each(|sandbox| cluster.nodes[0].del(sandbox));
    assert!(new[0].netns.ping("10.0.0.2") && new[0].netns.ping("10.0.1.2"));
    new.iter().for_each(|sandbox| cluster.nodes[0].del(sandbox));
    cluster.nodes[1].del(&survivor);
    cluster.assert_nothing_left();
    etcd.wait_until_empty();
}

fn lose_state(node: &mut Node) {
    node.kill_agent();
    std::fs::remove_dir_all(&node.state_dir).unwrap();
    node.start_agent();
}

#[test]
fn a_lost_state_directory_is_restored_from_store_and_kernel() {
    let EtcdCluster { mut cluster, etcd } = EtcdCluster::with_agents(2);
    let [hub, near, far] = pods().map(|pod| pod.sandbox());
    for (node, sandbox) in [(0, &hub), (0, &near), (1, &far)] {
        cluster.nodes[node].add(sandbox);
    }
    let pingers =
        ["10.0.0.2", "10.0.1.2"].map(|address| crate::support::Pinger::start(&hub.netns, address));
    lose_state(&mut cluster.nodes[0]);
    cluster.nodes[0].wait_for_links(2);
    pingers
        .into_iter()
        .for_each(crate::support::Pinger::assert_no_loss);
    // The peer moves, and the links of the restored sandboxes follow.
    cluster.nodes[1].del(&far);
    let far = Pod::with_links("r3", "[]").sandbox();
    cluster.nodes[0].add(&far);
    hub.netns.wait_for_answer("10.0.1.2");
    for sandbox in [&hub, &near, &far] {
        cluster.nodes[0].del(sandbox);
    }
    assert!(hub.netns.links().is_empty());
    cluster.assert_nothing_left();
    etcd.wait_until_empty();
}

#[test]
fn a_lost_sandbox_whose_namespace_is_gone_is_removed() {
    let EtcdCluster { mut cluster, etcd } = EtcdCluster::with_agents(2);
    let [hub, near, far] = pods().map(|pod| pod.sandbox());
    for (node, sandbox) in [(0, &hub), (0, &near), (1, &far)] {
        cluster.nodes[node].add(sandbox);
    }
    hub.netns.wait_for_answer("10.0.1.2");
    // The near pod's namespace and its state are lost together, and its DEL never comes.
    let Sandbox { netns, .. } = near;
    cluster.nodes[0].kill_agent();
    drop(netns);
    std::fs::remove_dir_all(&cluster.nodes[0].state_dir).unwrap();
    cluster.nodes[0].start_agent();
    hub.netns.wait_for_answer("10.0.1.2");
    cluster.nodes[0].del(&hub);
    cluster.nodes[1].del(&far);
    cluster.assert_nothing_left();
    etcd.wait_until_empty();
}
