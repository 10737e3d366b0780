//! Allocation of VNIs.

use std::{collections::BTreeSet, sync::Arc};

use ratchet_store::{Publish, VniClaim, VniGrant};

use crate::{Backend, helpers::*};

pub async fn the_lowest_free_is_given_and_kept(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let links = publish_hub(&*store, "a", 2).await;
    let (one, two) = (&links[0], &links[1]);
    assert_eq!(claim(&*store, one).await, 11);
    assert_eq!(claim(&*store, two).await, 12);
    let grants = claim_all(&*store, &[any(two), any(one), any(two)]).await;
    assert_eq!(
        (granted(&grants[&one.id()]), granted(&grants[&two.id()])),
        (11, 12)
    );
    assert!(claim_all(&*store, &[]).await.is_empty());
}

pub async fn fixed_ones_are_honoured(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let links = publish_hub(&*store, "a", 7).await;
    let link = |n: usize| &links[n];
    // A link that takes any number does not take one that another in the same batch insists on.
    let grants = claim_all(
        &*store,
        &[any(link(1)), fixed(link(2), 11), fixed(link(3), 7)],
    )
    .await;
    assert_eq!(
        [1, 2, 3].map(|n| granted(&grants[&link(n).id()])),
        [12, 11, 7]
    );
    let grants = claim_all(
        &*store,
        &[
            fixed(link(4), 12),
            fixed(link(5), (1 << 24) - 1),
            any(link(6)),
        ],
    )
    .await;
    assert_eq!(grants[&link(4).id()], VniGrant::TakenBy(link(1).id()));
    assert_eq!(
        [5, 6].map(|n| granted(&grants[&link(n).id()])),
        [(1 << 24) - 1, 13]
    );
    // It keeps what it has where it does not insist.
    let grants = claim_all(&*store, &[any(link(2))]).await;
    assert_eq!(granted(&grants[&link(2).id()]), 11);
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
    let grants = claim_all(&*store, &[any(&link("d", "peer")), any(&link("e", "peer"))]).await;
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
    let grants = claim_all(&*store, &claims).await;
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
    let vnis: BTreeSet<u32> = claim_all(&*store, &claims)
        .await
        .into_values()
        .map(granted)
        .collect();
    assert_eq!(vnis, (11..311).collect());
}

