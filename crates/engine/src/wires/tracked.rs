//! The links of this node's pods as they were last dealt with, found by id and by pod, so that what
//! one pod needs does not cost more the more links others have. Nothing here decides anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use ratchet_model::{LinkId, NodeName, PodKey, Reason, WiringKind, resolve::Link, wiring::Wiring};

use super::failure::LinkFailure;

/// A link as it was last dealt with.
#[derive(PartialEq)]
pub(crate) struct Tracked {
    pub link: Link,
    pub wiring: Wiring,
    /// Why the kernel does not have it as wanted.
    pub failure: Option<LinkFailure>,
    /// Since when it has waited for what it waits for.
    pub since: Instant,
    /// Whether users have been told that this takes long.
    pub told: bool,
    /// The nodes of its two ends, as far as they are known.
    pub nodes: [Option<NodeName>; 2],
    /// How many devices it has ([`TrackedLinks::insert`] counts them).
    pub devices: usize,
}

impl Tracked {
    /// What it waits for, if it does.
    fn waits_for(&self) -> Option<&Reason> {
        let obstacle = self.wiring.obstacle.as_deref();
        obstacle.filter(|reason| reason.is_waiting())
    }

    /// Why it is not up, if it is not.
    pub fn reason(&self) -> Option<&Reason> {
        let failed = self.failure.as_ref().map(|failure| &*failure.reason);
        failed.or(self.wiring.obstacle.as_deref())
    }
}

/// A link that must be looked at: what is wanted of it now.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub link: Link,
    pub wiring: Wiring,
    /// How it is wired.
    pub kind: WiringKind,
    /// How its declaration, or the node's config, says that it is to be wired.
    pub asked: WiringKind,
    /// The nodes of its two ends, as far as they are known.
    pub nodes: [Option<NodeName>; 2],
}

/// All of them.
#[derive(Default)]
pub(super) struct TrackedLinks {
    /// Boxed: a tree keeps room for more than it has, and a tracked link is large.
    by_id: BTreeMap<LinkId, Box<Tracked>>,
    by_pod: BTreeMap<PodKey, BTreeSet<LinkId>>,
    /// Those that wait and of which users have not been told, the longest waiting first.
    waiting: BTreeSet<(Instant, LinkId)>,
    /// How many devices they have.
    devices: usize,
    /// How many devices other links have, which an agent before this one has made.
    found: BTreeMap<LinkId, usize>,
}

impl TrackedLinks {
    pub fn get(&self, id: LinkId) -> Option<&Tracked> {
        self.by_id.get(&id).map(Box::as_ref)
    }

    /// Takes note of what is only reported of a link and may change without any work. A link that
    /// has other pods than before is not only reported otherwise.
    pub fn describe(
        &mut self,
        id: LinkId,
        link: &Link,
        nodes: &[Option<NodeName>; 2],
    ) -> Option<&Tracked> {
        let tracked = self.by_id.get_mut(&id)?;
        if pods(&tracked.link) != pods(link) {
            return None;
        }
        if tracked.link != *link {
            tracked.link.clone_from(link);
        }
        tracked.nodes.clone_from(nodes);
        Some(tracked)
    }

    /// A link as it was when it had other pods, if it had.
    pub fn replaced(&self, link: &Link) -> Option<&Link> {
        let before = &self.get(link.id)?.link;
        (pods(before) != pods(link)).then_some(before)
    }

    /// The ids of links neither of whose pods is such a one.
    pub fn ids_without(&self, is_such: impl Fn(&PodKey) -> bool) -> impl Iterator<Item = LinkId> {
        let links = self.by_id.values().map(|tracked| &tracked.link);
        links
            .filter(move |link| !is_such(&link.a.pod) && !is_such(&link.z.pod))
            .map(|link| link.id)
    }

    pub fn all(&self) -> impl Iterator<Item = &Tracked> {
        self.by_id.values().map(Box::as_ref)
    }

    /// The ids of a pod's links.
    pub fn ids_of(&self, pod: &PodKey) -> impl Iterator<Item = LinkId> {
        self.by_pod.get(pod).into_iter().flatten().copied()
    }

    /// A pod's links, in the order of their ids.
    pub fn of(&self, pod: &PodKey) -> impl Iterator<Item = &Tracked> {
        self.ids_of(pod).filter_map(|id| self.get(id))
    }

    /// Puts a link in place of what was known of it. One that is what it was stays where it is: a
    /// resync would leave all of them scattered over the memory that it took itself, and none of
    /// that could be given back.
    pub fn insert(&mut self, mut tracked: Tracked) {
        tracked.devices = self.devices_with(tracked.link.id, &tracked.wiring);
        if self.get(tracked.link.id) == Some(&tracked) {
            return;
        }
        if let Some(before) = self.get(tracked.link.id)
            && pods(&before.link) != pods(&tracked.link)
        {
            self.remove(tracked.link.id);
        }
        for pod in pods(&tracked.link) {
            match self.by_pod.get_mut(pod) {
                Some(ids) => drop(ids.insert(tracked.link.id)),
                None => drop(self.by_pod.insert(pod.clone(), [tracked.link.id].into())),
            }
        }
        let wait = (!tracked.told && tracked.waits_for().is_some())
            .then_some((tracked.since, tracked.link.id));
        self.devices += tracked.devices;
        self.found.remove(&tracked.link.id);
        if let Some(before) = self.by_id.insert(tracked.link.id, Box::new(tracked)) {
            self.devices -= before.devices;
            self.waiting.remove(&(before.since, before.link.id));
        }
        self.waiting.extend(wait);
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.devices + self.found.values().sum::<usize>()
    }

    /// How many of them are a link's.
    pub fn devices_of(&self, id: LinkId) -> usize {
        let found = || self.found.get(&id).copied().unwrap_or(0);
        self.get(id).map_or_else(found, |tracked| tracked.devices)
    }

    /// How many a link has with this wiring: those that are made, or else those that stay.
    pub fn devices_with(&self, id: LinkId, wiring: &Wiring) -> usize {
        match wiring.made_ends().count() {
            0 if !wiring.wanted.is_empty() => self.devices_of(id),
            made => made,
        }
    }

    /// Devices of these links were found, each of one link.
    pub fn set_found(&mut self, links: impl Iterator<Item = LinkId>) {
        self.found.clear();
        for link in links.filter(|link| !self.by_id.contains_key(link)) {
            *self.found.entry(link).or_default() += 1;
        }
    }

    /// Since when the longest waiting link waits of which users have not been told.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.waiting.first().map(|(since, _)| *since)
    }

    /// That link and what it waits for; from here on, users count as told.
    pub fn tell_of_longest_waiting(&mut self) -> Option<(Link, Reason)> {
        let (_, id) = self.waiting.pop_first()?;
        let tracked = self.by_id.get_mut(&id)?;
        tracked.told = true;
        Some((tracked.link.clone(), tracked.waits_for()?.clone()))
    }

    pub fn remove(&mut self, id: LinkId) {
        let Some(tracked) = self.by_id.remove(&id) else {
            return;
        };
        self.devices -= tracked.devices;
        self.waiting.remove(&(tracked.since, id));
        for pod in pods(&tracked.link) {
            if let Some(ids) = self.by_pod.get_mut(pod) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_pod.remove(pod);
                }
            }
        }
    }
}

fn pods(link: &Link) -> [&PodKey; 2] {
    [&link.a.pod, &link.z.pod]
}
