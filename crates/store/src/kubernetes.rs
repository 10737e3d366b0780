//! The Kubernetes API as a store: Links in place of what pods declare and publish.
//!
//! The controller has put into each Link what both nodes need: its pods, their nodes, where these
//! nodes' tunnels end, and the VNI. So this store only tells an agent of the Links with an end on
//! its node, and writes the state of that end. It hears of nothing else, and writes nothing else
//! but the node's own [`NodeUnderlay`](ratchet_api::NodeUnderlay).
//!
//! No call waits for the API: reads are answered from what the watch has told, and writes are done
//! in the background. While the API is silent, everything stays as it was last known.

mod backlog;
mod known;
mod links;
mod state;
#[cfg(test)]
mod testing;
mod watch;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ratchet_api::NodeUnderlaySpec;
use ratchet_model::{
    LinkId, NodeName, PodKey, PodRecord, SandboxId, Vni, device::VXLAN_PORT, record::Facts,
};
use tokio::task::JoinHandle;

use crate::{
    EndReport, NodeRemoval, Publish, Published, RemovalReason, Store, StoreError, StoreHealth,
    StoreOptions, StoreScope, Underlay, VniClaim, VniGrant, Watch,
};
use state::{Reach, Shared};

/// See the module.
pub(crate) struct KubernetesStore {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for KubernetesStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl KubernetesStore {
    /// Starts to listen to the API.
    pub async fn open(options: &StoreOptions) -> Result<Self, StoreError> {
        let node = options.node.clone().ok_or_else(|| {
            let text = "store kubernetes: the node's name is not known: set \"node\"";
            StoreError::Config(text.to_owned())
        })?;
        let shared = Arc::new(Shared::of(node));
        let client = tokio::sync::watch::Sender::new(None);
        let write = write::run(shared.clone(), client.subscribe());
        let watch = watch::run(options.kubeconfig.clone(), shared.clone(), client);
        let tasks = [tokio::spawn(watch), tokio::spawn(write)];
        Ok(Self { shared, tasks })
    }

    /// Waits until the Links are known.
    async fn known(&self) -> Result<(), StoreError> {
        let mut reach = self.shared.reach.subscribe();
        let decided = |reach: &Reach| *reach != Reach::Starting(None);
        match reach.wait_for(decided).await.as_deref() {
            Ok(Reach::Known) => Ok(()),
            Ok(Reach::Starting(Some(why))) => {
                Err(StoreError::Unavailable(format!("store kubernetes: {why}")))
            }
            Ok(Reach::Starting(None)) | Err(_) => Err(StoreError::Unavailable(
                "store kubernetes: closed".to_owned(),
            )),
        }
    }
}

#[async_trait]
impl Store for KubernetesStore {
    fn scope(&self) -> StoreScope {
        StoreScope::Cluster
    }

    fn describe(&self) -> String {
        "kubernetes".to_owned()
    }

    fn declares(&self) -> bool {
        true
    }

    async fn publish_underlay(&self, _: &NodeName, underlay: Underlay) -> Result<(), StoreError> {
        self.shared.set_underlay(NodeUnderlaySpec {
            vtep: underlay.vtep.to_string(),
            mtu: underlay.mtu.bytes(),
            port: VXLAN_PORT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        });
        Ok(())
    }

    fn report(&self, ends: Vec<EndReport>) {
        self.shared.report(ends);
    }

    fn health(&self) -> StoreHealth {
        let is_known = *self.shared.reach.borrow() == Reach::Known;
        self.shared.state().backlog.health(is_known, Instant::now())
    }

    async fn publish(&self, record: &PodRecord, how: Publish) -> Result<Published, StoreError> {
        Ok(self.shared.state().links.publish(record, how))
    }

    async fn remove_pod(&self, pod: &PodKey, sandbox: &SandboxId) -> Result<(), StoreError> {
        self.shared.remove_pod(pod, sandbox);
        Ok(())
    }

    async fn read(&self, own: &BTreeSet<PodKey>) -> Result<Facts, StoreError> {
        self.known().await?;
        Ok(self.shared.state().links.facts(own))
    }

    /// What the Links' ends say: an agent that has lost its state directory learns so of the pods
    /// that have links.
    async fn located_on(&self, _: &NodeName) -> Result<Vec<PodRecord>, StoreError> {
        self.known().await?;
        Ok(self.shared.state().links.located())
    }

    async fn claim_vnis(
        &self,
        _: &NodeName,
        claims: &[VniClaim],
    ) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
        self.known().await?;
        Ok(self.shared.state().links.claim(claims))
    }

    async fn release_vnis(&self, _: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError> {
        self.shared.change(|links| {
            links.release(vnis);
            BTreeSet::new()
        });
        Ok(())
    }

    async fn held_vnis(&self, _: &NodeName) -> Result<BTreeMap<Vni, LinkId>, StoreError> {
        self.known().await?;
        Ok(self.shared.state().links.held().clone())
    }

    async fn block_vnis(&self, _: &NodeName, _: &BTreeSet<Vni>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn register_node(&self, _: &NodeName, _: Option<Duration>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn deregister_node(&self, _: &NodeName) -> Result<(), StoreError> {
        Ok(())
    }

    /// Kubernetes knows which nodes are lost, and deletes their pods.
    async fn lost_nodes(&self) -> Result<BTreeSet<NodeName>, StoreError> {
        Ok(BTreeSet::new())
    }

    async fn remove_node(&self, _: &NodeName, _: RemovalReason) -> Result<NodeRemoval, StoreError> {
        Ok(NodeRemoval::Done(BTreeSet::new()))
    }

    async fn watch(&self) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(self.shared.state().watch()))
    }
}
