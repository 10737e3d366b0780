//! Short ways to make pods, records and links, and to use a store.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ratchet_model::{
    DeclaredEnd, DeclaredLink, LinkId, Location, NodeName, PodKey, PodRecord, SandboxId, Vni,
};
use ratchet_store::{
    Change, Interest, Publish, Published, RemovalReason, Store, StoreUrl, VniClaim, VniGrant, Watch,
};
use tokio::time;

/// Opens a store with the default options.
pub async fn open(url: &StoreUrl) -> Arc<dyn Store> {
    ratchet_store::open(&url.clone().into()).await.unwrap()
}

/// Longer than any backend needs, even on a busy machine. It only limits how long a failure takes.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// A person says that a node is gone for good, and insists.
pub const FORGET: RemovalReason = RemovalReason::Forgotten {
    even_if_alive: true,
};

/// A node was not heard of for long enough.
pub const LOST: RemovalReason = RemovalReason::Lost;

pub fn key(name: &str) -> PodKey {
    PodKey::new("default", name).unwrap()
}

pub fn keys(names: &[&str]) -> BTreeSet<PodKey> {
    names.iter().map(|name| key(name)).collect()
}

pub fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub fn sandbox(id: &str) -> SandboxId {
    id.parse().unwrap()
}

/// The link from `to-peer` in one pod to `to-name` in the other.
pub fn link(name: &str, peer: &str) -> DeclaredLink {
    let end =
        |pod: &str, interface: String| DeclaredEnd::bare(key(pod), interface.parse().unwrap());
    DeclaredLink::new(
        end(name, format!("to-{peer}")),
        end(peer, format!("to-{name}")),
    )
}

pub fn link_id(name: &str, peer: &str) -> LinkId {
    link(name, peer).id()
}

/// The record of a pod with the sandbox `<name>-1`, which declares one link with each peer.
pub fn record(name: &str, peers: &[&str]) -> PodRecord {
    record_in(name, &format!("{name}-1"), 100, peers)
}

pub fn record_in(name: &str, id: &str, created: u64, peers: &[&str]) -> PodRecord {
    let location = Location {
        node: "node1".parse().unwrap(),
        vtep: "10.0.0.1".parse().unwrap(),
        sandbox: sandbox(id),
        mtu: 1450.try_into().unwrap(),
        leaving: false,
    };
    let links = peers.iter().map(|peer| link(name, peer)).collect();
    PodRecord::new(key(name), Some(location), created, links)
}

/// The record of a pod on a node.
pub fn record_on(node: &str, name: &str, peers: &[&str]) -> PodRecord {
    let mut record = record(name, peers);
    record.location.as_mut().unwrap().node = node.parse().unwrap();
    record
}

/// The same, after its sandbox is removed.
pub fn gone(record: &PodRecord) -> PodRecord {
    PodRecord {
        location: None,
        ..record.clone()
    }
}

/// Publishes a new sandbox. Returns the stored `created`.
pub async fn publish(store: &dyn Store, record: &PodRecord) -> u64 {
    match store.publish(record, Publish::New).await.unwrap() {
        Published::Stored { created } => created,
        refused => panic!("{refused:?}"),
    }
}

/// The node that claims, unless a test says another.
pub fn claimer() -> NodeName {
    node("node1")
}

/// Claims for that node.
pub async fn claim_all(store: &dyn Store, claims: &[VniClaim]) -> BTreeMap<LinkId, VniGrant> {
    store.claim_vnis(&claimer(), claims).await.unwrap()
}

/// That node has no device of any VNI any more.
pub async fn release_all(store: &dyn Store) {
    release_all_of(store, &claimer()).await;
}

/// The same of any node.
pub async fn release_all_of(store: &dyn Store, node: &NodeName) {
    let held = store.held_vnis(node).await.unwrap();
    store
        .release_vnis(node, &held.into_keys().collect())
        .await
        .unwrap();
}

/// Removes the sandbox `<name>-1`, as an agent does it: its devices have gone before.
pub async fn remove_pod(store: &dyn Store, name: &str) {
    release_all(store).await;
    store
        .remove_pod(&key(name), &sandbox(&format!("{name}-1")))
        .await
        .unwrap();
}

/// The records that concern these pods, by name.
pub async fn read(store: &dyn Store, names: &[&str]) -> BTreeMap<String, PodRecord> {
    let facts = store.read(&keys(names)).await.unwrap();
    facts
        .records
        .into_iter()
        .map(|(pod, record)| (pod.name().to_owned(), record))
        .collect()
}

