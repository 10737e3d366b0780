//! A store with failpoints before and after each of its calls, for the agents of tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ratchet_failpoint::pass;
use ratchet_model::{LinkId, NodeName, PodKey, PodRecord, SandboxId, record::Facts};

use crate::{Publish, Published, Scope, Store, StoreError, VniClaim, VniGrant, Watch, Withdrawn};

/// Puts points around a store that was just opened.
pub(crate) fn around(store: Arc<dyn Store>) -> Arc<dyn Store> {
    pass("store.open");
    Arc::new(WithPoints(store))
}

struct WithPoints(Arc<dyn Store>);

#[async_trait]
impl Store for WithPoints {
    fn scope(&self) -> Scope {
        self.0.scope()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    async fn publish(&self, record: &PodRecord, how: Publish) -> Result<Published, StoreError> {
        between(
            "store.before_publish",
            self.0.publish(record, how),
            "store.publish",
        )
        .await
    }

    async fn depart(&self, pod: &PodKey, sandbox: &SandboxId) -> Result<(), StoreError> {
        between(
            "store.before_depart",
            self.0.depart(pod, sandbox),
            "store.depart",
        )
        .await
    }

    async fn read(&self, own: &BTreeSet<PodKey>) -> Result<Facts, StoreError> {
        between("store.before_read", self.0.read(own), "store.read").await
    }

    async fn located_on(&self, node: &NodeName) -> Result<Vec<PodRecord>, StoreError> {
        between("store.before_read", self.0.located_on(node), "store.read").await
    }

    async fn claim_vnis(
        &self,
        claims: &[VniClaim],
    ) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
        between(
            "store.before_claim",
            self.0.claim_vnis(claims),
            "store.claim",
        )
        .await
    }

    async fn attend(&self, node: &NodeName, timeout: Option<Duration>) -> Result<(), StoreError> {
        between(
            "store.before_attend",
            self.0.attend(node, timeout),
            "store.attend",
        )
        .await
    }

    async fn retire(&self, node: &NodeName) -> Result<(), StoreError> {
        between("store.before_retire", self.0.retire(node), "store.retire").await
    }

    async fn lost_nodes(&self) -> Result<BTreeSet<NodeName>, StoreError> {
        between("store.before_read", self.0.lost_nodes(), "store.read").await
    }

    async fn withdraw(
        &self,
        node: &NodeName,
        even_if_alive: bool,
    ) -> Result<Withdrawn, StoreError> {
        between(
            "store.before_withdraw",
            self.0.withdraw(node, even_if_alive),
            "store.withdraw",
        )
        .await
    }

    async fn watch(&self) -> Result<Box<dyn Watch>, StoreError> {
        self.0.watch().await
    }
}

/// A call with the points before and after it.
async fn between<T>(before: &str, call: impl Future<Output = T>, after: &str) -> T {
    pass(before);
    let result = call.await;
    pass(after);
    result
}
