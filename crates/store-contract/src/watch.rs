//! Watches.

use std::{sync::Arc, time::Duration};

use ratchet_store::{Change, Interest, Publish};
use tokio::time;

use crate::{Backend, helpers::*};

pub async fn the_first_change_is_everything(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    publish(&*store, &record("a", &[])).await;
    let mut watch = store.watch().await.unwrap();
    assert_eq!(watch.next().await.unwrap(), Change::All);
}

pub async fn a_peer_that_comes_changes_and_goes(backend: Arc<impl Backend>) {
    let (ours, theirs) = (backend.open().await, backend.open().await);
    let mut watch = watch(&*ours, &["a"], &["b"]).await;
    publish(&*theirs, &record("b", &[])).await;
    hear(&mut *watch, &["b"]).await;
    publish(&*theirs, &record_in("b", "b-2", 1, &["x"])).await;
    hear(&mut *watch, &["b"]).await;
    theirs.remove_pod(&key("b"), &sandbox("b-2")).await.unwrap();
    hear(&mut *watch, &["b"]).await;
    assert_eq!(names(&*ours, &["b"]).await, [""; 0]);
}

pub async fn a_declarer_that_names_an_own_pod(backend: Arc<impl Backend>) {
    let (ours, theirs) = (backend.open().await, backend.open().await);
    publish(&*ours, &record("a", &[])).await;
    let mut watch = watch(&*ours, &["a"], &[]).await;
    publish(&*theirs, &record("stranger", &["a"])).await;
    hear(&mut *watch, &["a"]).await;
    assert_eq!(names(&*ours, &["a"]).await, ["a", "stranger"]);
    // An agent that has read this takes it for a peer. It moves, is removed, and comes back without
    // the link.
    interest(&mut *watch, &["a"], &["stranger"], &["stranger"]).await;
    publish(&*theirs, &record_in("stranger", "stranger-2", 1, &["a"])).await;
    hear(&mut *watch, &["stranger"]).await;
    theirs
        .remove_pod(&key("stranger"), &sandbox("stranger-2"))
        .await
        .unwrap();
    hear(&mut *watch, &["stranger"]).await;
    publish(&*theirs, &record_in("stranger", "stranger-3", 1, &[])).await;
    hear(&mut *watch, &["a", "stranger"]).await;
    assert_eq!(names(&*ours, &["a"]).await, ["a"]);
}

pub async fn vnis_of_own_links(backend: Arc<impl Backend>) {
    let (ours, theirs) = (backend.open().await, backend.open().await);
    publish(&*ours, &record("a", &["b"])).await;
    publish(&*theirs, &record("c", &["a"])).await;
    let mut watch = watch(&*ours, &["a"], &["b", "c"]).await;
    // After a read of a pod's links, the watch reports when they get their VNIs.
    ours.read(&keys(&["a"])).await.unwrap();
    claim(&*theirs, &link("a", "b")).await;
    hear(&mut *watch, &["a"]).await;
    claim(&*theirs, &link("c", "a")).await;
    hear(&mut *watch, &["a"]).await;
    assert_eq!(ours.read(&keys(&["a"])).await.unwrap().vnis.len(), 2);
}

pub async fn unrelated_pods_are_not_reported(backend: Arc<impl Backend>) {
    let (ours, theirs) = (backend.open().await, backend.open().await);
    publish(&*theirs, &record("b", &[])).await;
    let mut watch = watch(&*ours, &["a", "fence"], &["b"]).await;
    // Of a peer, only its own record matters, not the records that name it.
    for record in [record("x", &["y"]), record("y", &[]), record("z", &["b"])] {
        publish(&*theirs, &record).await;
    }
    claim(&*theirs, &link("x", "y")).await;
    remove_pod(&*theirs, "x").await;
    publish(&*theirs, &record("fence", &[])).await;
    assert_eq!(hear(&mut *watch, &["fence"]).await, keys(&["fence"]));
}

pub async fn pods_new_in_the_interest_are_reported(backend: Arc<impl Backend>) {
    let (ours, theirs) = (backend.open().await, backend.open().await);
    let mut watch = watch(&*ours, &["a", "fence"], &[]).await;
    // Between the agent's read of b and its interest in it.
    publish(&*theirs, &record("b", &[])).await;
    interest(&mut *watch, &["a", "fence"], &["b"], &["b"]).await;
    // And no longer: b is no pod's peer now.
    interest(&mut *watch, &[], &["fence"], &[]).await;
    publish(&*theirs, &record_in("b", "b-2", 1, &["a"])).await;
    publish(&*theirs, &record("fence", &[])).await;
    assert_eq!(hear(&mut *watch, &["fence"]).await, keys(&["fence"]));
}

