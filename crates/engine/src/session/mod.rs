//! A session with one store: the way to it, and all that is known because of it.
//!
//! When the settings name another store, the session is dropped, whole, and another one begins.
//! Its parts ask nothing of each other: the session asks the store and tells them. It decides
//! nothing about links and looks at no kernel.

mod claims;
mod connection;
mod doubts;
mod interest;
mod known;
mod nodes;
mod presence;
mod restored;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod vnis;
mod watcher;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use ratchet_model::{
    LinkId, PodKey, PodRecord, Reason, SandboxId, Vni, declaration::Declaration, record::Facts,
    resolve::Link,
};
use ratchet_protocol::{Failure, Settings};
use ratchet_store::{
    Change, EndReport, Publish, Published, Store, StoreError, StoreHealth, StoreScope,
};

pub(crate) use connection::Surroundings;
use connection::{CallFailed, Connection, Size};
use doubts::Doubts;
pub(crate) use known::Known;
use presence::Presence;
pub(crate) use restored::Restored;

use crate::{
    clock::Clock,
    retry::{Retry, Tried},
    sandboxes::Sandboxes,
};

/// What was read of pods of this node, beside what is [`Known`] of them from then on.
pub(crate) struct News {
    /// Those of which the store does not say that they are here, as long as not all has been read
    /// once.
    pub forgotten: BTreeSet<PodKey>,
    /// What they declare, if that is the store's to say.
    pub declared: Option<BTreeMap<PodKey, Declaration>>,
}

/// A session with one store.
pub(crate) struct Session {
    connection: Connection,
    clock: Arc<dyn Clock>,
    known: Known,
    /// Whether `known` holds what the store says about all of this node's pods; without that
    /// nothing is removed.
    informed: bool,
    knows_held: bool,
    /// Whether the watch has not told anything yet, and has not been broken.
    is_news_first: bool,
    presence: Presence,
    restored: Restored,
    doubts: Doubts,
}

/// The facts.
impl Session {
    /// With the store that the settings name. Nothing is asked yet.
    pub fn new(surroundings: Surroundings, settings: Settings) -> Self {
        let clock = surroundings.clock.clone();
        Self {
            connection: Connection::new(surroundings, settings),
            presence: Presence::new(clock.now()),
            clock,
            known: Known::default(),
            informed: false,
            knows_held: false,
            is_news_first: true,
            restored: Restored::default(),
            doubts: Doubts::default(),
        }
    }

    /// What is known of pods and links.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Takes note of a record that the store has, or, until it was read, of one that it may have.
    pub fn set_record(&mut self, record: PodRecord) {
        let pod = record.pod.clone();
        self.known.set(&pod, Some(record));
    }

    /// Forgets links that are declared no longer.
    pub fn forget_links(&mut self, ended: &BTreeSet<LinkId>) {
        self.known.vnis_mut().forget(ended);
    }

    /// Whether the store has been read for all of this node's pods.
    pub fn is_informed(&self) -> bool {
        self.informed
    }

    /// It has.
    pub fn set_informed(&mut self) {
        self.informed = true;
    }

    /// Links of which nothing is known but their devices.
    pub fn restored(&self) -> &Restored {
        &self.restored
    }

    /// Takes note of devices whose links the store has forgotten, and of their VNIs.
    pub fn restore(&mut self, found: Vec<(LinkId, SandboxId, Option<Vni>)>) {
        for (link, _, vni) in &found {
            if let Some(vni) = vni {
                self.known.vnis_mut().restore(*link, *vni);
            }
        }
        let links = found.into_iter().map(|(link, sandbox, _)| (link, sandbox));
        self.restored.add(links, self.clock.now());
        if self.restored.len() > 0 {
            tracing::warn!(
                links = self.restored.len(),
                "the store has forgotten pods of this node; what they have stays until it is \
                 declared again"
            );
        }
    }

    /// Forgets restored links that are known by now, or that need not be believed any longer.
    pub fn forget_restored(&mut self, known: &[Link], sandboxes: &Sandboxes) {
        let is_current = |id: &SandboxId| sandboxes.get(id).is_some_and(|state| !state.leaving);
        let known = known.iter().map(|link| link.id);
        self.restored.forget(known, is_current, self.clock.now());
    }

    /// Pods that have no sandbox here any more are of interest only as far as they are neighbours.
    pub fn forget_pods(&mut self, pods: &BTreeSet<PodKey>, sandboxes: &Sandboxes) {
        let around = self.known.with_neighbours(pods);
        for other in &around {
            if !sandboxes.has(other) && !interest::is_peer(other, &self.known, sandboxes) {
                self.known.set(other, None);
            }
        }
        self.update_interest(&around, sandboxes);
    }

    /// Tells the watch what these pods have come to be, after their records or sandboxes have
    /// changed; their neighbours before and after must be among them.
    ///
    /// A pod that lives here and on another node, or did, may change its record without being asked
    /// for: with those whose records have changed come the neighbours that these had and have.
    pub fn update_interest(&mut self, pods: &BTreeSet<PodKey>, sandboxes: &Sandboxes) {
        if !self.informed {
            return self.set_interest(sandboxes);
        }
        let mut pods = pods.clone();
        pods.extend(self.known.take_touched());
        let interest = self.connection.interest();
        interest.send_if_modified(|interest| {
            interest::correct(interest, &pods, &self.known, sandboxes)
        });
        debug_assert_eq!(
            *interest.borrow(),
            interest::whole(&self.known, sandboxes),
            "after {pods:?}"
        );
    }

