//! What the controller remembers from one plan to the next. It may be lost at any time: then things
//! take longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use ratchet_api::{Accepted, meshnet::Status};
use ratchet_model::Vni;

use crate::{
    derived::Derived,
    events::Warned,
    snapshot::{Key, Snapshot},
};

/// An entry without a Link is looked at so many times before it is dropped.
const LOOKS: u32 = 3;

/// The time between two looks.
pub(crate) const BETWEEN_LOOKS: SignedDuration = SignedDuration::from_secs(20);

/// An entry without a Link: the VNI, and the Link's `namespace/name`.
pub type Orphan = (Vni, String);

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    /// What followed from the declarations of the last snapshot.
    pub(crate) derived: Option<Arc<Derived>>,
    /// Since when nodes are gone that Links name.
    gone: BTreeMap<String, Timestamp>,
    /// The looks at entries without a Link: how many, and the last.
    looks: BTreeMap<Orphan, (u32, Timestamp)>,
    /// The entries of which the API was asked, and that have no Link indeed.
    confirmed: BTreeSet<Orphan>,
    /// Since when Links are not accepted, and why.
    troubles: BTreeMap<Key, (Accepted, Timestamp)>,
    /// When the status of Topologies was written last.
    told: BTreeMap<Key, Timestamp>,
    /// Which warnings were posted.
    pub(crate) warned: Warned,
    /// What was written last of meshnet's Topologies.
    pub(crate) meshnet: BTreeMap<Key, Told>,
}

/// A status that was written.
#[derive(Debug)]
pub(crate) struct Told {
    /// What.
    pub status: Status,
    /// To which version of the object.
    pub version: Option<String>,
    /// When.
    pub at: Timestamp,
}

impl Memory {
    /// Notes which of these nodes are gone.
    pub(crate) fn see_nodes<'a>(
        &mut self,
        snapshot: &Snapshot,
        named: impl Iterator<Item = &'a str>,
        now: Timestamp,
    ) {
        let gone: BTreeSet<&str> = named
            .filter(|node| !snapshot.nodes.contains_key(*node))
            .collect();
        self.gone.retain(|node, _| gone.contains(&**node));
        for node in gone {
            self.gone.entry(node.to_owned()).or_insert(now);
        }
    }

    /// For how long a node has been gone.
    pub(crate) fn gone_for(&self, node: &str, now: Timestamp) -> Option<SignedDuration> {
        self.gone.get(node).map(|since| now.duration_since(*since))
    }

    /// Looks at the entries without a Link. Returns those of which the API should be asked, and
    /// those that can be dropped.
    pub(crate) fn look(
        &mut self,
        orphans: &BTreeSet<Orphan>,
        now: Timestamp,
    ) -> (Vec<Orphan>, Vec<Orphan>) {
        self.looks.retain(|orphan, _| orphans.contains(orphan));
        self.confirmed.retain(|orphan| orphans.contains(orphan));
        for orphan in orphans {
            let (count, last) = self.looks.entry(orphan.clone()).or_insert((1, now));
            if now.duration_since(*last) >= BETWEEN_LOOKS {
                *count += 1;
                *last = now;
            }
        }
        let seen = self.looks.iter().filter(|(_, (count, _))| *count >= LOOKS);
        let seen = seen.map(|(orphan, _)| orphan.clone());
        seen.partition(|orphan| !self.confirmed.contains(orphan))
    }

    /// Notes that the API was asked, and has no Link with that VNI.
    pub fn confirm(&mut self, orphan: Orphan) {
        self.confirmed.insert(orphan);
    }

    /// Since when a Link is not accepted for this reason.
    pub(crate) fn troubled_since(
        &mut self,
        key: &Key,
        reason: Accepted,
        now: Timestamp,
    ) -> Timestamp {
        let trouble = self.troubles.entry(key.clone()).or_insert((reason, now));
        if trouble.0 != reason {
            *trouble = (reason, now);
        }
        trouble.1
    }

    /// Forgets the troubles of Links that have none.
    pub(crate) fn keep_troubles(&mut self, is_troubled: impl Fn(&Key) -> bool) {
        self.troubles.retain(|key, _| is_troubled(key));
    }

    /// Forgets Topologies that are gone.
    pub(crate) fn keep_told(&mut self, is_there: impl Fn(&Key) -> bool) {
        self.told.retain(|key, _| is_there(key));
    }

    /// When a Topology's status was written last.
    pub(crate) fn told(&self, topology: &Key) -> Option<Timestamp> {
        self.told.get(topology).copied()
    }

    /// Notes that a Topology's status is written now.
    pub(crate) fn tell(&mut self, topology: &Key, now: Timestamp) {
        self.told.insert(topology.clone(), now);
    }
}
