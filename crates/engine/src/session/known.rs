//! What this agent knows of the pods that concern its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use ratchet_model::{DeclaredLink, LinkId, PodKey, PodRecord, record::Facts};

use super::vnis::Vnis;

/// For how long a declaration is believed that the store has lost. Its declarer's agent says it
/// again as soon as it can reach the store.
pub(crate) const MEMORY: Duration = Duration::from_secs(600);

/// The facts at hand, with an index of who declares links with whom.
#[derive(Debug, Default)]
pub(crate) struct Known {
    records: BTreeMap<PodKey, PodRecord>,
    /// By pod: the pods that declare a link with it.
    declarers: BTreeMap<PodKey, BTreeSet<PodKey>>,
    vnis: Vnis,
    /// Pods whose neighbours may have changed since that was last asked.
    touched: BTreeSet<PodKey>,
    /// Pods whose records the store has lost, and when that was noticed.
    lost: BTreeMap<PodKey, Instant>,
    /// Pods that were known, and of which the store then had no record any more, while it had those
    /// of pods that declare links with them.
    gone: BTreeSet<PodKey>,
}

impl Known {
    /// A pod's record.
    pub fn record(&self, pod: &PodKey) -> Option<&PodRecord> {
        self.records.get(pod)
    }

    /// Whether a pod without a record is known to have ended, and not just unknown yet.
    pub fn has_gone(&self, pod: &PodKey) -> bool {
        self.gone.contains(pod)
    }

    /// The VNIs of links.
    pub fn vnis(&self) -> &Vnis {
        &self.vnis
    }

    /// The same, to change them.
    pub fn vnis_mut(&mut self) -> &mut Vnis {
        &mut self.vnis
    }

    /// The pods whose neighbours may have changed since this was last asked.
    pub fn take_touched(&mut self) -> BTreeSet<PodKey> {
        std::mem::take(&mut self.touched)
    }

    /// The pods that `pod` declares links with or that declare links with it.
    pub fn neighbours(&self, pod: &PodKey) -> BTreeSet<PodKey> {
        let peers = self.records.get(pod).into_iter().flat_map(PodRecord::peers);
        peers
            .chain(self.declarers.get(pod).into_iter().flatten())
            .cloned()
            .collect()
    }

    /// How many links are declared with a pod. (One that both its pods declare counts twice.)
    pub fn links_with(&self, pod: &PodKey) -> usize {
        let declared = |record: &PodRecord| {
            record
                .links
                .iter()
                .filter(|link| link.remote.pod == *pod)
                .count()
        };
        let declarers = self
            .declarers
            .get(pod)
            .into_iter()
            .flatten()
            .filter_map(|pod| self.records.get(pod));
        self.records.get(pod).map_or(0, |record| record.links.len())
            + declarers.map(declared).sum::<usize>()
    }

    /// These pods and their neighbours.
    pub fn with_neighbours(&self, pods: &BTreeSet<PodKey>) -> BTreeSet<PodKey> {
        pods.iter()
            .flat_map(|pod| self.neighbours(pod))
            .chain(pods.iter().cloned())
            .collect()
    }

    /// The records that decide about the links of these pods: theirs, their neighbours', and those
    /// of the neighbours' neighbours, which may claim the same interface.
    pub fn around(&self, pods: &BTreeSet<PodKey>) -> Vec<&PodRecord> {
        let mut all = pods.clone();
        for _ in 0..2 {
            let next: Vec<_> = all.iter().flat_map(|pod| self.neighbours(pod)).collect();
            all.extend(next);
        }
        all.iter().filter_map(|pod| self.records.get(pod)).collect()
    }

    /// The pods of these links, as far as they are declared. It goes through all records there
    /// are.
    pub fn pods_of(&self, links: &BTreeSet<LinkId>) -> BTreeSet<PodKey> {
        if links.is_empty() {
            return BTreeSet::new();
        }
        let declared = self
            .records
            .values()
            .flat_map(|record| &record.links)
            .filter(|link| links.contains(&link.id()));
        declared
            .flat_map(|link| [&link.local.pod, &link.remote.pod])
            .cloned()
            .collect()
    }

