//! A change of a record with all that follows from it, as transactions.
//!
//! One is enough for all but the largest: etcd takes 128 operations at a time. Where more are needed, the pod's record is
//! written first when it comes and deleted last when it goes. Whoever is interrupted in between finds in the record what
//! is left to do, and the agent, which has it from its own disk, does it again.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, PodKey, PodRecord, Vni, record::Consequence};

use super::{
    Etcd, TXN_OPS,
    keys::after,
    proto::{Compare, Delete, Op, OpKind, Put, Relation, Txn},
    reader::View,
    vnis,
};
use crate::StoreError;

/// `Compare.CompareTarget.MOD`.
const MOD: i32 = 2;

/// Something to do that must not be torn apart.
#[derive(Default)]
struct Step {
    ops: Vec<Op>,
    /// VNIs to free.
    release: Vec<(LinkId, Vni)>,
    /// Links that end and had no VNI: nobody must have claimed one meanwhile, since nobody would ever free it.
    unclaimed: Vec<LinkId>,
    /// Pods whose records must not have changed.
    unchanged: BTreeSet<PodKey>,
    /// Whether the index of the pod's declarers must not have changed.
    declarers_unchanged: bool,
    /// Whether the pod's own record is written.
    writes_record: bool,
}

impl Step {
    fn fits(&self, other: &Step) -> bool {
        // And two for the VNIs that are taken, two conditions for the pod itself, one for those, and the guard.
        self.ops.len() + self.release.len() + other.ops.len() + other.release.len() + 2 <= TXN_OPS
            && self.conditions() + other.conditions() + 4 <= TXN_OPS
    }

    fn conditions(&self) -> usize {
        self.unchanged.len() + self.unclaimed.len()
    }

    fn join(&mut self, other: Step) {
        self.ops.extend(other.ops);
        self.unclaimed.extend(other.unclaimed);
        self.release.extend(other.release);
        self.unchanged.extend(other.unchanged);
        self.declarers_unchanged |= other.declarers_unchanged;
        self.writes_record |= other.writes_record;
    }
}

/// What is to be done about one pod.
pub(super) struct Change<'a> {
    etcd: &'a Etcd,
    pod: &'a PodKey,
    steps: Vec<Step>,
    /// What every transaction depends on besides.
    guard: Option<Compare>,
}

pub(super) fn put(key: String, value: Vec<u8>) -> Op {
    OpKind::Put(Put { key: key.into_bytes(), value, lease: 0 }).into()
}

pub(super) fn delete(key: String) -> Op {
    OpKind::Delete(Delete { key: key.into_bytes() }).into()
}

/// The condition that a key still has this revision.
pub(super) fn unchanged(key: String, revision: i64) -> Compare {
    let (relation, mod_revision) = (Relation::Equal.into(), Some(revision));
    Compare { relation, target: MOD, key: key.into_bytes(), mod_revision, range_end: Vec::new() }
}

impl<'a> Change<'a> {
    /// What these consequences ask for. `releasing` are those of the links to be released that have a VNI.
    pub(super) fn new(
        etcd: &'a Etcd,
        pod: &'a PodKey,
        view: &View<'_>,
        consequence: &Consequence,
        releasing: &[(LinkId, Vni)],
        guard: Option<Compare>,
    ) -> Result<Self, StoreError> {
        let mut change = Self { etcd, pod, steps: Vec::new(), guard };
        change.release(view, consequence, releasing);
        for forgotten in consequence.forget.iter().filter_map(|pod| view.records.get(pod)) {
            change.erase(forgotten, Some(&forgotten.pod));
        }
        let previous = view.records.get(pod);
        match &consequence.record {
            Some(next) => change.write(view, previous, next)?,
            None => previous.into_iter().for_each(|record| change.erase(record, None)),
        }
        if consequence.record.as_ref().is_none_or(|next| next.location.is_none()) {
            change.depart(view, consequence);
        }
        Ok(change)
    }

    /// Frees VNIs, for as long as neither end declares the link again.
    fn release(&mut self, view: &View<'_>, consequence: &Consequence, releasing: &[(LinkId, Vni)]) {
        let unclaimed = consequence.release.iter().filter(|link| !releasing.iter().any(|(other, _)| other == *link));
        self.steps.extend(unclaimed.map(|link| Step { unclaimed: vec![*link], ..Step::default() }));
        let mut ends: BTreeMap<LinkId, BTreeSet<PodKey>> = BTreeMap::new();
        for link in view.records.values().flat_map(|record| &record.links) {
            ends.entry(link.id()).or_default().extend([link.local.pod.clone(), link.remote.pod.clone()]);
        }
        for (link, vni) in releasing {
            let mut unchanged = ends.remove(link).unwrap_or_default();
            unchanged.remove(self.pod);
            self.steps.push(Step { release: vec![(*link, *vni)], unchanged, ..Step::default() });
        }
    }

