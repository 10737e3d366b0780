//! A change of a record with all that follows from it, as transactions.
//!
//! One is enough for all but the largest: etcd takes 128 operations at a time. Where more are
//! needed, each of them leaves behind what might have been said as well: whoever frees a link's VNI
//! takes the link from the records that declare it at the same time, unless they are kept, so that
//! nobody claims a VNI anew that nobody would free; and a pod that goes is said to be leaving
//! before anything else. The pod's record is written or deleted last. Whoever is interrupted finds
//! in it what is left to do, and the agent, which has it from its own disk, does it again.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{DeclaredLink, LinkId, Location, PodKey, PodRecord, Vni, record::Consequence};

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
    /// Links that end, with the VNI to free. Of one without, nobody must have claimed one
    /// meanwhile, since nobody would ever free it.
    ends: BTreeMap<LinkId, Option<Vni>>,
    /// Links that records no longer declare.
    taken: BTreeMap<PodKey, BTreeSet<LinkId>>,
    /// What becomes of records in the end.
    records: BTreeMap<PodKey, Op>,
    /// Pods whose records must not have changed.
    unchanged: BTreeSet<PodKey>,
    /// Whether the index of the pod's declarers must not have changed.
    declarers_unchanged: bool,
}

impl Step {
    fn fits(&self, other: &Step) -> bool {
        // And two for the VNIs that are taken, two conditions for the pod itself, one for those,
        // and the guard.
        self.operations() + other.operations() + 2 <= TXN_OPS
            && self.conditions() + other.conditions() + 4 <= TXN_OPS
    }

    fn operations(&self) -> usize {
        self.ops.len() + self.freed().count() + self.written().len()
    }

    fn conditions(&self) -> usize {
        self.unchanged.len() + self.ends.len() - self.freed().count()
    }

    fn freed(&self) -> impl Iterator<Item = (LinkId, Vni)> {
        self.ends
            .iter()
            .filter_map(|(link, vni)| Some((*link, (*vni)?)))
    }

    fn written(&self) -> BTreeSet<&PodKey> {
        self.taken.keys().chain(self.records.keys()).collect()
    }

    fn join(&mut self, other: Step) {
        self.ops.extend(other.ops);
        for (link, vni) in other.ends {
            self.ends.entry(link).or_insert(vni);
        }
        for (pod, links) in other.taken {
            self.taken.entry(pod).or_default().extend(links);
        }
        self.records.extend(other.records);
        self.unchanged.extend(other.unchanged);
        self.declarers_unchanged |= other.declarers_unchanged;
    }
}

/// What is to be done about one pod.
pub(super) struct Change<'a> {
    etcd: &'a Etcd,
    pod: &'a PodKey,
    view: &'a View<'a>,
    /// Links that end.
    ends: BTreeMap<LinkId, Option<Vni>>,
    steps: Vec<Step>,
    /// What every transaction depends on besides.
    guard: Option<Compare>,
}

pub(super) fn put(key: String, value: Vec<u8>) -> Op {
    OpKind::Put(Put {
        key: key.into_bytes(),
        value,
        lease: 0,
    })
    .into()
}

pub(super) fn delete(key: String) -> Op {
    OpKind::Delete(Delete {
        key: key.into_bytes(),
    })
    .into()
}

/// The condition that a key still has this revision.
pub(super) fn unchanged(key: String, revision: i64) -> Compare {
    let (relation, mod_revision) = (Relation::Equal.into(), Some(revision));
    Compare {
        relation,
        target: MOD,
        key: key.into_bytes(),
        mod_revision,
        range_end: Vec::new(),
    }
}

fn body(record: &PodRecord) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| {
        StoreError::Broken(format!(
            "the record of pod {} cannot be written as JSON: {error}",
            record.pod
        ))
    })
}

impl<'a> Change<'a> {
    /// What these consequences ask for. `releasing` are the VNIs of those links to be released that
    /// have one.
    pub(super) fn new(
        etcd: &'a Etcd,
        pod: &'a PodKey,
        view: &'a View<'a>,
        consequence: &Consequence,
        releasing: &BTreeMap<LinkId, Vni>,
        guard: Option<Compare>,
    ) -> Result<Self, StoreError> {
        let ends = consequence
            .release
            .iter()
            .map(|link| (*link, releasing.get(link).copied()))
            .collect();
        let mut change = Self {
            etcd,
            pod,
            view,
            ends,
            steps: Vec::new(),
            guard,
        };
        for forgotten in consequence
            .forget
            .iter()
            .filter_map(|pod| view.records.get(pod))
        {
            change.erase(forgotten);
        }
        let previous = view.records.get(pod);
        match &consequence.record {
            Some(next) => change.write(previous, next)?,
            None => {
                change.end_kept();
                previous.into_iter().for_each(|record| change.erase(record));
            }
        }
        if consequence.record.as_ref().is_none_or(|next| !next.lives()) {
            change.remove_pod(consequence);
        }
        Ok(change)
    }

