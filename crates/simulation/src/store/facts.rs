//! What is in the store, and how it changes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{
    DeclaredLink, LinkId, NodeName, PodKey, PodRecord, SandboxId, Vni,
    record::{Facts, living_links},
};
use ratchet_store::{
    Publish, Published, VniClaim, VniGrant,
    change::{Limits, Publication, RecordChange, is_removed, peers_of_gone},
};

/// Everything but who is alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Records by pod.
    pub records: BTreeMap<PodKey, PodRecord>,
    /// VNIs by link.
    pub vnis: BTreeMap<LinkId, Vni>,
    /// Nodes that may have records.
    pub nodes: BTreeSet<NodeName>,
}

/// A record that has changed: before, and after.
pub type Changed = (Option<PodRecord>, Option<PodRecord>);

impl Contents {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.vnis.is_empty() && self.nodes.is_empty()
    }

    /// The records that concern these pods, and their links' VNIs.
    pub fn read(&self, own: &BTreeSet<PodKey>) -> Facts {
        let mut pods = own.clone();
        for pod in own {
            pods.extend(self.declarers(pod));
            let own = self.records.get(pod).into_iter();
            pods.extend(own.flat_map(PodRecord::peers).cloned());
        }
        let records = self.of(&pods);
        let is_own =
            |link: &&DeclaredLink| own.contains(&link.local.pod) || own.contains(&link.remote.pod);
        let links = records
            .values()
            .flat_map(|record| &record.links)
            .filter(is_own);
        let vnis = links
            .filter_map(|link| Some((link.id(), *self.vnis.get(&link.id())?)))
            .collect();
        Facts { records, vnis }
    }

    fn of(&self, pods: &BTreeSet<PodKey>) -> BTreeMap<PodKey, PodRecord> {
        let found = pods.iter().filter_map(|pod| self.records.get(pod));
        found
            .map(|record| (record.pod.clone(), record.clone()))
            .collect()
    }

    fn declarers(&self, pod: &PodKey) -> impl Iterator<Item = PodKey> {
        let declare = |record: &&PodRecord| record.peers().contains(pod);
        let declarers: Vec<PodKey> = self
            .records
            .values()
            .filter(declare)
            .map(|record| record.pod.clone())
            .collect();
        declarers.into_iter()
    }

    /// The records on a node.
    pub fn located_on(&self, node: &NodeName) -> Vec<PodRecord> {
        let is_there = |record: &&PodRecord| {
            let location = record.location.as_ref();
            location.is_some_and(|location| location.node == *node)
        };
        self.records.values().filter(is_there).cloned().collect()
    }

    /// Publishes a record. Returns what that comes to, and what has changed.
    pub fn publish(&mut self, record: &PodRecord, how: Publish) -> (Published, Vec<Changed>) {
        let previous = self.records.get(&record.pod);
        match Publication::new(record, previous, how) {
            Publication::Superseded => (Published::Superseded, Vec::new()),
            Publication::Held { owner, node } => (Published::Held { owner, node }, Vec::new()),
            Publication::Unchanged(PodRecord { created, .. }) => {
                (Published::Stored { created }, Vec::new())
            }
            Publication::Write(next) => {
                let created = next.created;
                let before = self.around(&record.pod, Some(&next));
                let changed = self.write(&RecordChange::publish(next, &before));
                (Published::Stored { created }, changed)
            }
        }
    }

    /// Removes a pod, if its record is of this sandbox.
    pub fn remove_pod(&mut self, pod: &PodKey, sandbox: &SandboxId) -> Vec<Changed> {
        if !is_removed(self.records.get(pod), sandbox) {
            return Vec::new();
        }
        let mut before = self.around(pod, None);
        before.extend(self.of(&peers_of_gone(&before)));
        self.write(&RecordChange::remove(pod, &before))
    }

    /// The records that concern a pod, now and when `next` is its record.
    fn around(&self, pod: &PodKey, next: Option<&PodRecord>) -> BTreeMap<PodKey, PodRecord> {
        let mut pods: BTreeSet<PodKey> = self.declarers(pod).collect();
        pods.insert(pod.clone());
        let own = self.records.get(pod).into_iter().chain(next);
        pods.extend(own.flat_map(PodRecord::peers).cloned());
        self.of(&pods)
    }

    /// Does a change in one step.
    fn write(&mut self, change: &RecordChange<'_>) -> Vec<Changed> {
        let mut changed = Vec::new();
        for step in change.steps(&BTreeMap::new(), Limits::NONE) {
            for link in step.ended() {
                self.vnis.remove(&link);
            }
            for (pod, record) in step.records {
                let before = self.records.remove(&pod);
                self.records
                    .extend(record.clone().map(|record| (pod, record)));
                changed.push((before, record));
            }
        }
        changed
    }

    /// Gives VNIs. Returns the grants, and whether anything has changed.
    pub fn claim(&mut self, claims: &[VniClaim]) -> (BTreeMap<LinkId, VniGrant>, bool) {
        let pods = claims
            .iter()
            .flat_map(|claim| &claim.pods)
            .cloned()
            .collect();
        let living = living_links(&self.of(&pods));
        let mut grants = BTreeMap::new();
        // First those that insist, so that a link which takes any number does not take theirs.
        let (fixed, any): (Vec<_>, Vec<_>) = claims.iter().partition(|claim| claim.fixed.is_some());
        let mut has_changed = false;
        for claim in fixed.into_iter().chain(any) {
            let grant = match (self.vnis.get(&claim.link), claim.fixed) {
                (Some(vni), _) => VniGrant::Granted(*vni),
                _ if !living.contains_key(&claim.link) => VniGrant::NotDeclared,
                (None, Some(vni)) => self.take(claim.link, vni),
                (None, None) => {
                    let taken: BTreeSet<Vni> = self.vnis.values().copied().collect();
                    match Vni::lowest_free(taken) {
                        Some(vni) => self.take(claim.link, vni),
                        None => VniGrant::Exhausted,
                    }
                }
            };
            has_changed |= matches!(grant, VniGrant::Granted(_));
            grants.insert(claim.link, grant);
        }
        (grants, has_changed)
    }

    fn take(&mut self, link: LinkId, vni: Vni) -> VniGrant {
        let owner = self.vnis.iter().find(|(_, taken)| **taken == vni);
        if let Some((owner, _)) = owner {
            return VniGrant::TakenBy(*owner);
        }
        self.vnis.insert(link, vni);
        VniGrant::Granted(vni)
    }
}