pub async fn changes_pile_up(backend: Arc<impl Backend>) {
    let (ours, theirs) = (backend.open().await, backend.open().await);
    let peers: Vec<String> = (0..20).map(|n| format!("peer{n}")).collect();
    let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
    let mut watch = watch(&*ours, &["a"], &peers).await;
    for peer in &peers {
        publish(&*theirs, &record(peer, &["a"])).await;
    }
    let heard = hear(&mut *watch, &peers).await;
    assert!(heard.is_subset(&keys(&peers).into_iter().chain([key("a")]).collect()));
}

pub async fn cancelling_loses_nothing(backend: Arc<impl Backend>) {
    let (ours, theirs) = (backend.open().await, backend.open().await);
    let mut watch = watch(&*ours, &["a"], &["b"]).await;
    for round in 0..20 {
        publish(&*theirs, &record_in("b", &format!("b-{round}"), 1, &[])).await;
        let heard = time::timeout(DEADLINE, async {
            for millis in 0.. {
                if let Ok(change) =
                    time::timeout(Duration::from_millis(millis % 4), watch.next()).await
                {
                    return change.unwrap();
                }
            }
            unreachable!()
        });
        assert_eq!(
            heard.await.expect("the change was lost"),
            Change::Pods(keys(&["b"])),
            "round {round}"
        );
    }
}

pub async fn publishing_the_same_again_wakes_no_watch(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let again = record("a", &["b"]);
    publish(&*store, &again).await;
    claim(&*store, &link("a", "b")).await;
    let mut watch = watch(&*store, &["a"], &["fence"]).await;
    for _reconcile in 0..3 {
        store.publish(&again, Publish::Again).await.unwrap();
        store
            .remove_pod(&key("a"), &sandbox("another"))
            .await
            .unwrap();
        claim(&*store, &link("a", "b")).await;
    }
    publish(&*store, &record("fence", &[])).await;
    assert_eq!(hear(&mut *watch, &["fence"]).await, keys(&["fence"]));
}

pub async fn a_vni_that_is_waited_for(backend: Arc<impl Backend>) {
    let (ours, theirs) = (backend.open().await, backend.open().await);
    publish(&*theirs, &record("x", &["y"])).await;
    let taken = fixed(&link("x", "y"), 7_000_000);
    claim_all(&*theirs, &[taken]).await;
    let mut watch = watch(&*ours, &["a"], &[]).await;
    let awaited = Interest {
        own: keys(&["a"]),
        awaited: [(7_000_000.try_into().unwrap(), keys(&["a"]))].into(),
        ..Interest::default()
    };
    watch.interest(awaited).await.unwrap();
    assert_eq!(
        hear(&mut *watch, &["a"]).await,
        keys(&["a"]),
        "once, to ask again"
    );
    remove_pod(&*theirs, "x").await;
    assert_eq!(hear(&mut *watch, &["a"]).await, keys(&["a"]));
}

/// The VNI of an own pod's link was one that is of no use on the other node.
pub async fn another_vni_of_an_own_link(backend: Arc<impl Backend>) {
    let (ours, theirs) = (backend.open().await, backend.open().await);
    publish(&*theirs, &record_on("n1", "a", &["b"])).await;
    publish(&*ours, &record_on("n2", "b", &[])).await;
    let ab = any(&link("a", "b"));
    claim_for(&*ours, &node("n2"), ab.clone()).await;
    ours.read(&keys(&["b"])).await.unwrap();
    let mut watch = watch(&*ours, &["b"], &["a"]).await;
    let foreign = [11.try_into().unwrap()].into();
    theirs.block_vnis(&node("n1"), &foreign).await.unwrap();
    assert_eq!(claim_for(&*theirs, &node("n1"), ab).await, granting(12));
    let heard = time::timeout(DEADLINE, watch.next()).await;
    assert!(matches!(heard, Ok(Ok(Change::Pods(_)))), "{heard:?}");
    let vnis = ours.read(&keys(&["b"])).await.unwrap().vnis;
    assert_eq!(vnis[&link_id("a", "b")].number(), 12);
}
