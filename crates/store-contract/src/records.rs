//! Publishing, removing and reading records.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ratchet_model::{PodKey, PodRecord, Vni, record::living_links};
use ratchet_store::{Publish, Published, Store, VniGrant};

use crate::{Backend, helpers::*};

pub async fn what_is_published_is_read(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let mut record = record("a", &["b"]);
    record.links[0].local.addresses = Some(vec![
        "192.168.2.100/24".parse().unwrap(),
        "2001:db8::1/64".parse().unwrap(),
    ]);
    record.links[0].mtu = Some(9000.try_into().unwrap());
    assert_eq!(publish(&*store, &record).await, 100);
    assert_eq!(
        read(&*store, &["a"]).await,
        [("a".to_owned(), record)].into()
    );
    assert!(store.describe().contains(&backend.describe()));
}

pub async fn only_peers_and_declarers_are_read(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    for record in [
        record("a", &["b"]),
        record("b", &["c"]),
        record("c", &[]),
        record("d", &["a", "c"]),
        record("e", &["e"]),
    ] {
        publish(&*store, &record).await;
    }
    assert_eq!(names(&*store, &["b"]).await, ["a", "b", "c"]);
    assert_eq!(names(&*store, &["c"]).await, ["b", "c", "d"]);
    assert_eq!(names(&*store, &["a"]).await, ["a", "b", "d"]);
    assert_eq!(names(&*store, &["e"]).await, ["e"]);
    assert_eq!(names(&*store, &["b", "e"]).await, ["a", "b", "c", "e"]);
    assert_eq!(names(&*store, &["none"]).await, [""; 0]);
    assert_eq!(names(&*store, &[]).await, [""; 0]);
}

pub async fn vnis_of_own_links_are_read(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    publish(&*store, &record("a", &["b", "c"])).await;
    publish(&*store, &record("b", &[])).await;
    for peer in ["b", "c"] {
        claim(&*store, &link("a", peer)).await;
    }
    let vnis = |names: &'static [&str]| {
        let store = store.clone();
        async move { store.read(&keys(names)).await.unwrap().vnis }
    };
    let vni = |number| Vni::try_from(number).unwrap();
    assert_eq!(vnis(&["b"]).await, [(link_id("a", "b"), vni(11))].into());
    assert_eq!(
        vnis(&["a"]).await,
        [(link_id("a", "b"), vni(11)), (link_id("a", "c"), vni(12))].into()
    );
}

pub async fn a_late_removal_of_an_old_sandbox_does_nothing(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    publish(&*store, &record_in("a", "old", 1, &[])).await;
    let new = record_in("a", "new", 2, &[]);
    publish(&*store, &new).await;
    store.remove_pod(&key("a"), &sandbox("old")).await.unwrap();
    assert_eq!(read(&*store, &["a"]).await["a"], new);
    for _repeated in 0..2 {
        store.remove_pod(&key("a"), &sandbox("new")).await.unwrap();
        assert_eq!(names(&*store, &["a"]).await, [""; 0]);
    }
}

pub async fn a_new_sandbox_replaces_and_is_always_later(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    assert_eq!(
        publish(&*store, &record_in("a", "one", 500, &["b"])).await,
        500
    );
    // Its node's clock is behind.
    assert_eq!(publish(&*store, &record_in("a", "two", 3, &[])).await, 501);
    assert_eq!(
        publish(&*store, &record_in("a", "three", 900, &[])).await,
        900
    );
    assert_eq!(
        read(&*store, &["a"]).await["a"],
        record_in("a", "three", 900, &[])
    );
}

pub async fn publishing_again_never_replaces_a_later_sandbox(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let again = |record: PodRecord| {
        let store = store.clone();
        async move { store.publish(&record, Publish::Again).await.unwrap() }
    };
    assert_eq!(
        again(record_in("a", "one", 5, &[])).await,
        Published::Stored { created: 5 }
    );
    // The same sandbox: its links may have changed, and its `created` stays.
    publish(&*store, &record_in("a", "one", 5, &[])).await;
    assert_eq!(
        again(record_in("a", "one", 5, &["b"])).await,
        Published::Stored { created: 6 }
    );
    assert_eq!(
        read(&*store, &["a"]).await["a"],
        record_in("a", "one", 6, &["b"])
    );

    publish(&*store, &record_in("a", "two", 7, &[])).await;
    assert_eq!(
        again(record_in("a", "one", 6, &["b"])).await,
        Published::Superseded
    );
    assert_eq!(
        read(&*store, &["a"]).await["a"],
        record_in("a", "two", 7, &[])
    );
    assert_eq!(
        again(record_in("a", "three", 8, &[])).await,
        Published::Stored { created: 8 }
    );
}

