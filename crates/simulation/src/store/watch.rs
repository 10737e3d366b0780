//! Watches on the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use ratchet_model::{LinkId, PodKey, PodRecord, Vni};
use ratchet_store::{Change, Interest, StoreError, VniClaim, Watch};
use tokio::sync::Notify;

use super::{Inner, MemoryStore, facts::Changed};

/// What a watch has to tell.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// The opening of the store that it belongs to.
    pub handle: u64,
    pub interest: Interest,
    pub pending: BTreeSet<PodKey>,
    pub all: bool,
    pub is_broken: bool,
    pub news: Arc<Notify>,
}

impl Watched {
    /// A record has changed: it concerns its pod, and the own pods with which it declares links, or
    /// did before.
    pub fn note(&mut self, (before, after): &Changed) {
        let records: Vec<&PodRecord> = before.iter().chain(after).collect();
        for record in &records {
            let own = record.peers().into_iter().chain([&record.pod]);
            let own: Vec<PodKey> = own
                .filter(|pod| self.interest.own.contains(*pod))
                .cloned()
                .collect();
            self.pending.extend(own);
            if self.interest.peers.contains(&record.pod) {
                self.pending.insert(record.pod.clone());
            }
        }
        self.tell();
    }

    /// VNIs of links of these pods were given.
    pub fn note_vnis<'p>(&mut self, pods: impl Iterator<Item = &'p PodKey>) {
        let own = pods.filter(|pod| self.interest.own.contains(*pod)).cloned();
        self.pending.extend(own);
        self.tell();
    }

    /// VNIs that pods wait for may be free.
    pub fn note_free(&mut self, is_free: impl Fn(Vni) -> bool) {
        let awaited = self.interest.awaited.iter();
        let free = awaited.filter(|(vni, _)| is_free(**vni));
        self.pending
            .extend(free.flat_map(|(_, pods)| pods).cloned());
        self.tell();
    }

    pub fn tell(&self) {
        if self.all || self.is_broken || !self.pending.is_empty() {
            self.news.notify_one();
        }
    }

    /// Pods that are new in the interest count as changed.
    fn set_interest(&mut self, interest: Interest) {
        let before = std::mem::replace(&mut self.interest, interest);
        let own = self.interest.own.difference(&before.own);
        let peers = self
            .interest
            .peers
            .iter()
            .filter(|pod| !before.own.contains(*pod) && !before.peers.contains(*pod));
        let awaited = self.interest.awaited.iter();
        let awaiting = awaited
            .filter(|(vni, pods)| before.awaited.get(vni) != Some(pods))
            .flat_map(|(_, pods)| pods);
        self.pending
            .extend(own.chain(peers).chain(awaiting).cloned());
        let interest = &self.interest;
        self.pending
            .retain(|pod| interest.own.contains(pod) || interest.peers.contains(pod));
        self.tell();
    }

    fn take(&mut self) -> Option<Result<Change, StoreError>> {
        if self.is_broken {
            let text = "the simulation broke the watch".to_owned();
            return Some(Err(StoreError::Unavailable(text)));
        }
        let pending = std::mem::take(&mut self.pending);
        if std::mem::take(&mut self.all) {
            return Some(Ok(Change::All));
        }
        (!pending.is_empty()).then_some(Ok(Change::Pods(pending)))
    }
}

impl Inner {
    /// Tells of VNIs that pods wait for and that may be free now.
    pub(super) fn tell_of_free(&mut self) {
        let contents = &self.contents;
        let watches = self.watches.values_mut();
        watches.for_each(|watched| watched.note_free(|vni| contents.is_free(vni)));
    }

    pub(super) fn tell_of_vnis(&mut self, claims: &[VniClaim], before: &BTreeMap<LinkId, Vni>) {
        let after = &self.contents.vnis;
        let is_new = |claim: &&VniClaim| after.get(&claim.link) != before.get(&claim.link);
        for watched in self.watches.values_mut() {
            watched.note_vnis(claims.iter().filter(is_new).flat_map(|claim| &claim.pods));
        }
    }

    pub(super) fn tell(&mut self, changed: &[Changed]) {
        for watched in self.watches.values_mut() {
            changed.iter().for_each(|change| watched.note(change));
        }
        self.tell_of_free();
    }
}

/// A running watch.
pub(super) struct MemoryWatch {
    store: Arc<MemoryStore>,
    number: u64,
    news: Arc<Notify>,
}

impl MemoryWatch {
    /// Begins; the first change is everything.
    pub fn begin(store: Arc<MemoryStore>) -> Self {
        let watched = Watched {
            handle: store.handle,
            all: true,
            ..Watched::default()
        };
        let news = watched.news.clone();
        let mut shared = store.shared.lock();
        let number = shared.number();
        shared.watches.insert(number, watched);
        drop(shared);
        news.notify_one();
        Self {
            store,
            number,
            news,
        }
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.store.shared.lock().watches.remove(&self.number);
    }
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn interest(&mut self, interest: Interest) -> Result<(), StoreError> {
        let mut shared = self.store.shared.lock();
        if let Some(watched) = shared.watches.get_mut(&self.number) {
            watched.set_interest(interest);
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Change, StoreError> {
        loop {
            {
                let mut shared = self.store.shared.lock();
                let is_offline = shared.clients[self.store.client].is_offline;
                let watched = shared.watches.get_mut(&self.number);
                // What happens while a node is cut off it hears of when it is back.
                let news = watched
                    .filter(|watched| !is_offline || watched.is_broken)
                    .and_then(Watched::take);
                if let Some(news) = news {
                    return news;
                }
            }
            self.news.notified().await;
        }
    }
}
