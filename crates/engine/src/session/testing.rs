//! A store for tests that answers, or hangs, as it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::future::{BoxFuture, ready};
use ratchet_model::{LinkId, NodeName, PodKey, PodRecord, SandboxId, Vni, record::Facts};
use ratchet_store::{
    NodeRemoval, Publish, Published, RemovalReason, Store, StoreError, StoreScope, VniClaim,
    VniGrant, Watch,
};

use crate::{
    clock::{Clock, SystemClock},
    store::OpenStore,
};

/// A store that tells nothing of what it is told, and answers or hangs.
#[derive(Default)]
pub(crate) struct Moody {
    hangs: AtomicBool,
    calls: AtomicU32,
    published: Mutex<BTreeMap<PodKey, PodRecord>>,
}

impl Moody {
    /// Whether it hangs from now on.
    pub fn set_hanging(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }

    /// How often it was called, without what the probe calls: that has a timer of its own, in real
    /// time.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// What was published of a pod last, and arrived.
    pub fn published(&self, pod: &PodKey) -> Option<PodRecord> {
        self.published.lock().unwrap().get(pod).cloned()
    }

    /// Opens it.
    pub fn opener(self: &Arc<Self>) -> OpenStore {
        let moody = self.clone();
        Arc::new(move |_| {
            let store: Arc<dyn Store> = Arc::new(Handed(moody.clone()));
            Box::pin(ready(Ok(store)))
        })
    }

    async fn answer<T>(&self, answer: T) -> Result<T, StoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.hang_or(answer).await
    }

    async fn hang_or<T>(&self, answer: T) -> Result<T, StoreError> {
        if self.hangs.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        Ok(answer)
    }
}

/// What is opened.
struct Handed(Arc<Moody>);

#[async_trait]
impl Store for Handed {
    fn scope(&self) -> StoreScope {
        StoreScope::Cluster
    }

    fn describe(&self) -> String {
        "moody".into()
    }

    async fn publish(&self, record: &PodRecord, _: Publish) -> Result<Published, StoreError> {
        let created = record.created;
        let answer = self.0.answer(Published::Stored { created }).await;
        let mut published = self.0.published.lock().unwrap();
        published.insert(record.pod.clone(), record.clone());
        answer
    }

    async fn remove_pod(&self, _: &PodKey, _: &SandboxId) -> Result<(), StoreError> {
        self.0.answer(()).await
    }

    async fn read(&self, pods: &BTreeSet<PodKey>) -> Result<Facts, StoreError> {
        if pods.is_empty() {
            return self.0.hang_or(Facts::default()).await;
        }
        self.0.answer(Facts::default()).await
    }

    async fn located_on(&self, _: &NodeName) -> Result<Vec<PodRecord>, StoreError> {
        self.0.answer(Vec::new()).await
    }

    async fn claim_vnis(
        &self,
        _: &NodeName,
        _: &[VniClaim],
    ) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
        self.0.answer([].into()).await
    }

    async fn release_vnis(&self, _: &NodeName, _: &BTreeSet<Vni>) -> Result<(), StoreError> {
        self.0.answer(()).await
    }

    async fn held_vnis(&self, _: &NodeName) -> Result<BTreeMap<Vni, LinkId>, StoreError> {
        self.0.answer([].into()).await
    }

    async fn block_vnis(&self, _: &NodeName, _: &BTreeSet<Vni>) -> Result<(), StoreError> {
        self.0.answer(()).await
    }

    async fn register_node(&self, _: &NodeName, _: Option<Duration>) -> Result<(), StoreError> {
        self.0.answer(()).await
    }

    async fn deregister_node(&self, _: &NodeName) -> Result<(), StoreError> {
        self.0.answer(()).await
    }

    async fn lost_nodes(&self) -> Result<BTreeSet<NodeName>, StoreError> {
        self.0.answer(BTreeSet::new()).await
    }

    async fn remove_node(&self, _: &NodeName, _: RemovalReason) -> Result<NodeRemoval, StoreError> {
        self.0.answer(NodeRemoval::Unsure).await
    }

    async fn watch(&self) -> Result<Box<dyn Watch>, StoreError> {
        pending().await
    }
}

/// A clock that a test moves. Calls that do not complete at once are abandoned at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hasty(Arc<Mutex<Duration>>);

impl Hasty {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for Hasty {
    fn now(&self) -> Instant {
        SystemClock.now() + *self.0.lock().unwrap()
    }

    fn unix_nanos(&self) -> u64 {
        SystemClock.unix_nanos()
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }
}
