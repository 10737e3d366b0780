//! etcd is offline, hangs, loses its data, or cannot be reached by a node: existing links stay, and
//! afterwards the agents catch up.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ratchet_protocol::LinkState;

use crate::support::{
    Pinger, Pod, Sandbox,
    etcd::{Cut, Etcd, EtcdCluster},
    eventually,
};

/// How long the plugin may take for a DEL in any case.
const DEL_LIMIT: Duration = Duration::from_secs(10);

/// A pod with a link to each of the peers, with addresses 10.0.n.1 here and 10.0.n.2 there.
fn hub(name: &str, peers: &[&str]) -> Pod {
    let links = peers.iter().enumerate().map(|(n, peer)| {
        format!(
            "{{interface: e{n}, peer: {peer}/eth1, addresses: [10.0.{n}.1/24], \
             peerAddresses: [10.0.{n}.2/24]}}"
        )
    });
    Pod::with_links(name, &format!("[{}]", links.collect::<Vec<_>>().join(", ")))
}

fn leaf(name: &str) -> Pod {
    Pod::with_links(name, "[]")
}

/// Two nodes with a hub on the first, and its peers r2 on the same and r3 on the other node.
struct Three {
    all: EtcdCluster,
    hub: Sandbox,
    near: Sandbox,
    far: Sandbox,
}

impl Three {
    fn new() -> Self {
        let all = EtcdCluster::with_agents(2);
        let [hub, near, far] =
            [hub("r1", &["r2", "r3", "r4"]), leaf("r2"), leaf("r3")].map(|pod| pod.sandbox());
        for (node, sandbox) in [(0, &hub), (0, &near), (1, &far)] {
            all.cluster.nodes[node].add(sandbox);
        }
        let three = Self {
            all,
            hub,
            near,
            far,
        };
        three.answers(&["10.0.0.2", "10.0.1.2"]);
        three
    }

    #[track_caller]
    fn answers(&self, addresses: &[&str]) {
        for address in addresses {
            eventually(address, || {
                if self.hub.netns.ping(address) {
                    Ok(())
                } else {
                    Err("no answer".into())
                }
            });
        }
    }

    fn pingers(&self) -> [Pinger; 2] {
        ["10.0.0.2", "10.0.1.2"].map(|address| Pinger::start(&self.hub.netns, address))
    }

    /// Deletes all pods. Nothing may be left.
    fn end(self, more: &[(usize, &Sandbox)]) {
        let sandboxes = [(0, &self.hub), (0, &self.near), (1, &self.far)];
        for (node, sandbox) in sandboxes.iter().chain(more) {
            self.all.cluster.nodes[*node].del(sandbox);
        }
        self.all.etcd.wait_until_empty();
        self.all.cluster.assert_nothing_left();
    }
}

fn location(etcd: &Etcd, pod: &str) -> Option<(String, String)> {
    let found = etcd.everything();
    let record: serde_json::Value =
        serde_json::from_str(found.get(&format!("/ratchet/pods/default/{pod}"))?).unwrap();
    let text = |key: &str| record["location"][key].as_str().map(str::to_owned);
    text("node").zip(text("sandbox"))
}

#[test]
fn etcd_offline_at_add_is_a_clear_error() {
    let EtcdCluster { cluster, mut etcd } = EtcdCluster::with_agents(1);
    let node = &cluster.nodes[0];
    let pod = hub("r1", &["r2"]);
    for was_online in [false, true] {
        etcd.stop();
        let sandbox = pod.sandbox();
        let error = node.try_add(&sandbox).unwrap_err();
        assert_eq!(error["code"], 11, "{error}");
        let text = error["msg"].as_str().unwrap();
        assert!(
            text.contains("etcd does not answer") && text.contains("10.91.0.250:2379"),
            "{text}"
        );
        let begun = Instant::now();
        node.del(&sandbox);
        assert!(begun.elapsed() < DEL_LIMIT);
        assert_eq!(sandbox.netns.links().len(), 0);
        etcd.start_again();
        let again = pod.sandbox();
        eventually("ADD", || {
            node.try_add(&again).map(drop).map_err(|error| {
                node.del(&again);
                error.to_string()
            })
        });
        assert!(
            etcd.everything().contains_key("/ratchet/pods/default/r1"),
            "etcd was online before: {was_online}"
        );
        node.del(&again);
        etcd.wait_until_empty();
    }
    drop(cluster);
}

