//! Nodes that are gone for good, and nodes that only seem to be.

use std::sync::Arc;

use ratchet_store::{NodeRemoval, Publish, Published};

use crate::{Backend, helpers::*};

pub async fn a_node_that_comes_and_goes_leaves_nothing(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    for timeout in [Some(std::time::Duration::from_secs(3600)), None] {
        store.register_node(&node("n1"), timeout).await.unwrap();
        assert!(store.lost_nodes().await.unwrap().is_empty());
        store.deregister_node(&node("n1")).await.unwrap();
        store.deregister_node(&node("n1")).await.unwrap();
        assert_eq!(backend.leftovers(), 0);
    }
}

pub async fn a_forgotten_nodes_pods_are_removed(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let declarer = record_on("n1", "a", &["b", "c"]);
    for record in [
        &declarer,
        &record_on("n2", "b", &[]),
        &record_on("n1", "c", &["d"]),
        &record_on("n2", "e", &["c"]),
    ] {
        publish(&*store, record).await;
    }
    for (name, peer) in [("a", "b"), ("a", "c"), ("c", "d")] {
        claim_for(&*store, &node("n1"), any(&link(name, peer))).await;
    }
    let withdrawn = store.remove_node(&node("n1"), FORGET).await.unwrap();
    assert_eq!(withdrawn, NodeRemoval::Done(keys(&["a", "c"])));
    let facts = store.read(&keys(&["b"])).await.unwrap();
    assert_eq!(
        facts.records[&key("a")],
        gone(&declarer),
        "kept because of b"
    );
    assert_eq!(facts.vnis[&link_id("a", "b")].number(), 11);
    assert_eq!(
        claim(&*store, &link("e", "c")).await,
        12,
        "the VNIs of links that have ended are free"
    );
    assert_eq!(
        store.remove_node(&node("n1"), FORGET).await.unwrap(),
        NodeRemoval::Done(keys(&[])),
        "once more"
    );
    remove_pod(&*store, "b").await;
    remove_pod(&*store, "e").await;
    assert_eq!(backend.leftovers(), 0);
}

pub async fn a_forgotten_node_that_comes_back_has_its_links_again(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let (declarer, peer) = (record_on("n1", "a", &["b"]), record_on("n2", "b", &[]));
    publish(&*store, &declarer).await;
    publish(&*store, &peer).await;
    let ab = || any(&link("a", "b"));
    let vni = claim_for(&*store, &node("n1"), ab()).await;
    store.remove_node(&node("n1"), FORGET).await.unwrap();
    let again = store.publish(&declarer, Publish::Again).await.unwrap();
    assert_eq!(
        again,
        Published::Stored {
            created: declarer.created
        }
    );
    assert_eq!(read(&*store, &["b"]).await["a"], declarer);
    assert_eq!(claim_for(&*store, &node("n1"), ab()).await, vni);
    // But it does not get a pod that was started on another node in the meantime.
    store.remove_node(&node("n1"), FORGET).await.unwrap();
    let mut elsewhere = record_in("a", "a-2", 1, &["b"]);
    elsewhere.location.as_mut().unwrap().node = node("n3");
    publish(&*store, &elsewhere).await;
    assert_eq!(
        store.publish(&declarer, Publish::Again).await.unwrap(),
        Published::Superseded
    );
}

/// It may come back, and have devices.
pub async fn a_lost_nodes_vnis_are_held_until_it_is_forgotten(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    publish(&*store, &record_on("n1", "a", &["b"])).await;
    let ab = any(&link("a", "b"));
    assert_eq!(claim_for(&*store, &node("n1"), ab).await, granting(11));
    if store.remove_node(&node("n1"), LOST).await.unwrap() == NodeRemoval::Unsure {
        // This store cannot tell.
        remove_pod(&*store, "a").await;
    }
    publish(&*store, &record_on("n2", "c", &["d"])).await;
    let cd = any(&link("c", "d"));
    assert_eq!(claim_for(&*store, &node("n2"), cd).await, granting(12));
    store.remove_node(&node("n1"), FORGET).await.unwrap();
    assert!(store.held_vnis(&node("n1")).await.unwrap().is_empty());
    publish(&*store, &record_on("n2", "e", &["f"])).await;
    let ef = any(&link("e", "f"));
    assert_eq!(claim_for(&*store, &node("n2"), ef).await, granting(11));
    store.remove_node(&node("n2"), FORGET).await.unwrap();
    assert_eq!(backend.leftovers(), 0);
}