    /// What is on condition that this link ends, if it does: its VNI is freed as long as neither
    /// end declares it again.
    fn end(&self, link: &DeclaredLink) -> Step {
        let Some(vni) = self.ends.get(&link.id()) else {
            return Step::default();
        };
        let ends = [&link.local.pod, &link.remote.pod]
            .into_iter()
            .filter(|end| vni.is_some() && *end != self.pod);
        Step {
            ends: [(link.id(), *vni)].into(),
            unchanged: ends.cloned().collect(),
            ..Step::default()
        }
    }

    /// Ends those links that only records declare which are kept.
    fn end_kept(&mut self) {
        let done: BTreeSet<LinkId> = self
            .steps
            .iter()
            .flat_map(|step| step.taken.values().flatten())
            .copied()
            .collect();
        let links: BTreeMap<LinkId, &DeclaredLink> = self
            .view
            .records
            .values()
            .flat_map(|record| &record.links)
            .map(|link| (link.id(), link))
            .collect();
        let kept = links
            .into_iter()
            .filter(|(id, _)| self.ends.contains_key(id) && !done.contains(id));
        let steps: Vec<Step> = kept.map(|(_, link)| self.end(link)).collect();
        self.steps.extend(steps);
    }

    /// Takes links from a record as it is now, and with the last one with a peer the entry in that
    /// one's index, unless it `stays`.
    fn take(&mut self, record: &PodRecord, links: &BTreeSet<LinkId>, stays: &BTreeSet<&PodKey>) {
        let mut left: BTreeMap<&PodKey, usize> = BTreeMap::new();
        for link in &record.links {
            *left.entry(&link.remote.pod).or_default() += 1;
        }
        for link in record
            .links
            .iter()
            .filter(|link| links.contains(&link.id()))
        {
            let peer = &link.remote.pod;
            let mut step = self.end(link);
            step.taken.insert(record.pod.clone(), [link.id()].into());
            step.unchanged
                .extend((record.pod != *self.pod).then(|| record.pod.clone()));
            if let Some(left) = left.get_mut(peer) {
                *left -= 1;
                if *left == 0 && *peer != record.pod && !stays.contains(peer) {
                    step.ops
                        .push(delete(self.etcd.keys.declarer(peer, &record.pod)));
                }
            }
            self.steps.push(step);
        }
    }

    /// Deletes a record, after its entries in the index.
    fn erase(&mut self, record: &PodRecord) {
        self.take(record, &ids(record), &BTreeSet::new());
        let records = [(record.pod.clone(), delete(self.etcd.keys.pod(&record.pod)))].into();
        let unchanged = (record.pod != *self.pod)
            .then(|| record.pod.clone())
            .into_iter()
            .collect();
        self.steps.push(Step {
            records,
            unchanged,
            ..Step::default()
        });
    }

    /// Writes the pod's record, and then its new entries in the index.
    fn write(&mut self, previous: Option<&PodRecord>, next: &PodRecord) -> Result<(), StoreError> {
        let keys = &self.etcd.keys;
        let (before, after) = (
            previous.map(PodRecord::peers).unwrap_or_default(),
            next.peers(),
        );
        if let Some(previous) = previous {
            let dropped = ids(previous).difference(&ids(next)).copied().collect();
            self.take(previous, &dropped, &after);
        }
        self.end_kept();
        let records = [(next.pod.clone(), put(keys.pod(&next.pod), body(next)?))].into();
        let mut step = Step {
            records,
            ..Step::default()
        };
        if !next.lives()
            && let Some(witness) = next.peers().into_iter().find(|peer| self.view.lives(peer))
        {
            // Kept for this peer's sake. The entry is written again so that the peer, should it go
            // at this very moment, notices that its declarers have changed.
            step.ops
                .push(put(keys.declarer(witness, &next.pod), Vec::new()));
            step.unchanged.insert(witness.clone());
        }
        self.steps.push(step);
        let new = after
            .difference(&before)
            .map(|peer| put(keys.declarer(peer, &next.pod), Vec::new()));
        self.steps.extend(new.map(|op| Step {
            ops: vec![op],
            ..Step::default()
        }));
        Ok(())
    }

