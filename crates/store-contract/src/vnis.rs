//! Allocation of VNIs.

use std::{collections::BTreeSet, sync::Arc};

use ratchet_store::{Publish, VniGrant};

use crate::{Backend, helpers::*};

pub async fn the_lowest_free_is_given_and_kept(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let links = publish_hub(&*store, "a", 2).await;
    let (one, two) = (&links[0], &links[1]);
    assert_eq!(claim(&*store, one).await, 11);
    assert_eq!(claim(&*store, two).await, 12);
    let grants = store
        .claim_vnis(&[any(two), any(one), any(two)])
        .await
        .unwrap();
    assert_eq!(
        (granted(grants[&one.id()]), granted(grants[&two.id()])),
        (11, 12)
    );
    assert!(store.claim_vnis(&[]).await.unwrap().is_empty());
}

pub async fn fixed_ones_are_honoured(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let links = publish_hub(&*store, "a", 7).await;
    let link = |n: usize| &links[n];
    // A link without a fixed VNI does not take one that another link of the batch has fixed.
    let grants = store
        .claim_vnis(&[any(link(1)), fixed(link(2), 11), fixed(link(3), 7)])
        .await
        .unwrap();
    assert_eq!(
        [1, 2, 3].map(|n| granted(grants[&link(n).id()])),
        [12, 11, 7]
    );
    let grants = store
        .claim_vnis(&[
            fixed(link(4), 12),
            fixed(link(5), (1 << 24) - 1),
            any(link(6)),
        ])
        .await
        .unwrap();
    assert_eq!(grants[&link(4).id()], VniGrant::TakenBy(link(1).id()));
    assert_eq!(
        [5, 6].map(|n| granted(grants[&link(n).id()])),
        [(1 << 24) - 1, 13]
    );
    // It keeps its VNI.
    let grants = store.claim_vnis(&[fixed(link(1), 99)]).await.unwrap();
    assert_eq!(granted(grants[&link(1).id()]), 12);
}

pub async fn a_freed_one_is_given_again(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    for name in ["a", "b", "c"] {
        publish(&*store, &record(name, &["peer"])).await;
        claim(&*store, &link(name, "peer")).await;
    }
    remove_pod(&*store, "b").await;
    remove_pod(&*store, "a").await;
    for name in ["d", "e", "f"] {
        publish(&*store, &record(name, &["peer"])).await;
    }
    let grants = store
        .claim_vnis(&[any(&link("d", "peer")), any(&link("e", "peer"))])
        .await
        .unwrap();
    let mut vnis: Vec<u32> = grants.into_values().map(granted).collect();
    vnis.sort_unstable();
    assert_eq!(vnis, [11, 12]);
    assert_eq!(claim(&*store, &link("f", "peer")).await, 14);
}

pub async fn many_claims_in_one_batch(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let claims: Vec<_> = publish_hub(&*store, "a", 1500)
        .await
        .iter()
        .map(any)
        .collect();
    let grants = store.claim_vnis(&claims).await.unwrap();
    let mut vnis: Vec<u32> = grants.into_values().map(granted).collect();
    vnis.sort_unstable();
    assert_eq!(vnis, (11..1511).collect::<Vec<_>>());
}

/// As many declarers as links, so that the conditions of the claims do not fit into one
/// transaction.
pub async fn many_claims_of_as_many_declarers(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let names: Vec<String> = (0..150).map(|n| format!("pod{n}")).collect();
    for peer in ["x", "y"] {
        publish(&*store, &record(peer, &[])).await;
    }
    for name in &names {
        publish(&*store, &record(name, &["x", "y"])).await;
        // Gone declarers count because of the living peer.
        remove_pod(&*store, name).await;
    }
    let claims: Vec<_> = names
        .iter()
        .flat_map(|name| [any(&link(name, "x")), any(&link(name, "y"))])
        .collect();
    let vnis: BTreeSet<u32> = store
        .claim_vnis(&claims)
        .await
        .unwrap()
        .into_values()
        .map(granted)
        .collect();
    assert_eq!(vnis, (11..311).collect());
}

pub async fn nothing_is_taken_for_an_undeclared_link(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    publish(&*store, &record("a", &["b"])).await;
    let grants = store
        .claim_vnis(&[
            any(&link("x", "y")),
            fixed(&link("a", "x"), 20),
            any(&link("a", "b")),
        ])
        .await;
    let grants = grants.unwrap();
    assert_eq!(grants[&link_id("x", "y")], VniGrant::NotDeclared);
    assert_eq!(grants[&link_id("a", "x")], VniGrant::NotDeclared);
    assert_eq!(granted(grants[&link_id("a", "b")]), 11);
    remove_pod(&*store, "a").await;
    assert_eq!(backend.leftovers(), 0);
}

/// An agent has read a link, and claims a VNI for it after both pods, or its declaration, are gone.
pub async fn a_claim_from_stale_facts_takes_nothing(backend: Arc<impl Backend>) {
    let (ours, theirs) = (backend.open().await, backend.open().await);
    publish(&*theirs, &record("a", &["b", "c"])).await;
    publish(&*ours, &record("b", &[])).await;
    assert_eq!(names(&*ours, &["b"]).await, ["a", "b"]);
    theirs
        .publish(&record("a", &["c"]), Publish::Again)
        .await
        .unwrap();
    assert_eq!(
        ask(&*ours, &link("a", "b")).await,
        VniGrant::NotDeclared,
        "a has dropped it"
    );

    publish(&*theirs, &record_in("a", "a-2", 200, &["b", "c"])).await;
    publish(&*ours, &record("c", &[])).await;
    theirs.remove_pod(&key("a"), &sandbox("a-2")).await.unwrap();
    // The record of a is kept because of b and c.
    assert_eq!(claim(&*ours, &link("a", "b")).await, 11);
    remove_pod(&*ours, "b").await;
    assert_eq!(
        ask(&*ours, &link("a", "b")).await,
        VniGrant::NotDeclared,
        "both its pods have gone"
    );
    assert_eq!(claim(&*ours, &link("a", "c")).await, 11);
    remove_pod(&*ours, "c").await;
    assert_eq!(ask(&*ours, &link("a", "c")).await, VniGrant::NotDeclared);
    assert_eq!(backend.leftovers(), 0);
}
