//! The consequences of a change of one pod's record, as a value that is the same for all backends.
//!
//! A backend reads the records that a change depends on, computes the consequences with this
//! module, and encodes the [`Step`]s. This module reads and writes nothing and knows no backend.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{DeclaredLink, LinkId, NodeName, PodKey, PodRecord, SandboxId};

use crate::Publish;

mod parts;
mod steps;
#[cfg(test)]
mod tests;

pub use steps::{IndexChange, IndexEntry, Limits, Step};

/// What a publication changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// The store has a later sandbox of the pod. Nothing is written.
    Superseded,
    /// Another pod has the name, and lives. Nothing is written.
    Held {
        /// What the runtime calls it.
        owner: String,
        /// Its node.
        node: NodeName,
    },
    /// The store has this record already. Nothing is written, so that no watch reports it.
    Unchanged(PodRecord),
    /// This record must be written.
    Write(PodRecord),
}

impl Publication {
    /// Decides on a publication when the store has `previous`.
    pub fn new(record: &PodRecord, previous: Option<&PodRecord>, how: Publish) -> Self {
        if let Some((owner, node)) = previous.and_then(PodRecord::holder)
            && record.owner.as_deref().is_some_and(|other| other != owner)
        {
            return Self::Held {
                owner: owner.to_owned(),
                node: node.clone(),
            };
        }
        let Some(created) = created(record, previous, how) else {
            return Self::Superseded;
        };
        let next = PodRecord {
            created,
            ..record.clone()
        };
        if previous == Some(&next) {
            Self::Unchanged(next)
        } else {
            Self::Write(next)
        }
    }
}

/// The `created` to store with a record. `None`: the store has a later sandbox, which has not
/// departed.
fn created(record: &PodRecord, previous: Option<&PodRecord>, how: Publish) -> Option<u64> {
    let Some(previous) = previous else {
        return Some(record.created);
    };
    match how {
        Publish::New => Some(record.created.max(previous.created.saturating_add(1))),
        Publish::Again if previous.sandbox() == record.sandbox() => {
            Some(record.created.max(previous.created))
        }
        // Never less than before: what is new must be later than any sandbox that may come back.
        Publish::Again if previous.location.is_none() => Some(record.created.max(previous.created)),
        Publish::Again => (order(previous) < order(record)).then_some(record.created),
    }
}

/// The order of a pod's sandboxes. Two may have the same `created`, on two nodes.
fn order(record: &PodRecord) -> (u64, Option<&SandboxId>) {
    (record.created, record.sandbox())
}

/// Whether removing this sandbox changes anything when the store has `previous`. A late DEL of an
/// old sandbox does not remove the pod.
pub fn is_removed(previous: Option<&PodRecord>, sandbox: &SandboxId) -> bool {
    previous.is_some_and(|record| record.sandbox() == Some(sandbox))
}

/// Whether a record that replaces `previous` drops a link. If not, its publication depends on no
/// other record. If so, it depends on the records of the pods that declare a link with the pod, and
/// of the pod's peers before and after: a link that another record also declares does not end.
pub fn drops_links(previous: Option<&PodRecord>, next: &PodRecord) -> bool {
    previous.is_some_and(|previous| !ids(previous).is_subset(&ids(next)))
}

/// The peers of the gone pods among these. To remove a pod, a store needs the records that concern
/// it and those of these peers: whether the record of a gone pod is still needed depends on the
/// gone pod's other peers.
pub fn peers_of_gone(records: &BTreeMap<PodKey, PodRecord>) -> BTreeSet<PodKey> {
    records
        .values()
        .filter(|record| !record.lives())
        .flat_map(PodRecord::peers)
        .cloned()
        .collect()
}

/// A change of one pod's record, with its consequences for the rest of the store.
#[derive(Debug)]
pub struct RecordChange<'a> {
    pod: PodKey,
    /// The records that the change depends on, from before it.
    before: &'a BTreeMap<PodKey, PodRecord>,
    /// The pod's record after the change. `None`: the pod has none.
    record: Option<PodRecord>,
    /// Other pods whose records are deleted: they are gone, and no pod needs their records.
    forgotten: BTreeSet<PodKey>,
    /// Links that end: their VNIs are freed.
    ended: BTreeSet<LinkId>,
}