    /// Puts one record in place (`None` removes it).
    pub fn set(&mut self, pod: &PodKey, record: Option<PodRecord>) {
        let old = self.records.get(pod).into_iter().chain(&record);
        self.touched.extend(old.flat_map(PodRecord::peers).cloned());
        self.touched.insert(pod.clone());
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
                self.declarers
                    .entry(peer.clone())
                    .or_default()
                    .insert(pod.clone());
            }
            self.gone.remove(pod);
            self.records.insert(pod.clone(), record);
        } else {
            self.gone.retain(|pod| self.declarers.contains_key(pod));
        }
    }

    /// Whether to go on believing a record that the store no longer has. A pod that declares a link
    /// with one that lives is never removed from a store: one that is missing there was lost with
    /// all the rest (etcd was wiped, or restored from a backup), and links must not be cut for
    /// that.
    fn is_lost(
        &mut self,
        pod: &PodKey,
        lives_here: impl Fn(&PodKey) -> bool,
        now: Instant,
    ) -> bool {
        let is_declarer = self
            .records
            .get(pod)
            .is_some_and(|record| record.peers().into_iter().any(&lives_here));
        if !is_declarer || lives_here(pod) {
            return false;
        }
        let since = self.lost.entry(pod.clone()).or_insert_with(|| {
            tracing::warn!(%pod, "the store has lost the pod's record; waiting for its agent to \
                                  say it again");
            now
        });
        now.duration_since(*since) < MEMORY
    }

    /// Pods that declare links with `own` ones, as far as is known, and of which the store says
    /// nothing any more when asked for `own`.
    pub fn missing_declarers(&self, own: &BTreeSet<PodKey>, facts: &Facts) -> BTreeSet<PodKey> {
        let declarers = own
            .iter()
            .filter_map(|pod| self.declarers.get(pod))
            .flatten();
        declarers
            .filter(|pod| !own.contains(pod) && !facts.records.contains_key(pod))
            .cloned()
            .collect()
    }

    /// Takes what the store says about these pods themselves: what they declare now. Returns those
    /// of which it has no record at all.
    pub fn correct(
        &mut self,
        mut pods: BTreeSet<PodKey>,
        mut facts: Facts,
        is_own: impl Fn(&PodKey) -> bool,
    ) -> BTreeSet<PodKey> {
        pods.retain(|pod| {
            let Some(record) = facts.records.remove(pod) else {
                return true;
            };
            self.set(pod, Some(record));
            if !self.neighbours(pod).iter().any(&is_own) {
                self.set(pod, None);
            }
            false
        });
        pods
    }

    /// Takes what the store said about `own` pods in place of what was known about them. `absent`
    /// are pods of which it has no record at all, `is_own` tells for which other pods a record
    /// still matters, `lives_here` which pods have a sandbox here that is not leaving.
    pub fn merge(
        &mut self,
        own: &BTreeSet<PodKey>,
        facts: Facts,
        absent: &BTreeSet<PodKey>,
        is_own: impl Fn(&PodKey) -> bool,
        lives_here: impl Fn(&PodKey) -> bool,
        now: Instant,
    ) {
        let around = self.with_neighbours(own);
        // The store was asked for the VNIs of own pods' links; those of a neighbour's other links
        // stand.
        self.vnis.merge(&self.links_of(own, &around), facts.vnis);
        // Of the pods with which own ones declare links the store was asked for all that it has.
        let said = own.iter().filter_map(|pod| facts.records.get(pod));
        let declared: BTreeSet<PodKey> = said.flat_map(PodRecord::peers).cloned().collect();
        for pod in around {
            if facts.records.contains_key(&pod) {
                self.lost.remove(&pod);
                continue;
            }
            // Its own reading tells.
            if is_own(&pod) && !own.contains(&pod) {
                continue;
            }
            let is_absent = absent.contains(&pod) || declared.contains(&pod);
            let concerns_others = !is_absent
                && self
                    .neighbours(&pod)
                    .iter()
                    .any(|other| is_own(other) && !own.contains(other));
            let stays =
                !own.contains(&pod) && (concerns_others || self.is_lost(&pod, &lives_here, now));
            if self.records.contains_key(&pod) && !stays {
                self.lost.remove(&pod);
                self.set(&pod, None);
                // A store that has lost everything has not the declarer's record either.
                if declared.contains(&pod) {
                    self.gone.insert(pod);
                }
            }
        }
        for (pod, record) in facts.records {
            if self.records.get(&pod) != Some(&record) {
                self.set(&pod, Some(record));
            }
        }
    }

    /// The links of `own` pods that these pods declare.
    fn links_of(&self, own: &BTreeSet<PodKey>, declarers: &BTreeSet<PodKey>) -> BTreeSet<LinkId> {
        declarers
            .iter()
            .filter_map(|pod| self.records.get(pod))
            .flat_map(|record| &record.links)
            .filter(|link| own.contains(&link.local.pod) || own.contains(&link.remote.pod))
            .map(DeclaredLink::id)
            .collect()
    }
}

#[cfg(test)]
mod tests;
