//! What is in the store, and how it changes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{
    DeclaredLink, LinkId, NodeName, PodKey, PodRecord, SandboxId, Vni, VniRange,
    record::{Facts, living_links},
};
use ratchet_store::{
    Publish, Published, VniClaim, VniGrant,
    change::{Limits, Publication, RecordChange, is_removed, peers_of_gone},
    vni::{Decision, Owner},
};

/// Everything but who is alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Records by pod.
    pub records: BTreeMap<PodKey, PodRecord>,
    /// VNIs by link.
    pub vnis: BTreeMap<LinkId, Vni>,
    /// What nodes hold: VNIs, with the links for which they claimed them.
    pub held: BTreeMap<(Vni, NodeName), LinkId>,
    /// VNIs of other devices of nodes.
    pub blocked: BTreeSet<(NodeName, Vni)>,
    /// Nodes that may have records.
    pub nodes: BTreeSet<NodeName>,
}

/// A record that has changed: before, and after.
pub type Changed = (Option<PodRecord>, Option<PodRecord>);

impl Contents {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.size() == 0
    }

    /// How many facts there are.
    pub fn size(&self) -> usize {
        let vnis = self.vnis.len() + self.held.len() + self.blocked.len();
        self.records.len() + vnis + self.nodes.len()
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
        Facts {
            records,
            vnis,
            declared: None,
        }
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

    /// Gives VNIs to links of a node, which holds them. Returns the grants.
    pub fn claim(&mut self, node: &NodeName, claims: &[VniClaim]) -> BTreeMap<LinkId, VniGrant> {
        let pods = claims
            .iter()
            .flat_map(|claim| &claim.pods)
            .cloned()
            .collect();
        let records = self.of(&pods);
        let living = living_links(&records);
        let located = records
            .values()
            .filter_map(|record| record.location.as_ref());
        let mut nodes: BTreeSet<NodeName> = located.map(|at| at.node.clone()).collect();
        nodes.insert(node.clone());
        let mut grants = BTreeMap::new();
        // First those that insist, so that a link which takes any number does not take theirs.
        let (insisting, others): (Vec<_>, Vec<_>) = claims
            .iter()
            .partition(|claim| claim.fixed.or(claim.former).is_some());
        for claim in insisting.into_iter().chain(others) {
            let has = self.vnis.get(&claim.link).copied();
            let owner = |vni| Ok::<_, std::convert::Infallible>(self.owner(vni, &nodes));
            let lowest = || {
                let is_free = |vni: &Vni| self.owner(*vni, &nodes) == Owner::Nothing;
                Ok(VniRange::AUTOMATIC.vnis().find(is_free))
            };
            let is_declared = living.contains_key(&claim.link);
            let Ok(decision) = Decision::on(claim, has, is_declared, owner, lowest);
            let grant = match decision {
                Decision::Refuse(grant) => grant,
                Decision::Keep(vni) | Decision::Take(vni) => {
                    self.vnis.insert(claim.link, vni);
                    self.held.insert((vni, node.clone()), claim.link);
                    VniGrant::Granted(vni)
                }
            };
            grants.insert(claim.link, grant);
        }
        grants
    }

    fn owner(&self, vni: Vni, nodes: &BTreeSet<NodeName>) -> Owner {
        let is_blocked = |node: &&NodeName| self.blocked.contains(&((*node).clone(), vni));
        if let Some(node) = nodes.iter().find(is_blocked) {
            return Owner::Foreign(node.clone());
        }
        let having = self.vnis.iter().find(|(_, taken)| **taken == vni);
        let holding = self.held.iter().find(|((held, _), _)| *held == vni);
        let link = having
            .map(|(link, _)| link)
            .or(holding.map(|(_, link)| link));
        link.copied().map_or(Owner::Nothing, Owner::Link)
    }

    /// Whether no link has a VNI and no node holds it.
    pub fn is_free(&self, vni: Vni) -> bool {
        self.owner(vni, &BTreeSet::new()) == Owner::Nothing
    }

    /// A node no longer holds VNIs.
    pub fn release(&mut self, node: &NodeName, vnis: &BTreeSet<Vni>) {
        self.held
            .retain(|(vni, holder), _| holder != node || !vnis.contains(vni));
    }

    /// What a node holds.
    pub fn held_by(&self, node: &NodeName) -> BTreeMap<Vni, LinkId> {
        let held = self.held.iter().filter(|((_, holder), _)| holder == node);
        held.map(|((vni, _), link)| (*vni, *link)).collect()
    }
}