    /// Tells the watch of all pods that are of interest.
    pub fn set_interest(&mut self, sandboxes: &Sandboxes) {
        self.known.take_touched();
        let whole = interest::whole(&self.known, sandboxes);
        self.connection.interest().send_if_modified(|current| {
            let changed = *current != whole;
            *current = whole;
            changed
        });
    }
}

/// The store's state.
impl Session {
    /// Why all calls fail at once, while the store is offline.
    pub fn offline(&self) -> Option<&Failure> {
        self.connection.offline()
    }

    /// What is wrong with the store.
    pub fn trouble(&self) -> Option<&Reason> {
        self.connection.trouble()
    }

    /// Who shares the store, once it was opened.
    pub fn scope(&self) -> Option<StoreScope> {
        self.connection.scope()
    }

    /// Whether the store says what pods declare, once it was opened.
    pub fn declares(&self) -> bool {
        self.connection.declares()
    }

    /// Tells a store that declares the state of all ends of links on this node.
    pub fn report(&self, ends: Vec<EndReport>) {
        self.connection.report(ends);
    }

    /// What the store says of itself, once it was opened.
    pub fn health(&self) -> Option<StoreHealth> {
        self.connection.health()
    }

    /// What the store is, for messages.
    pub fn describe(&self) -> String {
        self.connection.describe()
    }

    /// The watch on the store broke.
    pub fn watch_broke(&mut self, trouble: String) {
        self.connection.watch_broke(trouble);
        self.is_news_first = false;
        self.forget_held();
    }

    /// The watch has told that everything may have changed. It begins with that. Later, the store
    /// may have another past.
    pub fn all_changed(&mut self) {
        if !std::mem::take(&mut self.is_news_first) {
            self.forget_held();
        }
    }

    /// The store answers again. Returns whether it was offline.
    pub fn is_back(&mut self) -> bool {
        self.connection.is_back()
    }

    /// What the watch has told since this was asked last.
    pub fn take_news(&self) -> Option<Change> {
        self.connection.take_news()
    }
}

/// Calls.
impl Session {
    /// Asks the store nothing but whether it answers.
    pub fn ping(&mut self) -> Tried {
        let nothing = BTreeSet::new();
        self.call(Size::Links(0), async |store| store.read(&nothing).await)
            .map(drop)
    }

    /// Reads what the store says about pods of this node.
    pub fn read(&mut self, own: &BTreeSet<PodKey>, sandboxes: &Sandboxes) -> Tried<News> {
        let size = Size::Links(own.iter().map(|pod| self.size_of(pod, sandboxes)).sum());
        let mut facts = self.call(size, async |store| store.read(own).await)?;
        // They have dropped their links, or the store has lost them: it can tell when it is asked
        // for themselves.
        let missing = self.known.missing_declarers(own, &facts);
        let their_own = if missing.is_empty() {
            Facts::default()
        } else {
            let links = missing.iter().map(|pod| self.known.links_with(pod)).sum();
            self.call(Size::Links(links), async |store| store.read(&missing).await)?
        };
        let is_there = |pod: &PodKey| facts.records.get(pod).is_some_and(PodRecord::lives);
        let forgotten = own
            .iter()
            .filter(|pod| !self.informed && !is_there(pod))
            .cloned()
            .collect();
        let lives_here = |pod: &PodKey| sandboxes.current(pod).is_some();
        let is_own = |pod: &PodKey| sandboxes.has(pod);
        let absent = self.known.correct(missing, their_own, is_own);
        let declared = facts.declared.take();
        let now = self.clock.now();
        self.known
            .merge(own, facts, &absent, is_own, lives_here, now);
        Ok(News {
            forgotten,
            declared,
        })
    }

    /// Publishes a record. What is known of the pod stays as it is.
    pub fn publish(&mut self, record: &PodRecord, how: Publish) -> Tried<Published> {
        let size = Size::Links(record.links.len());
        let published = self
            .connection
            .call(size, async |store| store.publish(record, how).await);
        published.map_err(|CallFailed { failure, may_land }| {
            if may_land && let Some(sandbox) = record.sandbox() {
                self.doubts.add(sandbox.clone());
            }
            Retry::Store(failure)
        })
    }

    /// Tells the store that a sandbox has gone. When this succeeds, it will stay so.
    pub fn remove_pod(&mut self, pod: &PodKey, sandbox: &SandboxId) -> Tried {
        let size = Size::Links(self.known.links_with(pod));
        self.call(size, async |store| store.remove_pod(pod, sandbox).await)?;
        if let Some(said) = self.known.record(pod)
            && said.sandbox() == Some(sandbox)
        {
            let gone = PodRecord {
                location: None,
                ..said.clone()
            };
            self.known.set(pod, Some(gone));
        }
        if !self.doubts.is_settled(sandbox, self.clock.now()) {
            return Err(Retry::Unsettled(sandbox.clone()));
        }
        Ok(())
    }

    /// When a sandbox whose publish had no answer is to be removed for the second time.
    pub fn next_removal(&self) -> Option<Instant> {
        self.doubts.next_due()
    }

    /// Whether that is now; said once, see [`Doubts::take_due`].
    pub fn take_removal(&mut self) -> bool {
        self.doubts.take_due(self.clock.now())
    }

    fn call<T>(
        &mut self,
        size: Size,
        ask: impl AsyncFnOnce(&dyn Store) -> Result<T, StoreError>,
    ) -> Tried<T> {
        self.connection
            .call(size, ask)
            .map_err(|failed| Retry::Store(failed.failure))
    }

    /// How many links a pod has, as far as is known. The store may have forgotten what it declares.
    fn size_of(&self, pod: &PodKey, sandboxes: &Sandboxes) -> usize {
        self.known.links_with(pod).max(sandboxes.links_of(pod))
    }
}
