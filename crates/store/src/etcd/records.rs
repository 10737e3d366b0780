//! Records: reading those that concern a pod, and changing one with all that follows from it.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{
    DeclaredLink, LinkId, NodeName, PodKey, PodRecord, SandboxId, Vni,
    record::{Consequence, Facts, consequence},
};

use super::{
    Etcd, TXN_OPS,
    attempts::Attempts,
    change::{self, Change},
    proto::{Compare, KeyValue, Txn},
    reader::{Reader, View, key},
    vnis,
};
use crate::{Publish, Published, StoreError, rules};

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
        let Some(created) = rules::created(record, previous, how) else {
            return Ok(Published::Superseded);
        };
        let next = PodRecord {
            created,
            ..record.clone()
        };
        // What is there already is not written again, so that it wakes nobody.
        if previous == Some(&next) {
            complete_index(etcd, &mut view, &next).await?;
            return Ok(Published::Stored { created });
        }
        let links = |record: &PodRecord| {
            record
                .links
                .iter()
                .map(DeclaredLink::id)
                .collect::<BTreeSet<_>>()
        };
        if previous.is_some_and(|previous| !links(previous).is_subset(&links(&next))) {
            // Only a link that is dropped makes others matter: does one of them declare it too?
            view.load_around(&[record.pod.clone()].into()).await?;
            view.load(next.peers().into_iter().cloned().collect())
                .await?;
        }
        let consequence = consequence(&record.pod, Some(next), &view.records);
        if apply(etcd, &record.pod, &mut view, &consequence, None).await? {
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

/// The same, unless there is this key; gives whether there is not.
pub(super) async fn remove_pod_unless(
    etcd: &Etcd,
    pod: &PodKey,
    sandbox: &SandboxId,
    unless: Option<String>,
) -> Result<bool, StoreError> {
    let mut attempts = Attempts::new();
    loop {
        let mut view = View::new(etcd);
        if let Some(unless) = &unless {
            let found = view.reader.ranges(vec![key(unless.clone())]).await?;
            if !found.concat().is_empty() {
                return Ok(false);
            }
        }
        view.load([pod.clone()].into()).await?;
        if view
            .records
            .get(pod)
            .is_none_or(|record| record.sandbox() != Some(sandbox))
        {
            return Ok(true);
        }
        view.load_around(&[pod.clone()].into()).await?;
        // Whether a declarer that has gone is still needed depends on its other peers.
        let gone = view
            .records
            .values()
            .filter(|record| !record.lives())
            .flat_map(PodRecord::peers);
        view.load(gone.cloned().collect()).await?;
        let consequence = consequence(pod, None, &view.records);
        let guard = unless.clone().map(|key| change::unchanged(key, 0));
        if apply(etcd, pod, &mut view, &consequence, guard).await? {
            return Ok(true);
        }
        attempts.failed(etcd.rpc.url()).await?;
    }
}

/// See [`crate::Store::read`]; and the revision at which it was read.
pub(super) async fn read(etcd: &Etcd, own: &BTreeSet<PodKey>) -> Result<(Facts, i64), StoreError> {
    let mut view = View::new(etcd);
    if own.is_empty() {
        // Whoever asks for nothing wants to know whether there is an answer.
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
        },
        view.reader.revision,
    ))
}

/// See [`crate::Store::located_on`].
pub(super) async fn located_on(etcd: &Etcd, node: &NodeName) -> Result<Vec<PodRecord>, StoreError> {
    let mut records: Vec<PodRecord> = Vec::new();
    // What cannot be read is of no use here; whoever needs it will say so.
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
        .map(|(link, kv)| Ok((link, vnis::vni(etcd, kv)?)))
        .collect()
}

/// Does what follows; says whether it was done.
async fn apply(
    etcd: &Etcd,
    pod: &PodKey,
    view: &mut View<'_>,
    consequence: &Consequence,
    guard: Option<Compare>,
) -> Result<bool, StoreError> {
    let releasing = read_vnis(etcd, &mut view.reader, &consequence.release).await?;
    Change::new(etcd, pod, view, consequence, &releasing, guard)?
        .run()
        .await
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
        let compare = vec![change::unchanged(etcd.keys.pod(&record.pod), revision)];
        let success = some
            .iter()
            .map(|entry| change::put(entry.clone(), Vec::new()))
            .collect();
        etcd.rpc.txn(Txn { compare, success }).await?;
    }
    Ok(())
}
