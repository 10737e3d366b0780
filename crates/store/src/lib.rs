//! The store: the facts that nodes share, behind one trait.
//!
//! A backend keeps records and VNIs, writes the consequences of a change ([`change`]) in one
//! transaction, and reports changes. It may not know kernels, plugins or wiring, and no detail of a
//! backend leaves this crate. [`open`] is the only entry.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ratchet_failpoint as failpoint;
use ratchet_model::{
    LinkId, Mtu, NodeName, PodKey, PodRecord, Reason, SandboxId, Vni, device::LinkKind,
    record::Facts,
};

pub mod change;
mod etcd;
mod failpoints;
mod kubernetes;
mod options;
mod sqlite;
mod url;
pub mod vni;

pub use options::{EtcdOptions, StoreOptions};
pub use url::{HostPort, StoreUrl};
pub use vni::{VniClaim, VniGrant};

/// Opens a store. Creates it first if that is possible.
///
/// # Errors
/// [`StoreError`], whose text names the store, what is wrong and what to do.
pub async fn open(options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let url = &options.url;
    let store: Arc<dyn Store> = match url {
        StoreUrl::Sqlite(path) => Arc::new(sqlite::SqliteStore::open(path, options.vnis).await?),
        StoreUrl::Etcd { hosts, tls } => {
            Arc::new(etcd::EtcdStore::open(url, hosts, *tls, options).await?)
        }
        StoreUrl::Kubernetes => Arc::new(kubernetes::KubernetesStore::open(options).await?),
    };
    Ok(if failpoint::ARMED {
        failpoints::around(store)
    } else {
        store
    })
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or was locked for too long: retry. The text says what to do.
    #[error("{0}")]
    Unavailable(String),
    /// A person must correct something: it is corrupt, not writable, of another version, or not
    /// ours. The text says what to do.
    #[error("{0}")]
    Broken(String),
    /// This record or answer is too large. Everything else works. The text says what to do.
    #[error("{0}")]
    TooLarge(String),
    /// Its URL or a parameter of it is wrong.
    #[error("{0}")]
    Config(String),
}

/// Who shares a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreScope {
    /// The agents of one machine.
    Host,
    /// All nodes of a cluster.
    Cluster,
}

/// How a record is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    /// It is a new sandbox's: it replaces every earlier record, and its `created` is increased
    /// above that of the replaced one.
    New,
    /// It was published before, and is published again after a restart or an outage: it does not
    /// replace the record of a later sandbox, unless that has departed.
    Again,
}

/// The result of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The record is in the store, with this `created`.
    Stored {
        /// [`PodRecord::created`] as stored.
        created: u64,
    },
    /// The store has a later sandbox of the pod. Nothing was written.
    Superseded,
    /// Another pod has the name, and lives (`PodRecord::owner`). Nothing was written.
    Held {
        /// What the runtime calls it.
        owner: String,
        /// Its node.
        node: NodeName,
    },
}

/// The pods whose changes an agent needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// Its own pods: everything that concerns them, including declarations of others.
    pub own: BTreeSet<PodKey>,
    /// Their peers: only the peers' records.
    pub peers: BTreeSet<PodKey>,
    /// VNIs of other links that links of own pods wait for: these pods hear when one is free.
    pub awaited: BTreeMap<Vni, BTreeSet<PodKey>>,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Facts that concern these pods.
    Pods(BTreeSet<PodKey>),
    /// Perhaps everything: the watch has started again, so read everything again.
    All,
}

impl Change {
    /// This change and a later one as one.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        match (self, later) {
            (Self::Pods(mut pods), Self::Pods(more)) => {
                pods.extend(more);
                Self::Pods(pods)
            }
            (Self::All, _) | (_, Self::All) => Self::All,
        }
    }
}

/// Why a node's pods are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalReason {
    /// Its agent has given no sign of life for its timeout. The node may come back, and may still
    /// have devices, so it goes on holding its VNIs.
    Lost,
    /// A person says that the node is gone for good: its VNIs are released as well.
    Forgotten {
        /// Even if its agent is alive.
        even_if_alive: bool,
    },
}

impl RemovalReason {
    /// Whether a node is removed although its agent is alive.
    pub fn even_if_alive(self) -> bool {
        self == Self::Forgotten {
            even_if_alive: true,
        }
    }

    /// Whether the node's VNIs are released.
    pub fn releases_vnis(self) -> bool {
        matches!(self, Self::Forgotten { .. })
    }
}

/// The result of [`Store::remove_node`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeRemoval {
    /// The node's pods, which were removed.
    Done(BTreeSet<PodKey>),
    /// The node's agent is alive. Nothing was removed, or only some of the pods.
    Alive,
    /// This store cannot tell whether the node's agent is alive. Nothing was removed.
    Unsure,
}

/// Where a node's tunnels end, and what fits into them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Underlay {
    /// The node's parent address.
    pub vtep: IpAddr,
    /// The greatest link MTU that fits.
    pub mtu: Mtu,
}

