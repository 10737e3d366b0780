//! A store in memory, with the contract of the real ones and faults on demand.
//!
//! It passes the contract's tests (`tests/contract.rs`). A fault is one of a *client*: a node.

mod client;
mod facts;
mod presence;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use ratchet_model::{LinkId, NodeName, PodKey, PodRecord, SandboxId, Vni, record::Facts};
use ratchet_store::{
    NodeRemoval, Publish, Published, RemovalReason, Store, StoreError, StoreScope, VniClaim,
    VniGrant, Watch,
};

use crate::{clock::VirtualClock, points::Points};
pub use client::Client;
use client::offline;
pub use facts::Contents;
use presence::Presence;
use watch::{MemoryWatch, Watched};

/// How many former contents stale reads are answered from.
const HISTORY: usize = 8;

/// How long a slow call takes.
const SLOW: Duration = Duration::from_secs(3);

/// The store itself, shared by all openings.
#[derive(Debug, Default)]
pub struct Inner {
    contents: Contents,
    former: VecDeque<Contents>,
    presence: Presence,
    clients: Vec<Client>,
    watches: BTreeMap<u64, Watched>,
    next: u64,
    was_wiped: bool,
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Keeps what is there for stale reads, and hands it out to be changed.
    fn change(&mut self) -> &mut Contents {
        self.former.push_front(self.contents.clone());
        self.former.truncate(HISTORY);
        &mut self.contents
    }
}

/// The store, as the scenario has it.
#[derive(Debug, Clone)]
pub struct Shared {
    inner: Arc<Mutex<Inner>>,
    clock: VirtualClock,
}

