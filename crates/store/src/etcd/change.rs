//! A change of a record as transactions: one for each of its steps ([`crate::change`]).

use std::collections::BTreeMap;

use ratchet_model::{PodKey, PodRecord};

use super::{
    Etcd, TXN_OPS,
    keys::after,
    numbers,
    proto::{Compare, Op, Relation, Txn},
    reader::View,
};
use crate::{
    StoreError,
    change::{IndexChange, Limits, Step},
};

/// The size of a step. It leaves room for the key of all VNIs and for these conditions: on that
/// key, on the pod's own record, on the index of its declarers, and the caller's.
pub(super) const LIMITS: Limits = Limits {
    operations: TXN_OPS - 2,
    conditions: TXN_OPS - 4,
};

/// Makes a change of a pod's record. Conditions: everything that it depends on is as it was read,
/// and `guard` holds. Returns whether the change is complete. If not, some of its steps may be
/// done.
pub(super) async fn make(
    etcd: &Etcd,
    pod: &PodKey,
    view: &View<'_>,
    steps: Vec<Step>,
    guard: Option<Compare>,
) -> Result<bool, StoreError> {
    // The revisions after each step.
    let mut revisions = view.revisions.clone();
    for step in steps {
        let mut txn = Txn {
            compare: conditions(etcd, pod, &step, &revisions, view.reader.revision),
            success: operations(etcd, &step)?,
        };
        txn.compare.extend(guard.clone());
        if !step.freed.is_empty() {
            let Some((conditions, operations)) = numbers::end(etcd, &step.freed).await? else {
                return Ok(false);
            };
            txn.compare.extend(conditions);
            txn.success.extend(operations);
        }
        let answer = etcd.rpc.txn(txn).await?;
        if !answer.succeeded {
            return Ok(false);
        }
        let revision = answer.header.map_or(0, |header| header.revision);
        for (pod, record) in step.records {
            revisions.insert(pod, if record.is_some() { revision } else { 0 });
        }
    }
    Ok(true)
}

fn conditions(
    etcd: &Etcd,
    pod: &PodKey,
    step: &Step,
    revisions: &BTreeMap<PodKey, i64>,
    read_at: i64,
) -> Vec<Compare> {
    let keys = &etcd.keys;
    let records = step
        .unchanged
        .iter()
        .chain([pod])
        .map(|pod| Compare::unchanged(keys.pod(pod), revisions.get(pod).copied().unwrap_or(0)));
    let unnumbered = step
        .unnumbered
        .iter()
        .map(|link| Compare::absent(keys.link(*link)));
    let declarers = step.declarers_unchanged.then(|| {
        let prefix = keys.declarers(pod);
        Compare {
            relation: Relation::Less.into(),
            range_end: after(&prefix),
            ..Compare::unchanged(prefix, read_at + 1)
        }
    });
    records.chain(unnumbered).chain(declarers).collect()
}

fn operations(etcd: &Etcd, step: &Step) -> Result<Vec<Op>, StoreError> {
    let keys = &etcd.keys;
    let mut ops = Vec::new();
    for (entry, change) in &step.index {
        let key = keys.declarer(&entry.peer, &entry.declarer);
        ops.push(match change {
            IndexChange::Add | IndexChange::Touch => Op::put(key, Vec::new()),
            IndexChange::Remove => Op::delete(key),
        });
    }
    for (pod, record) in &step.records {
        let key = keys.pod(pod);
        ops.push(match record {
            Some(record) => Op::put(key, body(record)?),
            None => Op::delete(key),
        });
    }
    Ok(ops)
}

fn body(record: &PodRecord) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| {
        StoreError::Broken(format!(
            "the record of pod {} cannot be written as JSON: {error}",
            record.pod
        ))
    })
}
