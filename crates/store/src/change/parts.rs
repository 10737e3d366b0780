//! A change as parts that must not be divided, and how parts are joined to steps.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{DeclaredLink, LinkId, PodKey, PodRecord, Vni};

use super::{IndexChange, IndexEntry, Limits, RecordChange, Step, ids};

/// The smallest part of a change: it must not be divided.
#[derive(Default)]
pub(super) struct Part {
    pub records: BTreeMap<PodKey, Write>,
    /// Everything except the records.
    pub rest: Step,
}

/// What happens to a record.
pub(super) enum Write {
    /// These links are removed from it.
    Without(BTreeSet<LinkId>),
    /// It becomes this. `None`: it is deleted.
    Final(Option<Box<PodRecord>>),
}

impl Part {
    fn operations(&self) -> usize {
        // That the link has no VNI, and that the VNI has no link.
        self.records.len() + self.rest.index.len() + 2 * self.rest.freed.len()
    }

    fn conditions(&self) -> usize {
        self.rest.unchanged.len() + self.rest.unnumbered.len() + self.rest.freed.len()
    }

    fn add(&mut self, other: Part) {
        for (pod, write) in other.records {
            match (self.records.get_mut(&pod), write) {
                (Some(Write::Without(links)), Write::Without(more)) => links.extend(more),
                (_, write) => drop(self.records.insert(pod, write)),
            }
        }
        self.rest.index.extend(other.rest.index);
        self.rest.freed.extend(other.rest.freed);
        let unnumbered = other.rest.unnumbered.into_iter();
        let freed = &self.rest.freed;
        self.rest
            .unnumbered
            .extend(unnumbered.filter(|link| !freed.contains_key(link)));
        self.rest.unchanged.extend(other.rest.unchanged);
        self.rest.declarers_unchanged |= other.rest.declarers_unchanged;
    }
}

/// The parts of a change, joined as far as the limits allow, in an order that follows the rules of
/// the module `steps`.
pub(super) fn parts(
    change: &RecordChange<'_>,
    vnis: &BTreeMap<LinkId, Vni>,
    limits: Limits,
) -> Vec<Part> {
    let mut builder = Builder {
        change,
        vnis,
        ended: BTreeSet::new(),
        parts: Vec::new(),
    };
    builder.build(limits);
    join(builder.parts, limits)
}

/// Joins parts to as few as possible, in the same order.
fn join(parts: Vec<Part>, limits: Limits) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last)
                if last.operations() + part.operations() <= limits.operations
                    && last.conditions() + part.conditions() <= limits.conditions =>
            {
                last.add(part);
            }
            _ => joined.push(part),
        }
    }
    joined
}

/// Makes the parts of a change.
struct Builder<'a> {
    change: &'a RecordChange<'a>,
    vnis: &'a BTreeMap<LinkId, Vni>,
    /// The links that end with the parts so far. If two records declare a link, its VNI is freed
    /// with the first.
    ended: BTreeSet<LinkId>,
    parts: Vec<Part>,
}