    /// Deletes a record, after its entries in the index. `other`: it is that of another pod.
    fn erase(&mut self, record: &PodRecord, other: Option<&PodKey>) {
        let keys = &self.etcd.keys;
        let unchanged: BTreeSet<PodKey> = other.into_iter().cloned().collect();
        let entries = record.peers().into_iter().map(|peer| delete(keys.declarer(peer, &record.pod)));
        let steps = entries.chain([delete(keys.pod(&record.pod))]);
        self.steps.extend(steps.map(|op| Step { ops: vec![op], unchanged: unchanged.clone(), ..Step::default() }));
        if other.is_none()
            && let Some(last) = self.steps.last_mut()
        {
            last.writes_record = true;
        }
    }

    /// Writes a record, and then its entries in the index.
    fn write(&mut self, view: &View<'_>, previous: Option<&PodRecord>, next: &PodRecord) -> Result<(), StoreError> {
        let keys = &self.etcd.keys;
        let body = serde_json::to_vec(next).map_err(|error| {
            StoreError::Broken(format!("the record of pod {} cannot be written as JSON: {error}", next.pod))
        })?;
        let ops = vec![put(keys.pod(&next.pod), body)];
        self.steps.push(Step { ops, writes_record: true, ..Step::default() });
        let (before, after) = (previous.map(PodRecord::peers).unwrap_or_default(), next.peers());
        let gone = before.difference(&after).map(|peer| delete(keys.declarer(peer, &next.pod)));
        let new = after.difference(&before).map(|peer| put(keys.declarer(peer, &next.pod), Vec::new()));
        self.steps.extend(gone.chain(new).map(|op| Step { ops: vec![op], ..Step::default() }));
        if next.location.is_none()
            && let Some(witness) = next.peers().into_iter().find(|peer| view.lives(peer))
        {
            // Kept for this peer's sake. The entry is written again so that the peer, should it go at this very moment,
            // notices that its declarers have changed.
            let ops = vec![put(keys.declarer(witness, &next.pod), Vec::new())];
            self.steps.push(Step { ops, unchanged: [witness.clone()].into(), ..Step::default() });
        }
        Ok(())
    }

    /// What a departure was decided on: that nobody new declares a link with the pod, that those who do have not gone
    /// in this very moment, that those of them who have gone are still needed by somebody else, and that those who live do.
    fn depart(&mut self, view: &View<'_>, consequence: &Consequence) {
        let kept = view.records.values().filter(|record| {
            record.pod != *self.pod && record.location.is_none() && !consequence.forget.contains(&record.pod)
        });
        let witnesses = kept.filter(|record| record.peers().contains(self.pod)).filter_map(|record| {
            record.peers().into_iter().find(|peer| *peer != self.pod && view.lives(peer)).cloned()
        });
        // A link ends with the second of its pods: if both go at this very moment, one must notice that it is the second.
        let own = view.records.get(self.pod).map(PodRecord::peers).unwrap_or_default();
        let others = view.records.values().filter(|record| record.pod != *self.pod && record.location.is_some());
        let others = others.filter(|record| own.contains(&record.pod) || record.peers().contains(self.pod));
        let others = others.map(|record| record.pod.clone());
        let witnesses: BTreeSet<PodKey> = witnesses.chain(others).take(TXN_OPS / 2).collect();
        if let Some(last) = self.steps.iter_mut().rfind(|step| step.writes_record) {
            last.unchanged.extend(witnesses);
            last.declarers_unchanged = true;
        }
    }

    /// Does it; says whether it was done. If not, something that it was decided on has changed.
    pub(super) async fn run(self, view: &View<'_>) -> Result<bool, StoreError> {
        let mut own = view.revisions.get(self.pod).copied().unwrap_or(0);
        for step in pack(self.steps) {
            let writes_record = step.writes_record;
            let keys = &self.etcd.keys;
            let mut compare = vec![unchanged(keys.pod(self.pod), own)];
            compare.extend(self.guard.clone());
            for pod in &step.unchanged {
                compare.push(unchanged(keys.pod(pod), view.revisions.get(pod).copied().unwrap_or(0)));
            }
            if step.declarers_unchanged {
                let prefix = keys.declarers(self.pod);
                compare.push(Compare {
                    relation: Relation::Less.into(),
                    target: MOD,
                    range_end: after(&prefix),
                    key: prefix.into_bytes(),
                    mod_revision: Some(view.reader.revision + 1),
                });
            }
            compare.extend(step.unclaimed.iter().map(|link| unchanged(keys.link(*link), 0)));
            let mut ops = step.ops;
            if !step.release.is_empty() {
                let (guard, freeing) = vnis::release(self.etcd, &step.release).await?;
                compare.push(guard);
                ops.extend(freeing);
            }
            let answer = self.etcd.rpc.txn(Txn { compare, success: ops }).await?;
            if !answer.succeeded {
                return Ok(false);
            }
            if writes_record {
                own = answer.header.map_or(0, |header| header.revision);
            }
        }
        Ok(true)
    }
}

/// As few transactions as possible, in the same order.
fn pack(steps: Vec<Step>) -> Vec<Step> {
    let mut packed: Vec<Step> = Vec::new();
    for step in steps {
        match packed.last_mut() {
            Some(last) if last.fits(&step) => last.join(step),
            _ => packed.push(step),
        }
    }
    packed
}
