//! A store with failpoints before and after each call, for the agents of tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ratchet_failpoint::pass;
use ratchet_model::{LinkId, NodeName, PodKey, PodRecord, SandboxId, Vni, record::Facts};

use crate::{
    EndReport, NodeRemoval, Publish, Published, RemovalReason, Store, StoreError, StoreHealth,
    StoreScope, Underlay, VniClaim, VniGrant, Watch,
};

/// Adds failpoints to a store.
pub(crate) fn around(store: Arc<dyn Store>) -> Arc<dyn Store> {
    pass("store.open");
    Arc::new(WithPoints(store))
}

struct WithPoints(Arc<dyn Store>);

#[async_trait]
impl Store for WithPoints {
    fn scope(&self) -> StoreScope {
        self.0.scope()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn declares(&self) -> bool {
        self.0.declares()
    }

    async fn publish_underlay(
        &self,
        node: &NodeName,
        underlay: Underlay,
    ) -> Result<(), StoreError> {
        self.0.publish_underlay(node, underlay).await
    }

    fn health(&self) -> StoreHealth {
        self.0.health()
    }

    fn report(&self, ends: Vec<EndReport>) {
        self.0.report(ends);
    }

    async fn publish(&self, record: &PodRecord, how: Publish) -> Result<Published, StoreError> {
        between(
            "store.before_publish",
            self.0.publish(record, how),
            "store.publish",
        )
        .await
    }

    async fn remove_pod(&self, pod: &PodKey, sandbox: &SandboxId) -> Result<(), StoreError> {
        between(
            "store.before_remove_pod",
            self.0.remove_pod(pod, sandbox),
            "store.remove_pod",
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
        node: &NodeName,
        claims: &[VniClaim],
    ) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
        between(
            "store.before_claim",
            self.0.claim_vnis(node, claims),
            "store.claim",
        )
        .await
    }

    async fn release_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError> {
        between(
            "store.before_release",
            self.0.release_vnis(node, vnis),
            "store.release",
        )
        .await
    }

    async fn held_vnis(&self, node: &NodeName) -> Result<BTreeMap<Vni, LinkId>, StoreError> {
        between("store.before_read", self.0.held_vnis(node), "store.read").await
    }

    async fn block_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError> {
        between(
            "store.before_block",
            self.0.block_vnis(node, vnis),
            "store.block",
        )
        .await
    }

    async fn register_node(
        &self,
        node: &NodeName,
        timeout: Option<Duration>,
    ) -> Result<(), StoreError> {
        between(
            "store.before_register_node",
            self.0.register_node(node, timeout),
            "store.register_node",
        )
        .await
    }

    async fn deregister_node(&self, node: &NodeName) -> Result<(), StoreError> {
        between(
            "store.before_deregister_node",
            self.0.deregister_node(node),
            "store.deregister_node",
        )
        .await
    }

    async fn lost_nodes(&self) -> Result<BTreeSet<NodeName>, StoreError> {
        between("store.before_read", self.0.lost_nodes(), "store.read").await
    }

    async fn remove_node(
        &self,
        node: &NodeName,
        reason: RemovalReason,
    ) -> Result<NodeRemoval, StoreError> {
        between(
            "store.before_remove_node",
            self.0.remove_node(node, reason),
            "store.remove_node",
        )
        .await
    }

    async fn watch(&self) -> Result<Box<dyn Watch>, StoreError> {
        self.0.watch().await
    }
}

/// A call with the failpoints before and after it.
async fn between<T>(before: &str, call: impl Future<Output = T>, after: &str) -> T {
    pass(before);
    let result = call.await;
    pass(after);
    result
}