impl Shared {
    /// An empty store for so many nodes.
    pub fn new(clients: usize, clock: VirtualClock) -> Self {
        let inner = Inner {
            clients: vec![Client::default(); clients],
            ..Inner::default()
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            clock,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it for a node, whose agent passes these points.
    pub fn open(&self, client: usize, points: Points) -> Result<Arc<dyn Store>, StoreError> {
        points.pass();
        let mut inner = self.lock();
        if inner.clients[client].is_offline {
            return Err(offline());
        }
        let handle = inner.number();
        inner.presence.open(handle, client);
        drop(inner);
        Ok(Arc::new(Opening(Arc::new(MemoryStore {
            shared: self.clone(),
            client,
            handle,
            points,
        }))))
    }

    /// What is in it now.
    pub fn contents(&self) -> Contents {
        self.lock().contents.clone()
    }

    /// Whether the store has lost everything, and with it that a node holds a VNI for a link.
    pub fn has_lost(&self, node: &NodeName, vni: Vni, link: LinkId) -> bool {
        let inner = self.lock();
        inner.was_wiped && inner.contents.held.get(&(vni, node.clone())) != Some(&link)
    }

    /// Whether the store has lost everything once.
    pub fn was_wiped(&self) -> bool {
        self.lock().was_wiped
    }

    /// What is wrong between a node and the store.
    pub fn client(&self, client: usize) -> Client {
        self.lock().clients[client].clone()
    }

    /// Changes that.
    pub fn set_client(&self, client: usize, faults: Client) {
        let mut inner = self.lock();
        inner.clients[client] = faults;
        // Who is back hears what it has missed.
        inner.watches.values().for_each(Watched::tell);
        drop(inner);
        self.renew_leases();
    }

    /// Breaks the watches of a node.
    pub fn break_watches(&self, client: usize) {
        let mut inner = self.lock();
        let Inner {
            watches, presence, ..
        } = &mut *inner;
        for watched in watches.values_mut() {
            if presence.client(watched.handle) == Some(client) {
                watched.is_broken = true;
                watched.tell();
            }
        }
    }

    /// Ends the session of a node, which finds out with its next sign of life.
    pub fn end_session(&self, client: usize) {
        self.lock().presence.lose(|other| other == Some(client));
    }

    /// The store loses everything.
    pub fn wipe(&self) {
        let mut inner = self.lock();
        *inner.change() = Contents::default();
        inner.was_wiped = true;
        inner.presence.lose(|_| true);
        for watched in inner.watches.values_mut() {
            watched.all = true;
            watched.tell();
        }
    }

    /// Time has passed: who is connected has renewed its lease, others may have lost theirs.
    pub fn renew_leases(&self) {
        let now = self.clock.passed();
        let mut inner = self.lock();
        let Inner {
            watches,
            presence,
            clients,
            ..
        } = &mut *inner;
        let returned = presence.renew(now, |client| !clients[client].is_offline);
        for watched in watches.values_mut() {
            if returned.contains(&watched.handle) {
                watched.all = true;
                watched.tell();
            }
        }
    }
}

/// One opening of the store.
#[derive(Debug)]
struct MemoryStore {
    shared: Shared,
    client: usize,
    handle: u64,
    points: Points,
}

impl MemoryStore {
    /// Reads, perhaps what was there some changes ago.
    fn read<T>(&self, read: impl FnOnce(&Inner, &Contents) -> T) -> Result<T, StoreError> {
        self.begin()?;
        let mut inner = self.shared.lock();
        let (left, age) = inner.clients[self.client].stale;
        let former = (left > 0 && age > 0).then(|| inner.former.get(age - 1));
        let result = match former {
            Some(former) => read(&inner, former.unwrap_or(&inner.contents)),
            None => read(&inner, &inner.contents),
        };
        if left > 0 {
            inner.clients[self.client].stale.0 -= 1;
        }
        drop(inner);
        self.points.pass();
        Ok(result)
    }

    /// Changes something; the answer may get lost.
    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> Result<T, StoreError> {
        self.begin()?;
        let mut inner = self.shared.lock();
        let result = change(&mut inner);
        let unanswered = &mut inner.clients[self.client].unanswered;
        let is_lost = *unanswered > 0;
        *unanswered = unanswered.saturating_sub(1);
        drop(inner);
        self.points.pass();
        if is_lost {
            return Err(StoreError::Unavailable("no answer came".to_owned()));
        }
        Ok(result)
    }

    fn begin(&self) -> Result<(), StoreError> {
        self.points.pass();
        let mut inner = self.shared.lock();
        let client = &mut inner.clients[self.client];
        if client.slow > 0 {
            client.slow -= 1;
            self.shared.clock.advance(SLOW);
        }
        if client.is_offline {
            return Err(offline());
        }
        Ok(())
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.shared.lock().presence.close(self.handle);
    }
}

/// What the agent holds; a watch keeps the store behind it open.
struct Opening(Arc<MemoryStore>);

#[async_trait]
impl Store for Opening {
    fn scope(&self) -> StoreScope {
        StoreScope::Cluster
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn publish(&self, record: &PodRecord, how: Publish) -> Result<Published, StoreError> {
        self.0.change(|inner| {
            let (published, changed) = inner.change().publish(record, how);
            inner.tell(&changed);
            published
        })
    }

    async fn remove_pod(&self, pod: &PodKey, sandbox: &SandboxId) -> Result<(), StoreError> {
        self.0.change(|inner| {
            let changed = inner.change().remove_pod(pod, sandbox);
            inner.tell(&changed);
        })
    }

    async fn read(&self, own: &BTreeSet<PodKey>) -> Result<Facts, StoreError> {
        self.0.read(|_, contents| contents.read(own))
    }

    async fn located_on(&self, node: &NodeName) -> Result<Vec<PodRecord>, StoreError> {
        self.0.read(|_, contents| contents.located_on(node))
    }

    async fn claim_vnis(
        &self,
        node: &NodeName,
        claims: &[VniClaim],
    ) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
        self.0.change(|inner| {
            let before = inner.contents.vnis.clone();
            let grants = inner.change().claim(node, claims);
            inner.tell_of_vnis(claims, &before);
            grants
        })
    }

    async fn release_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError> {
        self.0.change(|inner| {
            inner.change().release(node, vnis);
            inner.tell_of_free();
        })
    }

    async fn held_vnis(&self, node: &NodeName) -> Result<BTreeMap<Vni, LinkId>, StoreError> {
        self.0.change(|inner| inner.contents.held_by(node))
    }

    async fn block_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError> {
        self.0.change(|inner| {
            let blocked = &mut inner.change().blocked;
            blocked.retain(|(of, _)| of != node);
            blocked.extend(vnis.iter().map(|vni| (node.clone(), *vni)));
        })
    }

    async fn register_node(
        &self,
        node: &NodeName,
        timeout: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.0.change(|inner| {
            inner.contents.nodes.insert(node.clone());
            let now = self.0.shared.clock.passed();
            inner.presence.register(node, self.0.handle, timeout, now);
        })
    }

    async fn deregister_node(&self, node: &NodeName) -> Result<(), StoreError> {
        self.0.change(|inner| {
            inner.contents.nodes.remove(node);
            inner
                .contents
                .blocked
                .retain(|(blocked, _)| blocked != node);
            inner.presence.deregister(node);
        })
    }

    async fn lost_nodes(&self) -> Result<BTreeSet<NodeName>, StoreError> {
        self.0.read(|inner, contents| {
            let nodes = contents.nodes.iter();
            nodes
                .filter(|node| !inner.presence.is_alive(node))
                .cloned()
                .collect()
        })
    }

    async fn remove_node(
        &self,
        node: &NodeName,
        reason: RemovalReason,
    ) -> Result<NodeRemoval, StoreError> {
        self.0.change(|inner| {
            if !reason.even_if_alive() && inner.presence.is_alive(node) {
                return NodeRemoval::Alive;
            }
            let mut gone = BTreeSet::new();
            for record in inner.contents.located_on(node) {
                if let Some(sandbox) = record.sandbox() {
                    let changed = inner.change().remove_pod(&record.pod, sandbox);
                    inner.tell(&changed);
                }
                gone.insert(record.pod);
            }
            if reason.releases_vnis() {
                let held = inner.contents.held_by(node).into_keys().collect();
                inner.change().release(node, &held);
                inner.tell_of_free();
            }
            inner.contents.nodes.remove(node);
            inner
                .contents
                .blocked
                .retain(|(blocked, _)| blocked != node);
            inner.presence.deregister(node);
            NodeRemoval::Done(gone)
        })
    }

    async fn watch(&self) -> Result<Box<dyn Watch>, StoreError> {
        self.0.begin()?;
        Ok(Box::new(MemoryWatch::begin(self.0.clone())))
    }
}