pub async fn again_after_a_departure(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    publish(&*store, &record("b", &[])).await;
    publish(&*store, &record_in("a", "two", 7, &["b"])).await;
    store.remove_pod(&key("a"), &sandbox("two")).await.unwrap();
    // It is gone, and its record is kept because of b: it does not hide "one", which lives on.
    let one = record_in("a", "one", 6, &["b"]);
    let again = store.publish(&one, Publish::Again).await.unwrap();
    assert_eq!(again, Published::Stored { created: 7 });
    let one = PodRecord { created: 7, ..one };
    assert_eq!(read(&*store, &["a"]).await["a"], one);
    assert_eq!(
        publish(&*store, &record_in("a", "three", 1, &["b"])).await,
        8
    );
}

pub async fn a_name_belongs_to_the_pod_that_lives(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let of = |owner: Option<&str>, name: &str, created| PodRecord {
        owner: owner.map(ToOwned::to_owned),
        ..record_in("a", name, created, &[])
    };
    let held = |owner: &str| Published::Held {
        owner: owner.to_owned(),
        node: record("a", &[]).location.expect("a location").node,
    };
    let first = of(Some("r-old"), "one", 5);
    assert_eq!(publish(&*store, &first).await, 5);
    let second = of(Some("r-new"), "two", 6);
    for how in [Publish::New, Publish::Again] {
        assert_eq!(store.publish(&second, how).await.unwrap(), held("r-old"));
    }
    assert_eq!(read(&*store, &["a"]).await["a"], first);
    store.remove_pod(&key("a"), &sandbox("two")).await.unwrap();
    assert_eq!(read(&*store, &["a"]).await["a"], first);
    // A new sandbox of the same pod, and an agent that says no name.
    let again = of(Some("r-old"), "three", 7);
    assert_eq!(publish(&*store, &again).await, 7);
    assert_eq!(publish(&*store, &of(None, "four", 8)).await, 8);
    assert_eq!(publish(&*store, &of(Some("r-old"), "five", 9)).await, 9);

    store.remove_pod(&key("a"), &sandbox("five")).await.unwrap();
    let published = store.publish(&second, Publish::Again).await.unwrap();
    assert_eq!(published, Published::Stored { created: 6 });
    assert_eq!(
        store.publish(&first, Publish::New).await.unwrap(),
        held("r-new")
    );
}

pub async fn a_declarer_is_remembered_while_a_peer_lives(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let declarer = record("a", &["b", "c"]);
    for record in [&declarer, &record("b", &[]), &record("c", &[])] {
        publish(&*store, record).await;
    }
    let vni = claim(&*store, &link("a", "b")).await;
    remove_pod(&*store, "a").await;
    assert_eq!(read(&*store, &["b"]).await["a"], gone(&declarer));
    assert_eq!(
        claim(&*store, &link("a", "b")).await,
        vni,
        "the record of a is kept, and so is its link's VNI"
    );
    remove_pod(&*store, "b").await;
    assert_eq!(
        read(&*store, &["c"]).await["a"],
        gone(&declarer),
        "c still lives"
    );
    remove_pod(&*store, "c").await;
    assert_eq!(backend.leftovers(), 0);
}

pub async fn a_dropped_link_is_no_longer_declared(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    publish(&*store, &record("a", &["b", "c"])).await;
    publish(&*store, &record("b", &[])).await;
    assert_eq!(claim(&*store, &link("a", "b")).await, 11);
    store
        .publish(&record("a", &["c"]), Publish::Again)
        .await
        .unwrap();
    assert_eq!(names(&*store, &["b"]).await, ["b"]);
    assert_eq!(names(&*store, &["c"]).await, ["a"]);
    publish(&*store, &record("x", &["y"])).await;
    release_all(&*store).await;
    assert_eq!(claim(&*store, &link("x", "y")).await, 11, "it was freed");
}