impl Builder<'_> {
    fn build(&mut self, limits: Limits) {
        let change = self.change;
        for forgotten in change
            .forgotten
            .iter()
            .filter_map(|pod| change.before.get(pod))
        {
            self.erase(forgotten);
        }
        let previous = change.before.get(&change.pod);
        match &change.record {
            Some(next) => self.write(previous, next),
            None => {
                self.end_kept();
                previous.into_iter().for_each(|record| self.erase(record));
            }
        }
        if change.is_removal() {
            self.add_conditions_of_removal(limits.conditions / 2);
        }
    }

    /// Ends a link, if it is one that ends. Condition: neither of its pods declares it again.
    fn end(&mut self, link: &DeclaredLink) -> Part {
        let mut part = Part::default();
        let id = link.id();
        if !self.change.ended.contains(&id) {
            return part;
        }
        let is_first = self.ended.insert(id);
        let vni = self.vnis.get(&id);
        if vni.is_some() {
            part.rest.unchanged = self.others([&link.local.pod, &link.remote.pod]);
        }
        match vni {
            Some(vni) if is_first => drop(part.rest.freed.insert(id, *vni)),
            _ => drop(part.rest.unnumbered.insert(id)),
        }
        part
    }

    /// These pods without the changed one.
    fn others<'p>(&self, pods: impl IntoIterator<Item = &'p PodKey>) -> BTreeSet<PodKey> {
        pods.into_iter()
            .filter(|pod| **pod != self.change.pod)
            .cloned()
            .collect()
    }

    /// Ends the links that are declared only in records that are kept.
    fn end_kept(&mut self) {
        let change = self.change;
        let is_kept = |record: &&PodRecord| record.pod != change.pod || change.record.is_some();
        let links: BTreeMap<LinkId, &DeclaredLink> = change
            .before
            .values()
            .filter(is_kept)
            .flat_map(|record| &record.links)
            .map(|link| (link.id(), link))
            .filter(|(id, _)| change.ended.contains(id) && !self.ended.contains(id))
            .collect();
        for link in links.into_values() {
            let part = self.end(link);
            self.parts.push(part);
        }
    }

    /// Removes links from a record. With the last link with a peer, removes the entry in the peer's
    /// index, unless the peer is in `stays`.
    fn take(&mut self, record: &PodRecord, links: &BTreeSet<LinkId>, stays: &BTreeSet<&PodKey>) {
        let mut left: BTreeMap<&PodKey, usize> = BTreeMap::new();
        for link in &record.links {
            *left.entry(&link.remote.pod).or_default() += 1;
        }
        // The links with the changed pod come last: with them the record is found again if a step
        // fails.
        let (with_pod, mut taken): (Vec<_>, Vec<_>) = record
            .links
            .iter()
            .filter(|link| links.contains(&link.id()))
            .partition(|link| link.remote.pod == self.change.pod);
        taken.extend(with_pod);
        for link in taken {
            let peer = &link.remote.pod;
            let mut part = self.end(link);
            let without = Write::Without([link.id()].into());
            part.records.insert(record.pod.clone(), without);
            part.rest.unchanged.extend(self.others([&record.pod]));
            if !self.change.ended.contains(&link.id()) {
                // The peer also declares the link. If both drop it at the same time, one of the two
                // changes must notice that it is the second.
                part.rest.unchanged.extend(self.others([peer]));
            }
            if let Some(left) = left.get_mut(peer) {
                *left -= 1;
                if *left == 0 && *peer != record.pod && !stays.contains(peer) {
                    let entry = entry(peer, &record.pod);
                    part.rest.index.insert(entry, IndexChange::Remove);
                }
            }
            self.parts.push(part);
        }
    }

    /// Deletes a record together with the last of its links: a gone pod's record without links
    /// would never be found again.
    fn erase(&mut self, record: &PodRecord) {
        self.take(record, &ids(record), &BTreeSet::new());
        let mut part = match record.links.is_empty() {
            true => Part::default(),
            false => self.parts.pop().unwrap_or_default(),
        };
        part.records.insert(record.pod.clone(), Write::Final(None));
        part.rest.unchanged.extend(self.others([&record.pod]));
        self.parts.push(part);
    }

    /// Writes the pod's record, and then its new entries in the index.
    fn write(&mut self, previous: Option<&PodRecord>, next: &PodRecord) {
        let peers = previous.map(PodRecord::peers).unwrap_or_default();
        let next_peers = next.peers();
        if let Some(previous) = previous {
            let dropped = ids(previous).difference(&ids(next)).copied().collect();
            self.take(previous, &dropped, &next_peers);
        }
        self.end_kept();
        let mut part = Part::default();
        part.records
            .insert(next.pod.clone(), Write::Final(Some(Box::new(next.clone()))));
        let lives = |pod: &PodKey| self.change.before.get(pod).is_some_and(PodRecord::lives);
        if !next.lives()
            && let Some(witness) = next.peers().into_iter().find(|peer| lives(peer))
        {
            // The record is kept for this peer. If the peer is removed at the same time, one of the
            // two removals must fail.
            let entry = entry(witness, &next.pod);
            part.rest.index.insert(entry, IndexChange::Touch);
            part.rest.unchanged.insert(witness.clone());
        }
        self.parts.push(part);
        for peer in next_peers.difference(&peers) {
            let mut part = Part::default();
            let entry = entry(peer, &next.pod);
            part.rest.index.insert(entry, IndexChange::Add);
            self.parts.push(part);
        }
    }

    /// Adds the facts that a removal depends on, as conditions, to the part that writes the pod's
    /// record: which pods declare a link with it, that the gone ones among them are still needed by
    /// others, and that the living ones still live. At most `most` of the last two are checked.
    fn add_conditions_of_removal(&mut self, most: usize) {
        let change = self.change;
        let (pod, before) = (&change.pod, change.before);
        let lives = |pod: &PodKey| before.get(pod).is_some_and(PodRecord::lives);
        let others = || before.values().filter(|record| record.pod != *pod);
        let witnesses = others()
            .filter(|record| !record.lives() && !change.forgotten.contains(&record.pod))
            .filter(|record| record.peers().contains(pod))
            .filter_map(|record| {
                let mut peers = record.peers().into_iter();
                peers.find(|peer| *peer != pod && lives(peer)).cloned()
            });
        // A link ends with the second of its pods. If both are removed at the same time, one of the
        // two removals must notice that it is the second.
        let own = before.get(pod).map(PodRecord::peers).unwrap_or_default();
        let living = others()
            .filter(|record| record.lives())
            .filter(|record| own.contains(&record.pod) || record.peers().contains(pod))
            .map(|record| record.pod.clone());
        let unchanged: BTreeSet<PodKey> = witnesses.chain(living).take(most).collect();
        let writes_last = |part: &&mut Part| matches!(part.records.get(pod), Some(Write::Final(_)));
        if let Some(last) = self.parts.iter_mut().rfind(writes_last) {
            last.rest.unchanged.extend(unchanged);
            last.rest.declarers_unchanged = true;
        }
    }
}

fn entry(peer: &PodKey, declarer: &PodKey) -> IndexEntry {
    IndexEntry {
        peer: peer.clone(),
        declarer: declarer.clone(),
    }
}
