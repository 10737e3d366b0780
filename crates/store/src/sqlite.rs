//! The store in an SQLite file, for the agents of one machine: the nodes of a lab, or a single
//! node.
//!
//! It needs no server. Agents in different network namespaces share the file, and see each other's
//! changes within milliseconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use ratchet_model::{LinkId, NodeName, PodKey, PodRecord, SandboxId, Vni, VniRange, record::Facts};

mod database;
mod error;
mod records;
mod schema;
mod snapshot;
#[cfg(test)]
mod tests;
mod vnis;
mod watch;
mod worker;

use crate::{
    NodeRemoval, Publish, Published, RemovalReason, Store, StoreError, StoreScope, VniClaim,
    VniGrant, Watch,
};
use database::{Database, TIMEOUT};
use worker::Worker;

/// A store in a file.
pub(crate) struct SqliteStore {
    path: PathBuf,
    timeout: Duration,
    vnis: VniRange,
    worker: Worker,
}

impl SqliteStore {
    /// Opens the file, or creates it.
    pub(crate) async fn open(path: &Path, vnis: VniRange) -> Result<Self, StoreError> {
        let store = Self::open_with(path, TIMEOUT).await?;
        Ok(Self { vnis, ..store })
    }

    /// The same, with this timeout for other processes' locks.
    async fn open_with(path: &Path, timeout: Duration) -> Result<Self, StoreError> {
        let worker = start("ratchet-store", path, timeout)?;
        worker
            .run(|database| database.connection().map(drop))
            .await?;
        Ok(Self {
            path: path.to_owned(),
            timeout,
            vnis: VniRange::AUTOMATIC,
            worker,
        })
    }
}

fn start(name: &str, path: &Path, timeout: Duration) -> Result<Worker, StoreError> {
    Worker::start(name, Database::new(path.to_owned(), timeout)).map_err(|error| {
        StoreError::Unavailable(format!(
            "store sqlite:{}: cannot start a thread: {error}",
            path.display()
        ))
    })
}

#[async_trait]
impl Store for SqliteStore {
    fn scope(&self) -> StoreScope {
        StoreScope::Host
    }

    fn describe(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    async fn publish(&self, record: &PodRecord, how: Publish) -> Result<Published, StoreError> {
        let record = record.clone();
        self.worker
            .run(move |database| records::publish(database.connection()?, &record, how))
            .await
    }

    async fn remove_pod(&self, pod: &PodKey, sandbox: &SandboxId) -> Result<(), StoreError> {
        let (pod, sandbox) = (pod.clone(), sandbox.clone());
        self.worker
            .run(move |database| records::remove_pod(database.connection()?, &pod, &sandbox))
            .await
    }

    async fn read(&self, own: &BTreeSet<PodKey>) -> Result<Facts, StoreError> {
        let own = own.clone();
        self.worker
            .run(move |database| records::read(database.connection()?, &own))
            .await
    }

    async fn located_on(&self, node: &NodeName) -> Result<Vec<PodRecord>, StoreError> {
        let node = node.clone();
        self.worker
            .run(move |database| records::located_on(database.connection()?, &node))
            .await
    }

    async fn claim_vnis(
        &self,
        node: &NodeName,
        claims: &[VniClaim],
    ) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
        let (node, range, claims) = (node.clone(), self.vnis, claims.to_vec());
        self.worker
            .run(move |database| vnis::claim(database.connection()?, &node, range, &claims))
            .await
    }

    async fn release_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError> {
        let (node, vnis) = (node.clone(), vnis.clone());
        self.worker
            .run(move |database| vnis::release(database.connection()?, &node, &vnis))
            .await
    }

    async fn held_vnis(&self, node: &NodeName) -> Result<BTreeMap<Vni, LinkId>, StoreError> {
        let node = node.clone();
        self.worker
            .run(move |database| vnis::held(database.connection()?, &node))
            .await
    }

    async fn block_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError> {
        let (node, vnis) = (node.clone(), vnis.clone());
        self.worker
            .run(move |database| vnis::block(database.connection()?, &node, &vnis))
            .await
    }

    async fn register_node(
        &self,
        _node: &NodeName,
        _timeout: Option<Duration>,
    ) -> Result<(), StoreError> {
        // The agents of one machine end with it.
        Ok(())
    }

    async fn deregister_node(&self, node: &NodeName) -> Result<(), StoreError> {
        let node = node.clone();
        self.worker
            .run(move |database| vnis::unblock(database.connection()?, &node))
            .await
    }

    async fn lost_nodes(&self) -> Result<BTreeSet<NodeName>, StoreError> {
        Ok(BTreeSet::new())
    }

    async fn remove_node(
        &self,
        node: &NodeName,
        reason: RemovalReason,
    ) -> Result<NodeRemoval, StoreError> {
        if !reason.even_if_alive() {
            return Ok(NodeRemoval::Unsure);
        }
        let node = node.clone();
        self.worker
            .run(move |database| records::remove_node(database.connection()?, &node))
            .await
    }

    async fn watch(&self) -> Result<Box<dyn Watch>, StoreError> {
        // Its own connection: a watch never waits for a write, and sees this agent's own changes.
        let worker = start("ratchet-watch", &self.path, self.timeout)?;
        Ok(Box::new(watch::SqliteWatch::start(worker).await?))
    }
}
