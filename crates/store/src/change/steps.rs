//! A change as steps. A backend does each step atomically.
//!
//! A backend without a limit gets one step. etcd limits the operations of a transaction, so a large
//! change takes several steps. After each step, the store is in a state that could also have come
//! about otherwise:
//!
//! * The step that frees a link's VNI also removes the link from the records that declare it,
//!   unless these are kept. Otherwise another agent could claim a VNI for the link again, and no
//!   agent would ever free it.
//! * A pod that is removed is marked as leaving first.
//! * The pod's own record is written or deleted last. An agent that is interrupted has the pod on
//!   its disk and repeats the change, and the record in the store shows what is left to do. So the
//!   removal of another pod never deletes a record that is marked as leaving.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, Location, PodKey, PodRecord, Vni};

use super::{
    RecordChange,
    parts::{Part, Write, parts},
};

/// An entry of the index: `declarer` declares a link with `peer`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexEntry {
    /// The pod under which the entry is found.
    pub peer: PodKey,
    /// The pod whose record declares the link.
    pub declarer: PodKey,
}

/// What happens to an entry of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexChange {
    /// It is new.
    Add,
    /// It exists and stays. It is written again, so that the condition
    /// [`Step::declarers_unchanged`] of a concurrent removal of the peer fails. A backend that does
    /// the whole change in one transaction need not do this.
    Touch,
    /// It is deleted.
    Remove,
}

/// What a backend writes in one transaction, and the conditions for it.
///
/// The conditions are for a backend that does not read and write in one transaction. "Unchanged"
/// means: as the backend has read it for this change, or has written it in an earlier step. If a
/// condition does not hold, the change must be computed again. In every step, the record of the
/// changed pod itself must be unchanged; it is not listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Records as they are after the step. `None`: the record is deleted.
    pub records: BTreeMap<PodKey, Option<PodRecord>>,
    /// Entries of the index that change.
    pub index: BTreeMap<IndexEntry, IndexChange>,
    /// Links that end, with their VNIs, which are free when no node holds them. Condition: the
    /// links still have these VNIs. Otherwise the VNIs may belong to other links.
    pub freed: BTreeMap<LinkId, Vni>,
    /// Links that end and have no VNI. Condition: they still have none, because no agent would free
    /// it.
    pub unnumbered: BTreeSet<LinkId>,
    /// Condition: the records of these pods are unchanged.
    pub unchanged: BTreeSet<PodKey>,
    /// Condition: no entry in the changed pod's index was added or written.
    pub declarers_unchanged: bool,
}

impl Step {
    /// The links that end with this step.
    pub fn ended(&self) -> impl Iterator<Item = LinkId> {
        self.freed.keys().chain(&self.unnumbered).copied()
    }
}

/// How much fits into one step.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Records and index entries, and two for each freed VNI.
    pub operations: usize,
    /// [`Step::unchanged`], [`Step::unnumbered`] and freed VNIs.
    pub conditions: usize,
}

impl Limits {
    /// Any change is one step.
    pub const NONE: Self = Self {
        operations: usize::MAX,
        conditions: usize::MAX,
    };
}

impl RecordChange<'_> {
    /// The change as steps, in order, as few as the limits allow. `vnis` are the VNIs of the links
    /// of [`RecordChange::ended`]. It is empty for a backend that frees VNIs without knowing them.
    pub fn steps(&self, vnis: &BTreeMap<LinkId, Vni>, limits: Limits) -> Vec<Step> {
        self.with_records(parts(self, vnis, limits))
    }

    /// Turns parts, which say what is removed from records, into steps, which have the records.
    fn with_records(&self, parts: Vec<Part>) -> Vec<Step> {
        let mut records: BTreeMap<PodKey, PodRecord> = parts
            .iter()
            .flat_map(|part| part.records.keys())
            .filter_map(|pod| Some((pod.clone(), self.before.get(pod)?.clone())))
            .collect();
        let mut steps = Vec::new();
        if let Some(leaving) = self.leaving().filter(|_| parts.len() > 1) {
            records.insert(self.pod.clone(), leaving.clone());
            steps.push(Step {
                records: [(self.pod.clone(), Some(leaving))].into(),
                ..Step::default()
            });
        }
        for part in parts {
            let mut step = part.rest;
            for (pod, write) in part.records {
                let record = match write {
                    Write::Final(record) => record.map(|record| *record),
                    Write::Without(links) => {
                        let record = records.get_mut(&pod);
                        let record = record.expect("links are removed from records of `before`");
                        record.links.retain(|link| !links.contains(&link.id()));
                        Some(record.clone())
                    }
                };
                step.records.insert(pod, record);
            }
            steps.push(step);
        }
        steps
    }

    /// The pod's record with the mark that it is leaving. `None` if it stays or has the mark
    /// already.
    fn leaving(&self) -> Option<PodRecord> {
        let before = self.before.get(&self.pod)?;
        (self.is_removal() && before.lives()).then(|| PodRecord {
            location: before.location.clone().map(|location| Location {
                leaving: true,
                ..location
            }),
            ..before.clone()
        })
    }
}
