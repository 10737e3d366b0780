//! Leases in etcd, which show the nodes that are alive. The times are the shortest that etcd
//! allows; no test asserts a time.
#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "these are tests: a panic is how they fail"
)]

mod etcd_server;

use std::time::{Duration, Instant};

use ratchet_store::{Change, NodeRemoval};
use ratchet_store_contract::{block_on, helpers::*};

use etcd_server::EtcdServer;

/// etcd's shortest.
const SHORT: Option<Duration> = Some(Duration::from_secs(2));
const HOUR: Option<Duration> = Some(Duration::from_secs(3600));

/// Polls until a condition holds. Asynchronous, so that leases are renewed.
async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !look().await {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "waited for {what}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn leases(server: &EtcdServer) -> Vec<String> {
    server
        .ctl(&["lease", "list"])
        .lines()
        .skip(1)
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_lost_nodes_pods_are_removed_once_its_lease_has_ended() {
    let server = EtcdServer::start();
    block_on(async {
        let (ours, theirs) = (open(&server.url()).await, open(&server.url()).await);
        ours.register_node(&node("n1"), HOUR).await.unwrap();
        theirs.register_node(&node("n2"), HOUR).await.unwrap();
        publish(&*theirs, &record_on("n2", "a", &["b"])).await;
        publish(&*ours, &record_on("n1", "b", &[])).await;
        claim(&*ours, &link("a", "b")).await;
        assert!(ours.lost_nodes().await.unwrap().is_empty());
        assert_eq!(
            ours.remove_node(&node("n2"), LOST).await.unwrap(),
            NodeRemoval::Alive
        );
        // Its settings change, and then its agent ends.
        theirs.register_node(&node("n2"), SHORT).await.unwrap();
        assert_eq!(leases(&server).len(), 2);
        drop(theirs);
        eventually("the lease to end", async || {
            !ours.lost_nodes().await.unwrap().is_empty()
        })
        .await;
        assert_eq!(ours.lost_nodes().await.unwrap(), [node("n2")].into());
        assert_eq!(
            ours.remove_node(&node("n2"), LOST).await.unwrap(),
            NodeRemoval::Done(keys(&["a"]))
        );
        assert!(ours.lost_nodes().await.unwrap().is_empty());
        assert_eq!(
            ours.remove_node(&node("n1"), LOST).await.unwrap(),
            NodeRemoval::Alive
        );
        remove_pod(&*ours, "b").await;
        ours.deregister_node(&node("n1")).await.unwrap();
    });
    assert_eq!(server.keys(), [""; 0]);
    assert_eq!(leases(&server), [""; 0]);
}

#[test]
fn a_lease_is_renewed_for_as_long_as_the_store_is_open() {
    let server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        store
            .register_node(&node("n1"), Some(Duration::from_secs(12)))
            .await
            .unwrap();
        let [lease] = &leases(&server)[..] else {
            panic!("expected one lease")
        };
        let remaining = || -> u64 {
            let text = server.ctl(&["lease", "timetolive", lease]);
            text.split("remaining(")
                .nth(1)
                .unwrap()
                .split('s')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        };
        let mut before = remaining();
        eventually("it to be renewed", async || {
            let now = remaining();
            now > std::mem::replace(&mut before, now)
        })
        .await;
        store
            .register_node(&node("n1"), Some(Duration::from_secs(12)))
            .await
            .unwrap();
        assert_eq!(
            leases(&server),
            std::slice::from_ref(lease),
            "what exists is not written again"
        );
    });
}

#[test]
fn a_lease_that_is_lost_is_noticed_and_another_one_taken() {
    let server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        store.register_node(&node("n1"), SHORT).await.unwrap();
        let mut watch = store.watch().await.unwrap();
        assert_eq!(watch.next().await.unwrap(), Change::All);
        for lease in leases(&server) {
            server.ctl(&["lease", "revoke", &lease]);
        }
        assert_eq!(store.lost_nodes().await.unwrap(), [node("n1")].into());
        assert_eq!(
            tokio::time::timeout(DEADLINE, watch.next())
                .await
                .unwrap()
                .unwrap(),
            Change::All
        );
        store.register_node(&node("n1"), SHORT).await.unwrap();
        assert!(store.lost_nodes().await.unwrap().is_empty());
        // The same for keys that were deleted by hand.
        server.ctl(&["del", "--prefix", "/ratchet/"]);
        store.register_node(&node("n1"), SHORT).await.unwrap();
        assert_eq!(server.keys(), ["/ratchet/alive/n1", "/ratchet/nodes/n1"]);
    });
}

#[test]
fn a_node_without_timeout_is_never_lost() {
    let server = EtcdServer::start();
    block_on(async {
        let store = open(&server.url()).await;
        store.register_node(&node("n1"), None).await.unwrap();
        publish(&*store, &record_on("n1", "a", &[])).await;
        assert_eq!(leases(&server), [""; 0]);
        drop(store);
        let store = open(&server.url()).await;
        assert!(store.lost_nodes().await.unwrap().is_empty());
        assert_eq!(
            store.remove_node(&node("n1"), LOST).await.unwrap(),
            NodeRemoval::Alive
        );
        assert_eq!(
            store.remove_node(&node("n1"), FORGET).await.unwrap(),
            NodeRemoval::Done(keys(&["a"]))
        );
    });
    assert_eq!(server.keys(), [""; 0]);
}

/// All agents notice at the same time that two nodes are lost, while a third comes back.
#[test]
fn many_at_once_remove_lost_nodes_and_a_living_one_stays() {
    let server = EtcdServer::start();
    block_on(async {
        let theirs = open(&server.url()).await;
        for name in ["n2", "n3", "n4"] {
            theirs.register_node(&node(name), SHORT).await.unwrap();
            for pod in 0..10 {
                publish(
                    &*theirs,
                    &record_on(name, &format!("{name}-{pod}"), &["hub"]),
                )
                .await;
            }
        }
        drop(theirs);
        let store = open(&server.url()).await;
        publish(&*store, &record_on("n1", "hub", &[])).await;
        eventually("the leases to end", async || {
            store.lost_nodes().await.unwrap().len() == 3
        })
        .await;
        let threads: Vec<_> = (0..6)
            .map(|_| {
                let url = server.url();
                std::thread::spawn(move || {
                    block_on(async {
                        let store = open(&url).await;
                        for node in store.lost_nodes().await.unwrap() {
                            store.remove_node(&node, LOST).await.unwrap();
                        }
                    })
                })
            })
            .collect();
        let back = open(&server.url()).await;
        back.register_node(&node("n4"), HOUR).await.unwrap();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        let on = async |name: &str| store.located_on(&node(name)).await.unwrap().len();
        assert_eq!((on("n2").await, on("n3").await), (0, 0));
        assert!(store.lost_nodes().await.unwrap().is_empty());
        // While it is alive, none of its pods are removed.
        for pod in 0..10 {
            let again = record_on("n4", &format!("n4-{pod}"), &["hub"]);
            back.publish(&again, ratchet_store::Publish::Again)
                .await
                .unwrap();
        }
        assert_eq!(
            store.remove_node(&node("n4"), LOST).await.unwrap(),
            NodeRemoval::Alive
        );
        assert_eq!(on("n4").await, 10);
    });
}