impl<'a> RecordChange<'a> {
    /// The pod's record becomes `next`. `before` has the pod's own record and, if the change
    /// [`drops_links`], the records that are named there.
    pub fn publish(next: PodRecord, before: &'a BTreeMap<PodKey, PodRecord>) -> Self {
        Self::new(next.pod.clone(), Some(next), before)
    }

    /// The pod's sandbox is gone. `before` has the records that concern the pod
    /// ([`ratchet_model::record::Facts`]) and those of [`peers_of_gone`].
    ///
    /// A gone pod keeps its record, without a location, while one of its peers lives: the peer's
    /// interface does not change until the pod comes back.
    pub fn remove(pod: &PodKey, before: &'a BTreeMap<PodKey, PodRecord>) -> Self {
        let gone = before.get(pod).map(|record| PodRecord {
            location: None,
            ..record.clone()
        });
        Self::new(pod.clone(), gone, before)
    }

    fn new(pod: PodKey, next: Option<PodRecord>, before: &'a BTreeMap<PodKey, PodRecord>) -> Self {
        let Some(next) = next else {
            return Self {
                pod,
                before,
                record: None,
                forgotten: BTreeSet::new(),
                ended: BTreeSet::new(),
            };
        };
        let is_there = next.lives();
        let lives = |other: &PodKey| match *other == pod {
            true => is_there,
            false => before.get(other).is_some_and(PodRecord::lives),
        };
        let is_needed =
            |record: &PodRecord| record.lives() || record.peers().into_iter().any(lives);
        let forgotten: BTreeSet<PodKey> = before
            .values()
            // A pod that is still leaving is deleted by its own removal, which needs the record to
            // know what is left to do.
            .filter(|record| record.pod != pod && record.location.is_none())
            .filter(|record| record.peers().contains(&pod) && !is_needed(record))
            .map(|record| record.pod.clone())
            .collect();
        let record = Some(next).filter(is_needed);
        let ended = ended(&pod, record.as_ref(), before, &forgotten, lives);
        Self {
            pod,
            before,
            record,
            forgotten,
            ended,
        }
    }

    /// The links that end with the change.
    pub fn ended(&self) -> &BTreeSet<LinkId> {
        &self.ended
    }

    /// Whether the pod is gone after the change.
    fn is_removal(&self) -> bool {
        self.record.as_ref().is_none_or(|record| !record.lives())
    }
}

/// The links that end: no record declares them any more, or both of their pods are gone, even if
/// one of their records is kept for another link.
fn ended(
    pod: &PodKey,
    record: Option<&PodRecord>,
    before: &BTreeMap<PodKey, PodRecord>,
    forgotten: &BTreeSet<PodKey>,
    lives: impl Fn(&PodKey) -> bool,
) -> BTreeSet<LinkId> {
    let kept: Vec<&PodRecord> = before
        .values()
        .filter(|other| other.pod != *pod && !forgotten.contains(&other.pod))
        .collect();
    let is_alive = |link: &&DeclaredLink| lives(&link.local.pod) || lives(&link.remote.pod);
    let remaining: BTreeSet<LinkId> = kept
        .iter()
        .copied()
        .chain(record)
        .flat_map(|record| record.links.iter().filter(is_alive).map(DeclaredLink::id))
        .collect();
    let of_pod = |link: &&DeclaredLink| link.local.pod == *pod || link.remote.pod == *pod;
    forgotten
        .iter()
        .chain([pod])
        .filter_map(|pod| before.get(pod))
        .flat_map(|record| &record.links)
        .chain(
            kept.iter()
                .flat_map(|record| record.links.iter().filter(of_pod)),
        )
        .map(DeclaredLink::id)
        .filter(|link| !remaining.contains(link))
        .collect()
}

fn ids(record: &PodRecord) -> BTreeSet<LinkId> {
    record.links.iter().map(DeclaredLink::id).collect()
}
