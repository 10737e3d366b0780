//! The store in an etcd cluster (v3 API, 3.4 and later), for all nodes of a cluster. The key layout
//! is in [`keys`].
//!
//! Every step of a change is one transaction. It succeeds only if the facts that the change depends
//! on have not changed; otherwise the change is computed again. An agent reads and watches the keys
//! of its own pods, of their links and of their peers, so its traffic grows with its own links and
//! not with the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ratchet_model::{LinkId, NodeName, PodKey, PodRecord, SandboxId, Vni, VniRange, record::Facts};
use tokio::sync;

mod access;
mod attempts;
mod change;
mod declared;
mod error;
mod keys;
mod nodes;
mod numbers;
mod options;
mod proto;
mod reader;
mod records;
mod rpc;
mod vni_set;
mod vnis;
mod watch;

use crate::{
    HostPort, NodeRemoval, Publish, Published, RemovalReason, Store, StoreError, StoreOptions,
    StoreScope, StoreUrl, VniClaim, VniGrant, Watch,
};
use keys::Keys;
use rpc::Rpc;
use watch::Unnumbered;

/// How many operations, and how many conditions, one transaction may have: the default of etcd's
/// `--max-txn-ops` is 128.
const TXN_OPS: usize = 100;

/// A cluster, and the prefix of our keys.
pub(crate) struct Etcd {
    rpc: Rpc,
    keys: Keys,
}

/// A store in an etcd cluster.
pub(crate) struct EtcdStore {
    etcd: Arc<Etcd>,
    claims: sync::Mutex<vnis::Owners>,
    vnis: VniRange,
    /// What the last read of each own pod found, for the watches.
    unnumbered: sync::watch::Sender<Unnumbered>,
    presence: nodes::Presence,
}

impl EtcdStore {
    /// Connects, and checks that the keys can be read.
    pub(crate) async fn open(
        url: &StoreUrl,
        hosts: &[HostPort],
        tls: bool,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        options.etcd.check(tls)?;
        let rpc = Rpc::new(url.to_string(), hosts, tls, &options.etcd)?;
        let etcd = Arc::new(Etcd {
            rpc,
            keys: Keys::new(&options.etcd.prefix),
        });
        etcd.any_below(&etcd.keys.root()).await?;
        let unnumbered = sync::watch::Sender::default();
        Ok(Self {
            etcd,
            claims: sync::Mutex::default(),
            vnis: options.vnis,
            unnumbered,
            presence: nodes::Presence::default(),
        })
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn scope(&self) -> StoreScope {
        StoreScope::Cluster
    }

    fn describe(&self) -> String {
        self.etcd.rpc.url().to_owned()
    }

    async fn publish(&self, record: &PodRecord, how: Publish) -> Result<Published, StoreError> {
        records::publish(&self.etcd, record, how).await
    }

    async fn remove_pod(&self, pod: &PodKey, sandbox: &SandboxId) -> Result<(), StoreError> {
        records::remove_pod(&self.etcd, pod, sandbox).await
    }

    async fn read(&self, own: &BTreeSet<PodKey>) -> Result<Facts, StoreError> {
        let (facts, revision) = records::read(&self.etcd, own).await?;
        self.unnumbered
            .send_if_modified(|unnumbered| unnumbered.update(own, &facts, revision));
        Ok(facts)
    }

    async fn located_on(&self, node: &NodeName) -> Result<Vec<PodRecord>, StoreError> {
        records::located_on(&self.etcd, node).await
    }

    async fn claim_vnis(
        &self,
        node: &NodeName,
        claims: &[VniClaim],
    ) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
        // One at a time within this process: concurrent changes would only fail each other's
        // conditions.
        let mut owners = self.claims.lock().await;
        vnis::claim(&self.etcd, &mut owners, (node, self.vnis), claims).await
    }

    async fn release_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError> {
        numbers::release(&self.etcd, node, vnis).await
    }

    async fn held_vnis(&self, node: &NodeName) -> Result<BTreeMap<Vni, LinkId>, StoreError> {
        numbers::held(&self.etcd, node).await
    }

    async fn block_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError> {
        numbers::block(&self.etcd, node, vnis).await
    }

    async fn register_node(
        &self,
        node: &NodeName,
        timeout: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.presence.register_node(&self.etcd, node, timeout).await
    }

    async fn deregister_node(&self, node: &NodeName) -> Result<(), StoreError> {
        self.presence.deregister_node(&self.etcd, node).await
    }

    async fn lost_nodes(&self) -> Result<BTreeSet<NodeName>, StoreError> {
        nodes::lost(&self.etcd).await
    }

    async fn remove_node(
        &self,
        node: &NodeName,
        reason: RemovalReason,
    ) -> Result<NodeRemoval, StoreError> {
        nodes::remove_node(&self.etcd, node, reason).await
    }

    async fn watch(&self) -> Result<Box<dyn Watch>, StoreError> {
        let (unnumbered, lapsed) = (self.unnumbered.subscribe(), self.presence.lapsed());
        Ok(Box::new(
            watch::EtcdWatch::start(self.etcd.clone(), unnumbered, lapsed).await?,
        ))
    }
}