pub async fn a_reopened_store_has_everything(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    publish(&*store, &record("a", &["b"])).await;
    publish(&*store, &record("b", &[])).await;
    claim(&*store, &link("a", "b")).await;
    let before = store.read(&keys(&["a", "b"])).await.unwrap();
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.read(&keys(&["a", "b"])).await.unwrap(), before);
    assert_eq!(claim(&*store, &link("a", "b")).await, 11);
}

const PODS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// After any history, the store equals a model that always has all records at hand.
pub async fn random_histories_equal_the_model(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    for seed in 1..=4 {
        let mut random = Random(seed);
        let mut model: BTreeMap<PodKey, PodRecord> = BTreeMap::new();
        for step in 0..60 {
            change(&*store, &mut model, &mut random, &format!("{seed}-{step}")).await;
            let story = format!("seed {seed} step {step}");
            assert_eq!(
                store.read(&keys(&PODS)).await.unwrap().records,
                model,
                "{story}"
            );
            assert_links(&*store, &model).await;
        }
        for record in model.values() {
            if let Some(sandbox) = record.sandbox() {
                store.remove_pod(&record.pod, sandbox).await.unwrap();
            }
        }
        release_all(&*store).await;
        assert_eq!(backend.leftovers(), 0, "seed {seed}");
    }
}

/// Publishes or removes a pod, in the store and in the model. The model keeps the records of living
/// pods, and of gone pods while one of their peers lives.
async fn change(
    store: &dyn Store,
    model: &mut BTreeMap<PodKey, PodRecord>,
    random: &mut Random,
    id: &str,
) {
    let name = PODS[random.below(PODS.len())];
    if random.below(5) < 3 {
        let peers: Vec<&str> = PODS.into_iter().filter(|_| random.below(4) == 0).collect();
        let created = random.below(60) as u64;
        let mut next = record_in(name, &format!("{name}-{id}"), created, &peers);
        next.created = publish(store, &next).await;
        model.insert(next.pod.clone(), next);
    } else {
        let record = model.get_mut(&key(name));
        let id = record.as_ref().and_then(|record| record.sandbox().cloned());
        let id = id.unwrap_or(sandbox("none"));
        store.remove_pod(&key(name), &id).await.unwrap();
        record.into_iter().for_each(|record| record.location = None);
    }
    let there: BTreeSet<PodKey> = model
        .values()
        .filter(|record| record.location.is_some())
        .map(|record| record.pod.clone())
        .collect();
    model.retain(|pod, record| {
        there.contains(pod) || record.peers().into_iter().any(|peer| there.contains(peer))
    });
}

/// Claims get VNIs exactly for the links that the model declares and that have a living pod.
async fn assert_links(store: &dyn Store, model: &BTreeMap<PodKey, PodRecord>) {
    let links: Vec<_> = model
        .values()
        .flat_map(|record| record.links.iter().map(any))
        .collect();
    let vnis = claim_all(store, &links).await.into_iter();
    let numbered: BTreeSet<_> = vnis
        .filter(|(_, grant)| matches!(grant, VniGrant::Granted(_)))
        .map(|(link, _)| link)
        .collect();
    let living: BTreeSet<_> = living_links(model).into_keys().collect();
    assert_eq!(numbered, living);
    let found = store.read(&keys(&PODS)).await.unwrap().vnis;
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), living);
}

/// Marsaglia's xorshift64: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }
}

pub async fn what_is_on_a_node_is_found(backend: Arc<impl Backend>) {
    let store = backend.open().await;
    let on = |node: &str, name: &str| {
        let mut record = record(name, &["peer"]);
        record.location.as_mut().unwrap().node = node.parse().unwrap();
        record
    };
    for (node, name) in [
        ("node1", "a"),
        ("node2", "b"),
        ("node1", "c"),
        ("node1", "peer"),
    ] {
        publish(&*store, &on(node, name)).await;
    }
    // Its record is kept, without a location.
    remove_pod(&*store, "c").await;
    let found = store.located_on(&"node1".parse().unwrap()).await.unwrap();
    let mut names: Vec<&str> = found.iter().map(|record| record.pod.name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "peer"]);
}
