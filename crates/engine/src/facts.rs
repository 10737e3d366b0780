//! What this agent has heard of the pods that concern its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use ratchet_model::{DeclaredLink, LinkId, PodKey, PodRecord, Vni, record::Facts};

/// For how long a declaration is believed that the store has lost. Its declarer's agent says it
/// again as soon as it can reach the store.
pub(crate) const MEMORY: Duration = Duration::from_secs(600);

/// The facts at hand, with an index of who declares links with whom.
#[derive(Debug, Default)]
pub(crate) struct Known {
    records: BTreeMap<PodKey, PodRecord>,
    vnis: BTreeMap<LinkId, Vni>,
    /// By pod: the pods that declare a link with it.
    declarers: BTreeMap<PodKey, BTreeSet<PodKey>>,
    /// VNIs that the store no longer knows of: if it was wiped, their links ask for the same ones
    /// again.
    former: BTreeMap<LinkId, Vni>,
    /// Pods whose records the store has lost, and when that was noticed.
    lost: BTreeMap<PodKey, Instant>,
    /// Pods whose neighbours may have changed since that was last asked.
    touched: BTreeSet<PodKey>,
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
        self.former.remove(&link);
        self.vnis.insert(link, vni);
    }

    /// The VNI that a link had in a store that has forgotten it.
    pub fn former_vni(&self, link: LinkId) -> Option<Vni> {
        self.former.get(&link).copied()
    }

    /// The VNI that a device of the link has, unless the store says which.
    pub fn restore_vni(&mut self, link: LinkId, vni: Vni) {
        if !self.vnis.contains_key(&link) {
            self.former.insert(link, vni);
        }
    }

    /// The former VNI is another link's by now.
    pub fn forget_former_vni(&mut self, link: LinkId) {
        self.former.remove(&link);
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

    /// The pods of these links, as far as somebody declares them. It goes through all records there
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

    /// The pods whose neighbours may have changed since this was last asked.
    pub fn take_touched(&mut self) -> BTreeSet<PodKey> {
        std::mem::take(&mut self.touched)
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
            self.records.insert(pod.clone(), record);
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

    /// Takes what the store says about these pods themselves: what they declare now. Gives those of
    /// which it has no record at all.
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
    ///
    /// Gives the pods whose record is not what it was.
    pub fn merge(
        &mut self,
        own: &BTreeSet<PodKey>,
        facts: Facts,
        absent: &BTreeSet<PodKey>,
        is_own: impl Fn(&PodKey) -> bool,
        lives_here: impl Fn(&PodKey) -> bool,
        now: Instant,
    ) -> BTreeSet<PodKey> {
        // The store was asked for the VNIs of own pods' links; those of a neighbour's other links
        // stand.
        let is_forgotten = |link: &LinkId| !facts.vnis.contains_key(link);
        let around = self.with_neighbours(own);
        let of_own = around
            .iter()
            .filter_map(|pod| self.records.get(pod))
            .flat_map(|record| &record.links);
        let of_own =
            of_own.filter(|link| own.contains(&link.local.pod) || own.contains(&link.remote.pod));
        let forgotten: Vec<LinkId> = of_own.map(DeclaredLink::id).filter(is_forgotten).collect();
        for link in forgotten {
            self.former
                .extend(self.vnis.remove(&link).map(|vni| (link, vni)));
        }
        // Of the pods with which own ones declare links the store was asked for all that it has.
        let said = own.iter().filter_map(|pod| facts.records.get(pod));
        let declared: BTreeSet<PodKey> = said.flat_map(PodRecord::peers).cloned().collect();
        let mut changed = BTreeSet::new();
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
                changed.insert(pod);
            }
        }
        for (pod, record) in facts.records {
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
        for link in ended {
            self.vnis.remove(link);
            self.former.remove(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use ratchet_model::{DeclaredEnd, Location};

    use super::*;

    fn key(name: &str) -> PodKey {
        PodKey::new("default", name).unwrap()
    }

    fn record(name: &str, peers: &[&str]) -> PodRecord {
        let end = |pod: &str, other: &str| {
            DeclaredEnd::bare(key(pod), format!("to-{other}").parse().unwrap())
        };
        let link = |peer: &&str| DeclaredLink {
            local: end(name, peer),
            remote: end(peer, name),
            mtu: None,
            vni: None,
        };
        let location = Location {
            node: "n".parse().unwrap(),
            vtep: "10.0.0.1".parse().unwrap(),
            sandbox: name.parse().unwrap(),
            mtu: 1450.try_into().unwrap(),
            leaving: false,
        };
        PodRecord {
            pod: key(name),
            location: Some(location),
            created: 1,
            links: peers.iter().map(link).collect(),
        }
    }

    fn facts(records: &[PodRecord], vnis: &[(LinkId, u32)]) -> Facts {
        Facts {
            records: records
                .iter()
                .map(|record| (record.pod.clone(), record.clone()))
                .collect(),
            vnis: vnis
                .iter()
                .map(|(link, vni)| (*link, (*vni).try_into().unwrap()))
                .collect(),
        }
    }

    #[test]
    fn what_a_wiped_store_has_lost_is_believed_until_it_is_said_again() {
        let own = [key("own")].into();
        let (is_own, declarer, none) = (
            |pod: &PodKey| *pod == key("own"),
            record("declarer", &["own"]),
            BTreeSet::new(),
        );
        let link = declarer.links[0].id();
        let mut known = Known::default();
        known.merge(
            &own,
            facts(
                &[
                    record("own", &["leaf"]),
                    declarer.clone(),
                    record("leaf", &[]),
                ],
                &[(link, 12)],
            ),
            &none,
            is_own,
            is_own,
            Instant::now(),
        );
        assert_eq!(
            (known.vni(link).map(Vni::number), known.former_vni(link)),
            (Some(12), None)
        );

        known.merge(
            &own,
            Facts::default(),
            &none,
            is_own,
            is_own,
            Instant::now(),
        );
        let left: Vec<&str> = known.records.keys().map(PodKey::name).collect();
        // The own pod is to be published again, and the leaf may have gone.
        assert_eq!(left, ["declarer"]);
        assert_eq!(
            (known.vni(link), known.former_vni(link).map(Vni::number)),
            (None, Some(12))
        );

        known.merge(
            &own,
            facts(
                &[
                    record("own", &["leaf"]),
                    PodRecord {
                        created: 2,
                        ..declarer
                    },
                ],
                &[(link, 11)],
            ),
            &none,
            is_own,
            is_own,
            Instant::now(),
        );
        assert_eq!(known.record(&key("declarer")).unwrap().created, 2);
        assert_eq!(known.vni(link).map(Vni::number), Some(11));
    }

    #[test]
    fn a_declarer_that_has_dropped_a_link_is_not_lost() {
        let own: BTreeSet<PodKey> = [key("own"), key("other")].into();
        let is_own = |pod: &PodKey| own.contains(pod);
        let mut known = Known::default();
        known.merge(
            &own,
            facts(&[record("dropper", &["own", "other"])], &[]),
            &BTreeSet::new(),
            is_own,
            is_own,
            Instant::now(),
        );
        let (one, dropper) = ([key("own")].into(), [key("dropper")].into());
        assert_eq!(known.missing_declarers(&one, &Facts::default()), dropper);

        let absent = known.correct(dropper.clone(), Facts::default(), is_own);
        assert_eq!(absent, dropper);
        known.merge(
            &one,
            Facts::default(),
            &absent,
            is_own,
            is_own,
            Instant::now(),
        );
        assert_eq!(known.neighbours(&key("own")), dropper);

        let absent = known.correct(
            dropper.clone(),
            facts(&[record("dropper", &["other"])], &[]),
            is_own,
        );
        known.merge(
            &one,
            Facts::default(),
            &absent,
            is_own,
            is_own,
            Instant::now(),
        );
        assert_eq!(
            (
                known.neighbours(&key("own")),
                known.neighbours(&key("other"))
            ),
            (BTreeSet::new(), dropper.clone())
        );

        known.correct(
            dropper,
            facts(&[record("dropper", &["foreign"])], &[]),
            is_own,
        );
        assert_eq!(known.record(&key("dropper")), None);
    }

    #[test]
    fn a_declarer_is_forgotten_with_the_last_of_its_peers_here() {
        let (own, declarer, none) = (
            [key("own")].into(),
            record("declarer", &["own"]),
            BTreeSet::new(),
        );
        let mut known = Known::default();
        known.merge(
            &own,
            facts(&[record("own", &[]), declarer], &[]),
            &none,
            |_| true,
            |_| false,
            Instant::now(),
        );
        known.merge(
            &own,
            Facts::default(),
            &none,
            |pod| *pod == key("own"),
            |_| false,
            Instant::now(),
        );
        assert!(known.records.is_empty());
    }

    /// Own pods are read some at a time: what is missing from the store goes all the same, and what
    /// is another own pod's stays.
    #[test]
    fn what_two_own_pods_share_goes_when_one_of_them_is_read() {
        let (one, two): (BTreeSet<_>, BTreeSet<_>) = ([key("one")].into(), [key("two")].into());
        let is_own = |pod: &PodKey| one.contains(pod) || two.contains(pod);
        let mut known = Known::default();
        let none = BTreeSet::new();
        let [first, second] = [record("one", &["peer"]), record("two", &["peer", "one"])];
        known.merge(
            &one,
            facts(&[first.clone(), second.clone(), record("peer", &[])], &[]),
            &none,
            is_own,
            is_own,
            Instant::now(),
        );
        known.merge(
            &two,
            facts(&[first.clone(), second, record("peer", &[])], &[]),
            &none,
            is_own,
            is_own,
            Instant::now(),
        );

        known.merge(
            &one,
            facts(&[first], &[]),
            &none,
            is_own,
            is_own,
            Instant::now(),
        );
        assert_eq!(known.record(&key("peer")), None);
        assert!(
            known.record(&key("two")).is_some(),
            "its own reading tells what has become of it"
        );
    }

    #[test]
    fn a_declarer_that_two_own_pods_have_lost_is_not_believed_for_ever() {
        let (one, both): (BTreeSet<_>, BTreeSet<_>) =
            ([key("one")].into(), [key("one"), key("two")].into());
        let is_own = |pod: &PodKey| both.contains(pod);
        let mut known = Known::default();
        known.merge(
            &both,
            facts(&[record("declarer", &["one", "two"])], &[]),
            &BTreeSet::new(),
            is_own,
            is_own,
            Instant::now(),
        );
        let absent = known.correct(
            known.missing_declarers(&one, &Facts::default()),
            Facts::default(),
            is_own,
        );
        known.merge(
            &one,
            Facts::default(),
            &absent,
            is_own,
            is_own,
            Instant::now(),
        );
        assert!(known.record(&key("declarer")).is_some());
        assert!(known.lost.contains_key(&key("declarer")));
    }
}