pub async fn nothing_is_taken_for_an_undeclared_link(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    publish(&*store, &record("a", &["b"])).await;
    let grants = claim_all(
        &*store,
        &[
            any(&link("x", "y")),
            fixed(&link("a", "x"), 20),
            any(&link("a", "b")),
        ],
    )
    .await;
    assert_eq!(grants[&link_id("x", "y")], VniGrant::NotDeclared);
    assert_eq!(grants[&link_id("a", "x")], VniGrant::NotDeclared);
    assert_eq!(granted(&grants[&link_id("a", "b")]), 11);
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

/// Both nodes of a link may still have a device of its VNI when it ends.
pub async fn a_vni_is_free_when_no_node_holds_it(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let [one, two, three] = ["n1", "n2", "n3"].map(node);
    let ab = link("a", "b");
    publish(&*store, &record("a", &["b"])).await;
    publish(&*store, &record("b", &[])).await;
    let next = async |name: &str| {
        publish(&*store, &record(name, &["peer"])).await;
        claim_for(&*store, &three, any(&link(name, "peer"))).await
    };
    for node in [&one, &two] {
        assert_eq!(claim_for(&*store, node, any(&ab)).await, granting(11));
    }
    store.remove_pod(&key("a"), &sandbox("a-1")).await.unwrap();
    store.remove_pod(&key("b"), &sandbox("b-1")).await.unwrap();
    assert!(
        store
            .read(&keys(&["a", "b"]))
            .await
            .unwrap()
            .vnis
            .is_empty()
    );
    assert_eq!(next("c").await, granting(12), "both nodes hold 11");
    let held = store.held_vnis(&one).await.unwrap();
    assert_eq!(held, [(11.try_into().unwrap(), ab.id())].into());
    let release = async |node| {
        let eleven = [11.try_into().unwrap()].into();
        store.release_vnis(node, &eleven).await.unwrap();
    };
    release(&one).await;
    release(&one).await;
    assert!(store.held_vnis(&one).await.unwrap().is_empty());
    assert_eq!(next("d").await, granting(13), "the other node holds 11");
    assert_eq!(
        claim_for(&*store, &three, fixed(&link("c", "peer"), 11)).await,
        VniGrant::TakenBy(ab.id())
    );
    release(&two).await;
    assert_eq!(next("e").await, granting(11));
    for name in ["c", "d", "e"] {
        store
            .remove_pod(&key(name), &sandbox(&format!("{name}-1")))
            .await
            .unwrap();
    }
    release_all_of(&*store, &three).await;
    assert_eq!(backend.leftovers(), 0);
}

/// A link whose VNI only its own nodes hold can have it again.
pub async fn a_link_that_comes_back_gets_the_vni_it_had(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let again = VniClaim {
        former: Some(12.try_into().unwrap()),
        ..any(&link("a", "b"))
    };
    publish(&*store, &record("x", &["y"])).await;
    publish(&*store, &record("a", &["b"])).await;
    claim(&*store, &link("x", "y")).await;
    assert_eq!(claim(&*store, &link("a", "b")).await, 12);
    store.remove_pod(&key("a"), &sandbox("a-1")).await.unwrap();
    remove_pod(&*store, "x").await;
    publish(&*store, &record_in("a", "a-2", 200, &["b"])).await;
    let grants = claim_all(&*store, &[again]).await;
    assert_eq!(granted(&grants[&link_id("a", "b")]), 12);
}

/// Another declared VNI takes effect or is refused.
pub async fn a_declared_vni_that_changes(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let links = publish_hub(&*store, "a", 2).await;
    let (one, two) = (&links[0], &links[1]);
    let ask = async |link, vni| {
        let claim = fixed(link, vni);
        claim_for(&*store, &claimer(), claim).await
    };
    assert_eq!(claim(&*store, one).await, 11);
    assert_eq!(ask(one, 5_000_000).await, granting(5_000_000));
    assert_eq!(ask(two, 5_000_001).await, granting(5_000_001));
    assert_eq!(ask(one, 5_000_001).await, VniGrant::TakenBy(two.id()));
    let vnis = store.read(&keys(&["a"])).await.unwrap().vnis;
    assert_eq!(vnis[&one.id()].number(), 5_000_000, "what it has stays");
    assert_eq!(ask(one, 5_000_002).await, granting(5_000_002));
    // The claimer may still have devices of those from before.
    let held: Vec<u32> = held(&*store).await;
    assert_eq!(held, [11, 5_000_000, 5_000_001, 5_000_002]);
    assert_eq!(ask(two, 5_000_000).await, VniGrant::TakenBy(one.id()));
    let before = [11, 5_000_000].map(|vni| vni.try_into().unwrap()).into();
    store.release_vnis(&claimer(), &before).await.unwrap();
    assert_eq!(ask(two, 5_000_000).await, granting(5_000_000));
    remove_pod(&*store, "a").await;
    assert_eq!(backend.leftovers(), 0);
}

/// Another VXLAN device of a node has a VNI.
pub async fn a_blocked_vni_is_given_to_no_link_of_the_node(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let (one, two) = (node("n1"), node("n2"));
    let ab = link("a", "b");
    publish(&*store, &record_on("n1", "a", &["b", "c"])).await;
    publish(&*store, &record_on("n2", "b", &[])).await;
    publish(&*store, &record_on("n3", "d", &["e"])).await;
    store.register_node(&one, None).await.unwrap();
    assert_eq!(claim_for(&*store, &two, any(&ab)).await, granting(11));
    let foreign = [11, 12].map(|vni| vni.try_into().unwrap()).into();
    store.block_vnis(&one, &foreign).await.unwrap();
    assert_eq!(claim_for(&*store, &one, any(&ab)).await, granting(13));
    assert_eq!(claim_for(&*store, &two, any(&ab)).await, granting(13));
    assert_eq!(
        claim_for(&*store, &two, fixed(&link("a", "c"), 12)).await,
        VniGrant::Blocked(one.clone())
    );
    let de = any(&link("d", "e"));
    assert_eq!(claim_for(&*store, &node("n3"), de).await, granting(12));
    // That device has gone.
    let blocked = VniGrant::Blocked(one.clone());
    assert_eq!(claim_for(&*store, &two, fixed(&ab, 11)).await, blocked);
    let still = [12].map(|vni| vni.try_into().unwrap()).into();
    store.block_vnis(&one, &still).await.unwrap();
    assert_eq!(claim_for(&*store, &two, fixed(&ab, 11)).await, granting(11));
    for (name, node) in [("a", "n1"), ("b", "n2"), ("d", "n3")] {
        store
            .remove_pod(&key(name), &sandbox(&format!("{name}-1")))
            .await
            .unwrap();
        release_all_of(&*store, &node.parse().unwrap()).await;
    }
    store.deregister_node(&one).await.unwrap();
    assert_eq!(backend.leftovers(), 0);
}
