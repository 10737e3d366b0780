//! Records: reads those that concern a pod, and changes one with all consequences.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{
    DeclaredLink, LinkId, NodeName, PodKey, PodRecord, SandboxId, Vni, record::Facts,
};

use super::{
    Etcd, TXN_OPS,
    attempts::Attempts,
    change, numbers,
    proto::{Compare, KeyValue, Op, Txn},
    reader::{Reader, View, key},
};
use crate::{
    Publish, Published, StoreError,
    change::{Publication, RecordChange, drops_links, is_removed, peers_of_gone},
};

/// See [`crate::Store::publish`].
pub(super) async fn publish(
    etcd: &Etcd,
    record: &PodRecord,
    how: Publish,
) -> Result<Published, StoreError> {
    let mut attempts = Attempts::new();
    loop {
        let mut view = View::new(etcd);
        view.load([record.pod.clone()].into()).await?;
        let previous = view.records.get(&record.pod);
        let next = match Publication::new(record, previous, how) {
            Publication::Superseded => return Ok(Published::Superseded),
            Publication::Held { owner, node } => return Ok(Published::Held { owner, node }),
            Publication::Unchanged(PodRecord { created, .. }) => {
                complete_index(etcd, &mut view, record).await?;
                return Ok(Published::Stored { created });
            }
            Publication::Write(next) => next,
        };
        let created = next.created;
        if drops_links(previous, &next) {
            view.load_around(&[record.pod.clone()].into()).await?;
            view.load(next.peers().into_iter().cloned().collect())
                .await?;
        }
        let change = RecordChange::publish(next, &view.records);
        let vnis = read_vnis(etcd, &mut view.reader, change.ended()).await?;
        let steps = change.steps(&vnis, change::LIMITS);
        if change::make(etcd, &record.pod, &view, steps, None).await? {
            return Ok(Published::Stored { created });
        }
        attempts.failed(etcd.rpc.url()).await?;
    }
}

/// See [`crate::Store::remove_pod`].
pub(super) async fn remove_pod(
    etcd: &Etcd,
    pod: &PodKey,
    sandbox: &SandboxId,
) -> Result<(), StoreError> {
    remove_pod_unless(etcd, pod, sandbox, None).await.map(drop)
}

/// The same, but only if this key is absent. Returns whether it is absent.
pub(super) async fn remove_pod_unless(
    etcd: &Etcd,
    pod: &PodKey,
    sandbox: &SandboxId,
    unless: Option<String>,
) -> Result<bool, StoreError> {
    let mut attempts = Attempts::new();
    loop {
        let mut view = View::new(etcd);
        if let Some(unless) = &unless
            && view.reader.has(unless).await?
        {
            return Ok(false);
        }
        view.load([pod.clone()].into()).await?;
        if !is_removed(view.records.get(pod), sandbox) {
            return Ok(true);
        }
        view.load_around(&[pod.clone()].into()).await?;
        view.load(peers_of_gone(&view.records)).await?;
        let change = RecordChange::remove(pod, &view.records);
        let vnis = read_vnis(etcd, &mut view.reader, change.ended()).await?;
        let steps = change.steps(&vnis, change::LIMITS);
        let guard = unless.clone().map(Compare::absent);
        if change::make(etcd, pod, &view, steps, guard).await? {
            return Ok(true);
        }
        attempts.failed(etcd.rpc.url()).await?;
    }
}

/// See [`crate::Store::read`]. Returns the revision of the read, too.
pub(super) async fn read(etcd: &Etcd, own: &BTreeSet<PodKey>) -> Result<(Facts, i64), StoreError> {
    let mut view = View::new(etcd);
    if own.is_empty() {
        // With no pods, the caller wants to know whether the store answers.
        etcd.any_below(&etcd.keys.root()).await?;
    }
    view.load_around(own).await?;
    let links = view.records.values().flat_map(|record| &record.links);
    let links =
        links.filter(|link| own.contains(&link.local.pod) || own.contains(&link.remote.pod));
    let links: BTreeSet<LinkId> = links.map(DeclaredLink::id).collect();
    let vnis = read_vnis(etcd, &mut view.reader, &links).await?;
    Ok((
        Facts {
            records: view.records,
            vnis,
            declared: None,
        },
        view.reader.revision,
    ))
}

/// See [`crate::Store::located_on`].
pub(super) async fn located_on(etcd: &Etcd, node: &NodeName) -> Result<Vec<PodRecord>, StoreError> {
    let mut records: Vec<PodRecord> = Vec::new();
    // A record that cannot be read is of no use here. The code that needs it reports it.
    let see = |kv: KeyValue| {
        let record = serde_json::from_slice(&kv.value).ok();
        records.extend(record.filter(|record: &PodRecord| is_on(record, node)));
    };
    Reader::new(etcd).all_below(&etcd.keys.pods(), see).await?;
    Ok(records)
}

fn is_on(record: &PodRecord, node: &NodeName) -> bool {
    record
        .location
        .as_ref()
        .is_some_and(|location| location.node == *node)
}

async fn read_vnis(
    etcd: &Etcd,
    reader: &mut Reader<'_>,
    links: &BTreeSet<LinkId>,
) -> Result<BTreeMap<LinkId, Vni>, StoreError> {
    let found = reader
        .ranges(
            links
                .iter()
                .map(|link| key(etcd.keys.link(*link)))
                .collect(),
        )
        .await?;
    let numbered = links
        .iter()
        .zip(&found)
        .filter_map(|(link, kvs)| Some((*link, kvs.first()?)));
    numbered
        .map(|(link, kv)| Ok((link, numbers::vni(etcd, kv)?)))
        .collect()
}

/// A record with more peers than fit into one transaction may have been left without some of its
/// entries in the index.
async fn complete_index(
    etcd: &Etcd,
    view: &mut View<'_>,
    record: &PodRecord,
) -> Result<(), StoreError> {
    let peers = record.peers();
    if peers.len() < TXN_OPS / 2 {
        return Ok(());
    }
    let entries: Vec<String> = peers
        .iter()
        .map(|peer| etcd.keys.declarer(peer, &record.pod))
        .collect();
    let found = view
        .reader
        .ranges(entries.iter().cloned().map(key).collect())
        .await?;
    let missing = entries
        .into_iter()
        .zip(found)
        .filter(|(_, kvs)| kvs.is_empty())
        .map(|(entry, _)| entry);
    let missing: Vec<String> = missing.collect();
    let revision = view.revisions.get(&record.pod).copied().unwrap_or(0);
    for some in missing.chunks(TXN_OPS) {
        let compare = vec![Compare::unchanged(etcd.keys.pod(&record.pod), revision)];
        let success = some
            .iter()
            .map(|entry| Op::put(entry.clone(), Vec::new()))
            .collect();
        etcd.rpc.txn(Txn { compare, success }).await?;
    }
    Ok(())
}
