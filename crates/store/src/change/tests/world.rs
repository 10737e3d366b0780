//! A store in memory that checks the conditions of steps as etcd does: by the version of each key.

use ratchet_model::{Vni, VniRange, record::living_links};

use super::*;

#[derive(Clone, Default)]
pub(super) struct World {
    clock: u64,
    records: BTreeMap<PodKey, (PodRecord, u64)>,
    index: BTreeMap<IndexEntry, u64>,
    pub vnis: BTreeMap<LinkId, Vni>,
    /// Pods whose last change was interrupted.
    pub cut_off: BTreeSet<PodKey>,
    /// Pods of which a change was ever interrupted. These may have entries in the index without a
    /// link. Such an entry costs a read, and disappears when a link is declared and dropped again.
    pub ever_cut_off: BTreeSet<PodKey>,
}

/// The facts that a change depends on.
pub(super) struct View {
    read_at: u64,
    pub records: BTreeMap<PodKey, PodRecord>,
    versions: BTreeMap<PodKey, u64>,
}

/// What an agent wants.
#[derive(Clone, Debug)]
pub(super) enum Want {
    Publish(Box<PodRecord>, Publish),
    Remove(PodKey),
}

/// The progress of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    Going,
    /// A condition of its next step does not hold.
    Refused,
}

/// An unfinished change.
pub(super) struct Running {
    pub pod: PodKey,
    pub steps: Vec<Step>,
    view: View,
    next: usize,
}

impl Running {
    /// The number of the step that decides the change: the last one that writes the pod's record.
    pub fn decisive(&self) -> usize {
        let writes = |step: &Step| step.records.contains_key(&self.pod);
        self.steps.iter().rposition(writes).unwrap()
    }
}

impl World {
    pub fn records(&self) -> BTreeMap<PodKey, PodRecord> {
        let records = self.records.iter();
        records
            .map(|(pod, (record, _))| (pod.clone(), record.clone()))
            .collect()
    }