/// The state of one end of a link on this node.
#[derive(Debug, Clone, PartialEq)]
pub struct EndReport {
    /// The link.
    pub link: LinkId,
    /// The pod at this end.
    pub pod: PodKey,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// Which device there is or should be.
    pub kind: Option<LinkKind>,
    /// Its MTU.
    pub mtu: Option<Mtu>,
    /// Why the link is not up, if it is not.
    pub reason: Option<Reason>,
}

/// What a store with work in the background says of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Why it is of no use yet or any more, although its calls succeed.
    pub unready: Option<&'static str>,
    /// How much it has written.
    pub writes: u64,
    /// How many attempts to write have failed, or were refused.
    pub failures: u64,
}

/// The facts that nodes share. All methods are safe if other agents do the same at the same time.
#[async_trait]
pub trait Store: Send + Sync {
    /// Who shares the store.
    fn scope(&self) -> StoreScope;

    /// The store for messages: its URL without secrets.
    fn describe(&self) -> String;

    /// Whether the store says what pods declare ([`Facts::declared`]), and not the pods. Such a
    /// store is told of a node before its first pod, and of the state of links.
    fn declares(&self) -> bool {
        false
    }

    /// Tells a store that [`Store::declares`] where a node's tunnels end.
    async fn publish_underlay(&self, _: &NodeName, _: Underlay) -> Result<(), StoreError> {
        Ok(())
    }

    /// Tells a store that [`Store::declares`] the state of all ends of links on this node. It
    /// does not wait: the store writes down what has changed in its own time.
    fn report(&self, _: Vec<EndReport>) {}

    /// How the store's work in the background goes. Answers at once.
    fn health(&self) -> StoreHealth {
        StoreHealth::default()
    }

    /// Publishes a pod's record, with all consequences: atomically, or, if that is too much for the
    /// store, in steps. After each step the store is consistent ([`change`]).
    async fn publish(&self, record: &PodRecord, how: Publish) -> Result<Published, StoreError>;

    /// Removes a sandbox, with all consequences, in the same way. Nothing happens if the pod's
    /// record is absent or another sandbox's: a late DEL undoes only its own sandbox.
    async fn remove_pod(&self, pod: &PodKey, sandbox: &SandboxId) -> Result<(), StoreError>;

    /// The facts that concern these pods.
    async fn read(&self, own: &BTreeSet<PodKey>) -> Result<Facts, StoreError>;

    /// The records of all pods of a node. It goes through all records of the store, so it is only
    /// for an agent that has lost its state directory.
    async fn located_on(&self, node: &NodeName) -> Result<Vec<PodRecord>, StoreError>;

    /// Gives each declared link its VNI: the fixed one, or else the one it has or had, or else the
    /// lowest free one of the range ([`StoreOptions::vnis`]). From then on `node` holds it.
    /// Idempotent.
    async fn claim_vnis(
        &self,
        node: &NodeName,
        claims: &[VniClaim],
    ) -> Result<BTreeMap<LinkId, VniGrant>, StoreError>;

    /// A node no longer holds these VNIs: it has no device of them, and makes none before it has
    /// claimed them again. Those whose links have ended are free when no node holds them.
    async fn release_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError>;

    /// The VNIs that a node holds, and for which links. It goes through all VNIs of the store, so
    /// it is only for an agent that does not know.
    async fn held_vnis(&self, node: &NodeName) -> Result<BTreeMap<Vni, LinkId>, StoreError>;

    /// A node's VXLAN devices that are not ours have these VNIs, in place of those that were said
    /// before. No link of the node gets one of them, until [`Store::deregister_node`].
    async fn block_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError>;

    /// Registers a node: its agent is alive as long as this store is open. After `timeout` without
    /// a sign of life (`None`: never), the node is one of the [`Store::lost_nodes`]. Call it before
    /// the node's first record is published, and again from time to time, since a store may lose
    /// data. If it did, the watch reports [`Change::All`].
    async fn register_node(
        &self,
        node: &NodeName,
        timeout: Option<Duration>,
    ) -> Result<(), StoreError>;

    /// Undoes [`Store::register_node`]: the node has no records any more.
    async fn deregister_node(&self, node: &NodeName) -> Result<(), StoreError>;

    /// The nodes that may have records, and whose agents have given no sign of life for their own
    /// `timeout`.
    async fn lost_nodes(&self) -> Result<BTreeSet<NodeName>, StoreError>;

    /// Removes all pods of a node. Does nothing if the node's agent is alive, unless
    /// [`RemovalReason::even_if_alive`]. A node that comes back publishes its records again. It
    /// goes through all records of the store. Idempotent.
    async fn remove_node(
        &self,
        node: &NodeName,
        reason: RemovalReason,
    ) -> Result<NodeRemoval, StoreError>;

    /// Starts a watch. The first change is always [`Change::All`], so that nothing is missed
    /// between a read and the watch.
    async fn watch(&self) -> Result<Box<dyn Watch>, StoreError>;
}

/// A running watch.
#[async_trait]
pub trait Watch: Send {
    /// Replaces the set of pods to report.
    async fn interest(&mut self, interest: Interest) -> Result<(), StoreError>;

    /// Waits for the next change. Changes since the last call come as one. Cancel safe.
    async fn next(&mut self) -> Result<Change, StoreError>;
}