#[test]
fn etcd_hangs_and_comes_back() {
    let pause = Duration::from_secs(if std::env::var("RATCHET_LONG").is_ok() {
        60
    } else {
        10
    });
    let three = Three::new();
    let pingers = three.pingers();
    let nodes = &three.all.cluster.nodes;
    let unlinked = hub("r5", &["r6"]).sandbox();
    nodes[1].add(&unlinked);
    three.all.etcd.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let late = leaf("r4").sandbox();
    let error = nodes[1].try_add(&late).unwrap_err();
    assert_eq!(error["code"], 11, "{error}");
    nodes[1].del(&late);
    let deleting = Instant::now();
    nodes[1].del(&unlinked);
    assert!(deleting.elapsed() < DEL_LIMIT, "{:?}", deleting.elapsed());
    // This does not wait for a state: it is the time for which etcd hangs.
    std::thread::sleep(pause.saturating_sub(begun.elapsed()));
    for (node, links) in nodes.iter().zip([2, 1]) {
        let up = node
            .links()
            .links
            .iter()
            .filter(|link| link.state == LinkState::Up)
            .count();
        assert_eq!(up, links, "{:?}", node.links());
    }
    three.all.etcd.signal(Signal::SIGCONT);
    // Nothing is left of the pod that was deleted in the meantime, and another pod gets its link.
    eventually("etcd without r5", || {
        match location(&three.all.etcd, "r5") {
            None => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
    let r4 = leaf("r4").sandbox();
    eventually("ADD", || {
        nodes[1].try_add(&r4).map(drop).map_err(|error| {
            nodes[1].del(&r4);
            error.to_string()
        })
    });
    three.answers(&["10.0.2.2"]);
    pingers.into_iter().for_each(Pinger::assert_no_loss);
    three.end(&[(1, &r4)]);
}

#[test]
fn an_etcd_that_lost_everything_is_filled_again() {
    let mut three = Three::new();
    let pingers = three.pingers();
    let before = three.all.etcd.everything();
    three.all.etcd.wipe();
    eventually("the keys of all agents", || {
        let found = three.all.etcd.everything();
        if found == before {
            Ok(())
        } else {
            Err(format!("{found:#?}, not {before:#?}"))
        }
    });
    let r4 = leaf("r4").sandbox();
    three.all.cluster.nodes[1].add(&r4);
    three.answers(&["10.0.2.2"]);
    pingers.into_iter().for_each(Pinger::assert_no_loss);
    three.end(&[(1, &r4)]);
}

/// The declaration of the link between the nodes is lost, and its node cannot publish it again yet.
/// The other node claims no VNI for the link.
#[test]
fn an_etcd_that_lost_everything_while_the_declarer_is_cut_off_cuts_no_link() {
    let mut three = Three::new();
    let pingers = three.pingers();
    let before = three.all.etcd.everything();
    three.all.cluster.nodes[0].cut(Cut::Etcd);
    three.all.etcd.wipe();
    eventually("the other node's pod in etcd", || {
        location(&three.all.etcd, "r3")
            .map(drop)
            .ok_or_else(|| "no location of r3".to_owned())
    });
    let found = three.all.etcd.everything();
    assert!(
        !found.contains_key("/ratchet/pods/default/r1") && !found.contains_key("/ratchet/vnis"),
        "{found:#?}"
    );
    // The agent answers when it has applied what it has read.
    let links = three.all.cluster.nodes[1].links().links;
    assert!(
        links
            .iter()
            .all(|link| link.state == LinkState::Up && link.vni == Some(11)),
        "{links:?}"
    );
    three.all.cluster.nodes[0].reconnect();
    eventually("the keys of all agents", || {
        let found = three.all.etcd.everything();
        if found == before {
            Ok(())
        } else {
            Err(format!("{found:#?}, not {before:#?}"))
        }
    });
    pingers.into_iter().for_each(Pinger::assert_no_loss);
    three.end(&[]);
}

/// Agents restart after etcd has lost its data: only the devices still show which links there are.
#[test]
fn an_etcd_that_lost_everything_while_agents_restart_cuts_no_link() {
    let mut all = EtcdCluster::with_agents(2);
    let [first, hub] =
        [("r0", "r2"), ("r1", "r3")].map(|(name, peer)| hub(name, &[peer]).sandbox());
    let [second, far] = ["r2", "r3"].map(|name| leaf(name).sandbox());
    for (node, sandbox) in [(0, &first), (1, &second), (0, &hub), (1, &far)] {
        all.cluster.nodes[node].add(sandbox);
    }
    eventually("the link", || {
        if hub.netns.ping("10.0.0.2") {
            Ok(())
        } else {
            Err("no answer".into())
        }
    });
    // The link that stays has another VNI than a new link would get.
    all.cluster.nodes[0].del(&first);
    all.cluster.nodes[1].del(&second);
    let before = all.etcd.everything();
    assert_eq!(before["/ratchet/vnis"], "12");
    let pinger = Pinger::start(&hub.netns, "10.0.0.2");
    all.cluster.nodes[0].cut(Cut::Etcd);
    all.etcd.wipe();
    let node = &mut all.cluster.nodes[1];
    node.kill_agent();
    node.start_agent();
    eventually("the leaf in etcd", || {
        location(&all.etcd, "r3")
            .map(drop)
            .ok_or_else(|| "no location of r3".to_owned())
    });
    // The agent answers after its first sync, and knows no link.
    assert_eq!(node.links().links, []);
    assert!(far.netns.links().contains_key("eth1"));
    let node = &mut all.cluster.nodes[0];
    node.kill_agent();
    node.start_agent();
    node.reconnect();
    eventually("the keys of all agents", || {
        let found = all.etcd.everything();
        if found == before {
            Ok(())
        } else {
            Err(format!("{found:#?}, not {before:#?}"))
        }
    });
    all.cluster
        .nodes
        .iter()
        .for_each(|node| node.wait_for_links(1));
    pinger.assert_no_loss();
    // The devices that were kept are removed with their pod.
    all.cluster.nodes[1].del(&far);
    all.cluster.nodes[0].del(&hub);
    all.cluster.assert_nothing_left();
    all.etcd.wait_until_empty();
}

#[test]
fn compaction_under_the_agents_watch() {
    let three = Three::new();
    let nodes = &three.all.cluster.nodes;
    for _ in 0..3 {
        nodes[0].cut(Cut::Etcd);
        // Changes that are compacted before the first node's watch can report them.
        let r4 = leaf("r4").sandbox();
        nodes[1].add(&r4);
        nodes[1].del(&r4);
        let r4 = leaf("r4").sandbox();
        nodes[1].add(&r4);
        three
            .all
            .etcd
            .ctl(&["compact", &three.all.etcd.revision(), "--physical"]);
        nodes[0].reconnect();
        three.answers(&["10.0.2.2"]);
        nodes[1].del(&r4);
    }
    three.end(&[]);
}

#[test]
fn an_agent_that_was_cut_off_does_not_overwrite_newer_facts() {
    let three = Three::new();
    let nodes = &three.all.cluster.nodes;
    for what in [Cut::Etcd, Cut::Answers, Cut::Underlay] {
        let old = leaf("r4").sandbox();
        nodes[0].add(&old);
        three.answers(&["10.0.2.2"]);
        nodes[0].cut(what);
        // The pod moves to the other node, and the first node's watch does not report it.
        let new = leaf("r4").sandbox();
        nodes[1].add(&new);
        let is_new = || {
            let found = location(&three.all.etcd, "r4");
            let expected = Some(("node2".to_owned(), new.id.clone()));
            if found == expected {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        };
        is_new().unwrap();
        nodes[0].reconnect();
        eventually("the hub's link to the new sandbox", || {
            if new.netns.ping("10.0.2.1") {
                Ok(())
            } else {
                Err("no answer".into())
            }
        });
        is_new().unwrap();
        nodes[0].del(&old);
        is_new().unwrap();
        three.answers(&["10.0.0.2", "10.0.1.2", "10.0.2.2"]);
        nodes[1].del(&new);
    }
    three.end(&[]);
}