    fn view(&self) -> View {
        View {
            read_at: self.clock,
            records: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    fn load<'p>(&self, view: &mut View, pods: impl IntoIterator<Item = &'p PodKey>) {
        for pod in pods {
            let found = self.records.get(pod);
            view.versions
                .insert(pod.clone(), found.map_or(0, |(_, version)| *version));
            view.records
                .extend(found.map(|(record, _)| (pod.clone(), record.clone())));
        }
    }

    fn load_around(&self, view: &mut View, pod: &PodKey) {
        self.load(view, [pod]);
        let entries = self.index.keys().filter(|entry| entry.peer == *pod);
        self.load(view, entries.map(|entry| &entry.declarer));
        let own = view.records.get(pod).cloned();
        self.load(view, own.iter().flat_map(PodRecord::peers));
    }

    /// Reads only what the change depends on, and computes the change. `None`: nothing changes.
    pub fn begin(&self, want: &Want, limits: Limits) -> Option<Running> {
        let mut view = self.view();
        let pod = match want {
            Want::Publish(record, _) => &record.pod,
            Want::Remove(pod) => pod,
        };
        self.load(&mut view, [pod]);
        let previous = view.records.get(pod).cloned();
        let next = match want {
            Want::Publish(record, how) => match Publication::new(record, previous.as_ref(), *how) {
                Publication::Write(next) => Some(next),
                _ => return None,
            },
            Want::Remove(_) if previous.as_ref()?.location.is_some() => None,
            Want::Remove(_) => return None,
        };
        if let Some(next) = &next
            && drops_links(previous.as_ref(), next)
        {
            self.load_around(&mut view, pod);
            self.load(&mut view, next.peers());
        }
        if next.is_none() {
            self.load_around(&mut view, pod);
            let peers = peers_of_gone(&view.records);
            self.load(&mut view, &peers);
        }
        let change = match next {
            Some(next) => RecordChange::publish(next, &view.records),
            None => RecordChange::remove(pod, &view.records),
        };
        let numbered = change.ended().iter();
        let vnis = numbered.filter_map(|link| Some((*link, *self.vnis.get(link)?)));
        Some(Running {
            pod: pod.clone(),
            steps: change.steps(&vnis.collect(), limits),
            view,
            next: 0,
        })
    }

    /// Does the next step.
    pub fn advance(&mut self, running: &mut Running) -> Progress {
        let step = &running.steps[running.next];
        if !self.holds(&running.pod, step, &running.view) {
            return Progress::Refused;
        }
        self.clock += 1;
        for (pod, record) in &step.records {
            self.records.remove(pod);
            let written = record
                .clone()
                .map(|record| (pod.clone(), (record, self.clock)));
            self.records.extend(written);
            let version = if record.is_some() { self.clock } else { 0 };
            running.view.versions.insert(pod.clone(), version);
        }
        for (entry, change) in &step.index {
            let known = match change {
                IndexChange::Remove => self.index.remove(entry).is_some(),
                IndexChange::Add => self.index.insert(entry.clone(), self.clock).is_none(),
                IndexChange::Touch => self.index.insert(entry.clone(), self.clock).is_some(),
            };
            let is_exempt = self.ever_cut_off.contains(&entry.declarer);
            assert!(known || is_exempt, "{change:?} of {entry:?}");
        }
        self.vnis.retain(|link, _| !step.freed.contains_key(link));
        let living = living_links(&self.records());
        assert!(step.ended().all(|link| !living.contains_key(&link)));
        running.next += 1;
        match running.next == running.steps.len() {
            true => Progress::Done,
            false => Progress::Going,
        }
    }

    fn holds(&self, pod: &PodKey, step: &Step, view: &View) -> bool {
        let version = |pod: &PodKey| self.records.get(pod).map_or(0, |(_, version)| *version);
        let mut declarers = self.index.iter().filter(|(entry, _)| entry.peer == *pod);
        step.unchanged
            .iter()
            .chain([pod])
            .all(|pod| version(pod) == view.versions.get(pod).copied().unwrap_or(0))
            && step
                .unnumbered
                .iter()
                .all(|link| !self.vnis.contains_key(link))
            && step
                .freed
                .iter()
                .all(|(link, vni)| self.vnis.get(link) == Some(vni))
            && (!step.declarers_unchanged || declarers.all(|(_, version)| *version <= view.read_at))
    }

    /// Gives every living link a VNI.
    pub fn claim_all(&mut self) {
        for link in living_links(&self.records()).into_keys() {
            let is_free = |vni: &Vni| !self.vnis.values().any(|taken| taken == vni);
            let free = VniRange::AUTOMATIC.vnis().find(is_free).unwrap();
            self.vnis.entry(link).or_insert(free);
        }
    }

    /// Checks that the store is complete and correct, except for what interrupted changes have left
    /// to do.
    pub fn assert_order(&self) {
        let records = self.records();
        let declared: BTreeSet<IndexEntry> = records
            .values()
            .flat_map(|record| {
                let peers = record.peers().into_iter();
                peers.map(|peer| IndexEntry {
                    peer: peer.clone(),
                    declarer: record.pod.clone(),
                })
            })
            .collect();
        let indexed: BTreeSet<IndexEntry> = self.index.keys().cloned().collect();
        assert!(declared.is_subset(&indexed));
        let mut superfluous = indexed.difference(&declared);
        assert!(superfluous.all(|entry| self.ever_cut_off.contains(&entry.declarer)));
        if records
            .values()
            .any(|record| record.location.as_ref().is_some_and(|at| at.leaving))
        {
            return;
        }
        let living = living_links(&records);
        let stale = self.vnis.keys().filter(|link| !living.contains_key(link));
        assert_eq!(stale.count(), 0, "VNIs of links that have ended");
        let lives = |pod: &PodKey| records.get(pod).is_some_and(PodRecord::lives);
        let is_needed =
            |record: &PodRecord| record.lives() || record.peers().into_iter().any(lives);
        let unneeded: Vec<_> = records
            .values()
            .filter(|record| !is_needed(record) && !self.cut_off.contains(&record.pod))
            .collect();
        assert!(unneeded.is_empty(), "no pod needs {unneeded:?}");
    }
}
