//! A change as steps, each of which a backend does atomically.
//!
//! A backend without a limit gets one step. etcd takes a limited number of operations at a time, so
//! a large change takes several steps. After each of them the store says something that may well be
//! true:
//!
//! * The step that frees a link's VNI also takes the link out of the records that declare it,
//!   unless these are kept. Otherwise another agent could claim a VNI for the link again, and no
//!   agent would ever free that one.
//! * A pod that is removed is marked as leaving first.
//! * The pod's own record is written or deleted last. An agent that is interrupted has the pod on
//!   its disk and repeats the change; the record in the store says what is left to do. So a record
//!   that is marked as leaving is never deleted by the removal of another pod.

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
    /// It is there and stays. It is written again, so that a removal of the peer which is under way
    /// fails its condition [`Step::declarers_unchanged`]. A backend that does the whole change in
    /// one transaction need not do this.
    Touch,
    /// It is deleted.
    Remove,
}

/// What a backend writes at once, and on which conditions.
///
/// The conditions are for a backend that does not read and write in one transaction. They are
/// compared with what the backend has read for this change, or has written in an earlier step. If
/// one does not hold, the change is to be computed again. The record of the changed pod itself must
/// be unchanged in every step; it is not listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Records as they are after the step. `None`: the record is deleted.
    pub records: BTreeMap<PodKey, Option<PodRecord>>,
    /// Entries of the index that change.
    pub index: BTreeMap<IndexEntry, IndexChange>,
    /// Links that end, and the VNIs that are freed with them. Condition: the links still have these
    /// VNIs. Otherwise they are free already, and may be other links'.
    pub freed: BTreeMap<LinkId, Vni>,
    /// Links that end and have no VNI. Condition: they have not been given one, since no agent
    /// would free it.
    pub unnumbered: BTreeSet<LinkId>,
    /// Condition: the records of these pods are unchanged.
    pub unchanged: BTreeSet<PodKey>,
    /// Condition: no entry of the changed pod's index is new or was touched.
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
    /// Records, index entries and freed VNIs.
    pub operations: usize,
    /// [`Step::unchanged`] and [`Step::unnumbered`].
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
    /// The change as steps, as few as the limits allow. The order matters. `vnis` are the VNIs of
    /// those links of [`RecordChange::ended`] that have one. A backend that frees a VNI without
    /// knowing it leaves this empty.
    pub fn steps(&self, vnis: &BTreeMap<LinkId, Vni>, limits: Limits) -> Vec<Step> {
        self.with_records(parts(self, vnis, limits))
    }

    /// Turns parts, which say what is taken out of records, into steps, which have the records.
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
                    Write::Final(record) => record,
                    Write::Without(links) => {
                        let record = records.get_mut(&pod);
                        let record = record.expect("links are taken out of records of `before`");
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

    /// The pod's record with the mark that it is about to leave, if it leaves and has no mark yet.
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