pub async fn names(store: &dyn Store, own: &[&str]) -> Vec<String> {
    read(store, own).await.into_keys().collect()
}

pub fn any(link: &DeclaredLink) -> VniClaim {
    VniClaim::new(link)
}

pub fn fixed(link: &DeclaredLink, vni: u32) -> VniClaim {
    VniClaim {
        fixed: Some(Vni::try_from(vni).unwrap()),
        ..VniClaim::new(link)
    }
}

/// Claims a VNI. Returns its number.
pub async fn claim(store: &dyn Store, link: &DeclaredLink) -> u32 {
    granted(ask(store, link).await)
}

pub async fn ask(store: &dyn Store, link: &DeclaredLink) -> VniGrant {
    claim_all(store, &[any(link)]).await[&link.id()].clone()
}

/// One claim of a node.
pub async fn claim_for(store: &dyn Store, node: &NodeName, claim: VniClaim) -> VniGrant {
    let link = claim.link;
    let mut grants = store.claim_vnis(node, &[claim]).await.unwrap();
    grants.remove(&link).unwrap()
}

pub fn granting(vni: u32) -> VniGrant {
    VniGrant::Granted(vni.try_into().unwrap())
}

/// The VNIs that the claimer holds.
pub async fn held(store: &dyn Store) -> Vec<u32> {
    let held = store.held_vnis(&claimer()).await.unwrap();
    held.into_keys().map(Vni::number).collect()
}

/// A pod that declares a link with each of `count` peers, which are called 0, 1, …
pub async fn publish_hub(store: &dyn Store, name: &str, count: u32) -> Vec<DeclaredLink> {
    let peers: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    let hub = record(name, &peers.iter().map(String::as_str).collect::<Vec<_>>());
    publish(store, &hub).await;
    hub.links
}

/// Publishes a pod with this many links and claims their VNIs, some at a time. Returns the VNIs.
pub async fn claim_for_hub(
    store: &dyn Store,
    name: &str,
    links: u32,
    at_a_time: usize,
) -> Vec<u32> {
    let links = publish_hub(store, name, links).await;
    let mut given = Vec::new();
    for batch in links.chunks(at_a_time) {
        let claims: Vec<_> = batch.iter().map(any).collect();
        let grants = claim_all(store, &claims).await;
        given.extend(grants.into_values().map(granted));
    }
    given
}

pub fn assert_unique_and_dense(given: &[u32], count: u32) {
    let unique: BTreeSet<u32> = given.iter().copied().collect();
    assert_eq!(unique.len(), given.len(), "one VNI was given twice");
    assert_eq!(unique, (11..11 + count).collect(), "a hole was left");
}

pub fn granted(grant: impl Borrow<VniGrant>) -> u32 {
    match grant.borrow() {
        VniGrant::Granted(vni) => vni.number(),
        other => panic!("expected a VNI: {other:?}"),
    }
}

/// A watch of these pods that has reported its first change.
pub async fn watch(store: &dyn Store, own: &[&str], peers: &[&str]) -> Box<dyn Watch> {
    let mut watch = store.watch().await.unwrap();
    assert_eq!(watch.next().await.unwrap(), Change::All);
    let all: Vec<&str> = own.iter().chain(peers).copied().collect();
    interest(&mut *watch, own, peers, &all).await;
    watch
}

/// Sets the interest and takes the report of its new pods.
pub async fn interest(watch: &mut dyn Watch, own: &[&str], peers: &[&str], new: &[&str]) {
    watch
        .interest(Interest {
            own: keys(own),
            peers: keys(peers),
            ..Interest::default()
        })
        .await
        .unwrap();
    hear(watch, new).await;
}

/// Waits until all these pods are reported. Returns everything that was reported.
pub async fn hear(watch: &mut dyn Watch, names: &[&str]) -> BTreeSet<PodKey> {
    let wanted = keys(names);
    let mut heard = BTreeSet::new();
    while !heard.is_superset(&wanted) {
        match time::timeout(DEADLINE, watch.next()).await {
            Ok(Ok(Change::Pods(pods))) => heard.extend(pods),
            Ok(Ok(Change::All)) => panic!("the watch started again for no reason"),
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => panic!("waited for {names:?}, heard of {heard:?} only"),
        }
    }
    heard
}