    /// What a departure was decided on: that nobody new declares a link with the pod, that those
    /// who do have not gone in this very moment, that those of them who have gone are still needed
    /// by somebody else, and that those who live do.
    fn remove_pod(&mut self, consequence: &Consequence) {
        let view = self.view;
        let kept = view.records.values().filter(|record| {
            record.pod != *self.pod && !record.lives() && !consequence.forget.contains(&record.pod)
        });
        let witnesses = kept
            .filter(|record| record.peers().contains(self.pod))
            .filter_map(|record| {
                record
                    .peers()
                    .into_iter()
                    .find(|peer| *peer != self.pod && view.lives(peer))
                    .cloned()
            });
        // A link ends with the second of its pods: if both go at this very moment, one must notice
        // that it is the second.
        let own = view
            .records
            .get(self.pod)
            .map(PodRecord::peers)
            .unwrap_or_default();
        let others = view
            .records
            .values()
            .filter(|record| record.pod != *self.pod && record.lives());
        let others =
            others.filter(|record| own.contains(&record.pod) || record.peers().contains(self.pod));
        let others = others.map(|record| record.pod.clone());
        let witnesses: BTreeSet<PodKey> = witnesses.chain(others).take(TXN_OPS / 2).collect();
        if let Some(last) = self
            .steps
            .iter_mut()
            .rfind(|step| step.records.contains_key(self.pod))
        {
            last.unchanged.extend(witnesses);
            last.declarers_unchanged = true;
        }
    }

    /// Does it; says whether it was done. If not, something that it was decided on has changed.
    pub(super) async fn run(self) -> Result<bool, StoreError> {
        let (pod, view, keys) = (self.pod, self.view, &self.etcd.keys);
        let goes = self.steps.iter().any(|step| step.declarers_unchanged);
        let steps = pack(self.steps);
        // As they are at each moment.
        let mut revisions = view.revisions.clone();
        let mut records: BTreeMap<&PodKey, PodRecord> = BTreeMap::new();
        let taken_from = steps.iter().flat_map(|step| step.taken.keys());
        records.extend(taken_from.filter_map(|pod| Some((pod, view.records.get(pod)?.clone()))));

        let leaving = view
            .records
            .get(pod)
            .filter(|record| goes && steps.len() > 1 && record.lives());
        let leaving = leaving.map(|record| {
            let location = record.location.clone().map(|location| Location {
                leaving: true,
                ..location
            });
            PodRecord {
                location,
                ..record.clone()
            }
        });
        let first = match leaving {
            Some(record) => {
                let ops = [(pod.clone(), put(keys.pod(pod), body(&record)?))].into();
                records.insert(pod, record);
                Some(Step {
                    records: ops,
                    ..Step::default()
                })
            }
            None => None,
        };
        for step in first.iter().chain(&steps) {
            let mut ops = step.ops.clone();
            for pod in step.written() {
                let none = BTreeSet::new();
                let taken = step.taken.get(pod).unwrap_or(&none);
                if let Some(record) = records.get_mut(pod) {
                    record.links.retain(|link| !taken.contains(&link.id()));
                }
                ops.push(match (step.records.get(pod), records.get(pod)) {
                    (Some(last), _) => last.clone(),
                    (None, Some(record)) => put(keys.pod(pod), body(record)?),
                    (None, None) => continue,
                });
            }
            let on = step.unchanged.iter().chain([pod]);
            let mut compare: Vec<Compare> = on
                .map(|pod| unchanged(keys.pod(pod), revisions.get(pod).copied().unwrap_or(0)))
                .collect();
            compare.extend(self.guard.clone());
            if step.declarers_unchanged {
                let prefix = keys.declarers(pod);
                compare.push(Compare {
                    relation: Relation::Less.into(),
                    target: MOD,
                    range_end: after(&prefix),
                    key: prefix.into_bytes(),
                    mod_revision: Some(view.reader.revision + 1),
                });
            }
            let unclaimed = step.ends.iter().filter(|(_, vni)| vni.is_none());
            compare.extend(unclaimed.map(|(link, _)| unchanged(keys.link(*link), 0)));
            let release: Vec<(LinkId, Vni)> = step.freed().collect();
            if !release.is_empty() {
                let (guard, freeing) = vnis::release(self.etcd, &release).await?;
                compare.push(guard);
                ops.extend(freeing);
            }
            let answer = self
                .etcd
                .rpc
                .txn(Txn {
                    compare,
                    success: ops,
                })
                .await?;
            if !answer.succeeded {
                return Ok(false);
            }
            let revision = answer.header.map_or(0, |header| header.revision);
            let is_deleted = |pod: &PodKey| {
                matches!(
                    step.records.get(pod),
                    Some(Op {
                        kind: Some(OpKind::Delete(_))
                    })
                )
            };
            for pod in step.written() {
                revisions.insert(pod.clone(), if is_deleted(pod) { 0 } else { revision });
            }
        }
        Ok(true)
    }
}

fn ids(record: &PodRecord) -> BTreeSet<LinkId> {
    record.links.iter().map(DeclaredLink::id).collect()
}

/// As few transactions as possible, in the same order.
fn pack(steps: Vec<Step>) -> Vec<Step> {
    let mut packed: Vec<Step> = Vec::new();
    // A link that two records declare is freed with the first.
    let mut freed = BTreeSet::new();
    for mut step in steps {
        for (link, vni) in &mut step.ends {
            if vni.is_some() && !freed.insert(*link) {
                *vni = None;
            }
        }
        match packed.last_mut() {
            Some(last) if last.fits(&step) => last.join(step),
            _ => packed.push(step),
        }
    }
    packed
}
