//! Allocating VNIs.

use std::sync::Arc;

use ratchet_store::VniGrant;

use super::{Bench, helpers::*};

pub async fn the_lowest_free_is_given_and_kept(bench: Arc<Bench>) {
    let store = bench.open().await;
    let (one, two) = (link_id("a", "b"), link_id("a", "c"));
    assert_eq!(claim(&*store, one).await, 11);
    assert_eq!(claim(&*store, two).await, 12);
    let grants = store.claim_vnis(&[any(two), any(one), any(two)]).await.unwrap();
    assert_eq!((granted(grants[&one]), granted(grants[&two])), (11, 12));
    assert!(store.claim_vnis(&[]).await.unwrap().is_empty());
}

pub async fn fixed_ones_are_honoured(bench: Arc<Bench>) {
    let store = bench.open().await;
    let link = |n: u32| link_id("a", &n.to_string());
    // A link that takes any number does not take one that another in the same batch insists on.
    let grants = store.claim_vnis(&[any(link(1)), fixed(link(2), 11), fixed(link(3), 7)]).await.unwrap();
    assert_eq!([1, 2, 3].map(|n| granted(grants[&link(n)])), [12, 11, 7]);
    let grants = store.claim_vnis(&[fixed(link(4), 12), fixed(link(5), (1 << 24) - 1), any(link(6))]).await.unwrap();
    assert_eq!(grants[&link(4)], VniGrant::TakenBy(link(1)));
    assert_eq!([5, 6].map(|n| granted(grants[&link(n)])), [(1 << 24) - 1, 13]);
    // It keeps what it has.
    let grants = store.claim_vnis(&[fixed(link(1), 99)]).await.unwrap();
    assert_eq!(granted(grants[&link(1)]), 12);
}

pub async fn a_freed_one_is_given_again(bench: Arc<Bench>) {
    let store = bench.open().await;
    for name in ["a", "b", "c"] {
        publish(&*store, &record(name, &["peer"])).await;
        claim(&*store, link_id(name, "peer")).await;
    }
    depart(&*store, "b").await;
    depart(&*store, "a").await;
    let grants = store.claim_vnis(&[any(link_id("d", "peer")), any(link_id("e", "peer"))]).await.unwrap();
    let mut vnis: Vec<u32> = grants.into_values().map(granted).collect();
    vnis.sort_unstable();
    assert_eq!(vnis, [11, 12]);
    assert_eq!(claim(&*store, link_id("f", "peer")).await, 14);
}

pub async fn many_claims_in_one_batch(bench: Arc<Bench>) {
    let store = bench.open().await;
    let claims: Vec<_> = (0..1500).map(|n| any(link_id("a", &n.to_string()))).collect();
    let grants = store.claim_vnis(&claims).await.unwrap();
    let mut vnis: Vec<u32> = grants.into_values().map(granted).collect();
    vnis.sort_unstable();
    assert_eq!(vnis, (11..1511).collect::<Vec<_>>());
}
