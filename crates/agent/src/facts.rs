//! What this agent has heard of the pods that concern its own.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, PodKey, PodRecord, Vni, record::Facts};

/// The facts at hand, with an index of who declares links with whom.
#[derive(Debug, Default)]
pub(crate) struct Known {
    records: BTreeMap<PodKey, PodRecord>,
    vnis: BTreeMap<LinkId, Vni>,
    /// By pod: the pods that declare a link with it.
    declarers: BTreeMap<PodKey, BTreeSet<PodKey>>,
}

impl Known {
    /// A pod's record.
    pub fn record(&self, pod: &PodKey) -> Option<&PodRecord> {
        self.records.get(pod)
    }

    /// A link's VNI.
    pub fn vni(&self, link: LinkId) -> Option<Vni> {
        self.vnis.get(&link).copied()
    }

    /// Notes a VNI that was claimed.
    pub fn set_vni(&mut self, link: LinkId, vni: Vni) {
        self.vnis.insert(link, vni);
    }

    /// The pods that `pod` declares links with or that declare links with it.
    pub fn neighbours(&self, pod: &PodKey) -> BTreeSet<PodKey> {
        let peers = self.records.get(pod).into_iter().flat_map(PodRecord::peers);
        peers.chain(self.declarers.get(pod).into_iter().flatten()).cloned().collect()
    }

    /// The records that decide about the links of these pods: theirs, their neighbours', and those of the neighbours' neighbours,
    /// which may claim the same interface.
    pub fn around(&self, pods: &BTreeSet<PodKey>) -> BTreeMap<PodKey, PodRecord> {
        let mut all = pods.clone();
        for _ in 0..2 {
            let next: Vec<_> = all.iter().flat_map(|pod| self.neighbours(pod)).collect();
            all.extend(next);
        }
        all.into_iter()
            .filter_map(|pod| self.records.get_key_value(&pod))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// All records.
    pub fn all(&self) -> &BTreeMap<PodKey, PodRecord> {
        &self.records
    }

    /// Puts one record in place (`None` removes it).
    pub fn set(&mut self, pod: &PodKey, record: Option<PodRecord>) {
        if let Some(old) = self.records.remove(pod) {
            for peer in old.peers() {
                if let Some(declarers) = self.declarers.get_mut(peer) {
                    declarers.remove(pod);
                    if declarers.is_empty() {
                        self.declarers.remove(peer);
                    }
                }
            }
        }
        if let Some(record) = record {
            for peer in record.peers() {
                self.declarers.entry(peer.clone()).or_default().insert(pod.clone());
            }
            self.records.insert(pod.clone(), record);
        }
    }

    /// Takes what the store said about `own` pods in place of what was known about them. `is_own` tells for which other pods a record
    /// still matters.
    ///
    /// Gives the pods whose record is not what it was.
    pub fn merge(
        &mut self,
        own: &BTreeSet<PodKey>,
        facts: Facts,
        is_own: impl Fn(&PodKey) -> bool,
    ) -> BTreeSet<PodKey> {
        let mut changed = BTreeSet::new();
        let before: BTreeSet<PodKey> =
            own.iter().flat_map(|pod| self.neighbours(pod)).chain(own.iter().cloned()).collect();
        for pod in before {
            let concerns_others = || self.neighbours(&pod).iter().any(|other| is_own(other) && !own.contains(other));
            let absent = !facts.records.contains_key(&pod) && self.records.contains_key(&pod);
            if absent && (own.contains(&pod) || !concerns_others()) {
                self.set(&pod, None);
                changed.insert(pod);
            }
        }
        for (pod, record) in facts.records {
            // The store was asked for the VNIs of own pods' links; those of a neighbour's other links stand.
            for link in
                record.links.iter().filter(|link| own.contains(&link.local.pod) || own.contains(&link.remote.pod))
            {
                self.vnis.remove(&link.id());
            }
            if self.records.get(&pod) != Some(&record) {
                self.set(&pod, Some(record));
                changed.insert(pod);
            }
        }
        self.vnis.extend(facts.vnis);
        changed
    }

    /// Drops VNIs of links that nobody declares any more.
    pub fn forget_vnis(&mut self, ended: &BTreeSet<LinkId>) {
        self.vnis.retain(|link, _| !ended.contains(link));
    }
}
