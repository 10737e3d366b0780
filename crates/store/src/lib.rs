//! The store: the facts that nodes share, behind one trait.
//!
//! A backend keeps records and VNIs, writes what follows from a change ([`change`]) in one
//! transaction, and tells of changes. It knows nothing of kernels, plugins or wiring, and no detail
//! of it leaks out of this crate. [`open`] is the one way in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ratchet_failpoint as failpoint;
use ratchet_model::{
    DeclaredLink, LinkId, NodeName, PodKey, PodRecord, SandboxId, Vni, record::Facts,
};

pub mod change;
mod etcd;
mod failpoints;
mod options;
mod sqlite;
mod url;

pub use options::{EtcdOptions, StoreOptions};
pub use url::{HostPort, StoreUrl};

/// Opens a store. Creates it first where that is possible.
///
/// # Errors
/// [`StoreError`], whose text names the store, what is wrong and what to do.
pub async fn open(options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let url = &options.url;
    let store: Arc<dyn Store> = match url {
        StoreUrl::Sqlite(path) => Arc::new(sqlite::SqliteStore::open(path).await?),
        StoreUrl::Etcd { hosts, tls } => {
            Arc::new(etcd::EtcdStore::open(url, hosts, *tls, &options.etcd).await?)
        }
        StoreUrl::Kubernetes => {
            return Err(StoreError::Config(format!("store {url}: not built in yet")));
        }
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
    /// It cannot be reached, or is locked for too long: try later. The text says what to do.
    #[error("{0}")]
    Unavailable(String),
    /// It will not work until somebody mends it: corrupt, not writable, of another version, not
    /// ours. The text says what to do.
    #[error("{0}")]
    Broken(String),
    /// This one thing is too large for it. Everything else works. The text says what to do.
    #[error("{0}")]
    TooLarge(String),
    /// Its URL or a parameter of it is wrong.
    #[error("{0}")]
    Config(String),
}

/// Who shares a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreScope {
    /// The agents of one host.
    Host,
    /// All nodes of a cluster.
    Cluster,
}

/// How a record is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    /// It is of a new sandbox: it replaces whatever is there, and its `created` is moved beyond the
    /// one it replaces.
    New,
    /// It says again what was said before (after a restart, an outage): it does not replace the
    /// record of a later sandbox.
    Again,
}

/// What became of a record that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// It is in the store, with this `created`.
    Stored {
        /// [`PodRecord::created`] as stored.
        created: u64,
    },
    /// A later sandbox of the pod has published already; nothing was written.
    Superseded,
}

/// The pods an agent wants to know about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// Its own pods: everything that concerns them, declarations of others included.
    pub own: BTreeSet<PodKey>,
    /// The pods at the other ends of their links: only their records.
    pub peers: BTreeSet<PodKey>,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Facts that concern these pods.
    Pods(BTreeSet<PodKey>),
    /// Perhaps everything: the watch began anew, read all again.
    All,
}

/// A link that needs a VNI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VniClaim {
    /// The link.
    pub link: LinkId,
    /// Its two pods: one of them must declare it, and one of them must be there, lest a VNI is
    /// taken for a link that ended since the claimer read of it. Nobody would free that.
    pub pods: [PodKey; 2],
    /// The VNI its declaration insists on.
    pub fixed: Option<Vni>,
}

impl VniClaim {
    /// Of a link as it is declared.
    pub fn new(link: &DeclaredLink) -> Self {
        Self {
            link: link.id(),
            pods: [link.local.pod.clone(), link.remote.pod.clone()],
            fixed: link.vni,
        }
    }
}

/// The answer to a [`VniClaim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VniGrant {
    /// This is the link's VNI.
    Granted(Vni),
    /// The VNI it insists on belongs to this other link.
    TakenBy(LinkId),
    /// All 2^24 are taken.
    Exhausted,
    /// It has none and gets none, since no record declares it with a pod that is there: the claim
    /// was made from stale facts. Read again.
    NotDeclared,
}

/// What became of the records of a node that was to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeRemoval {
    /// These pods, and nobody else, were said to be there; now they have gone.
    Done(BTreeSet<PodKey>),
    /// Nothing was done (or no more than some of it): the node's agent lives.
    Alive,
    /// Nothing was done: this store cannot tell whether the node's agent lives.
    Unsure,
}

/// A place for the facts that nodes share. All methods are safe against other agents doing the same
/// at once.
#[async_trait]
pub trait Store: Send + Sync {
    /// Who shares it.
    fn scope(&self) -> StoreScope;

    /// What it is, for messages: its URL without secrets.
    fn describe(&self) -> String;

    /// Puts a pod's record in place, with all its consequences: atomically, or, where that is too
    /// much for the store, in steps each of which leaves what might have been said as well.
    async fn publish(&self, record: &PodRecord, how: Publish) -> Result<Published, StoreError>;

    /// Says that a sandbox has gone, with all its consequences, likewise. Nothing happens when the
    /// pod's record is of another sandbox, or absent: a late DEL undoes only its own sandbox.
    async fn remove_pod(&self, pod: &PodKey, sandbox: &SandboxId) -> Result<(), StoreError>;

    /// The facts that concern these pods.
    async fn read(&self, own: &BTreeSet<PodKey>) -> Result<Facts, StoreError>;

    /// The records of all pods that are said to be on a node. It goes through all records there
    /// are: it is for an agent that has lost its own memory, and for nobody else.
    async fn located_on(&self, node: &NodeName) -> Result<Vec<PodRecord>, StoreError>;

    /// Gives each link that is declared its VNI: the one it has, else the one it insists on, else
    /// the lowest free from [`Vni::FIRST`] up. Idempotent.
    async fn claim_vnis(
        &self,
        claims: &[VniClaim],
    ) -> Result<BTreeMap<LinkId, VniGrant>, StoreError>;

    /// Says that a node's agent lives, which goes on being said for as long as this store is open.
    /// Once nobody has said so for `timeout` (`None`: for ever), the node is among the
    /// [`Store::lost_nodes`]. To be called before the node's first record is published, and now and
    /// then, since a store may forget. [`Change::All`] tells when it turns out that it did.
    async fn register_node(
        &self,
        node: &NodeName,
        timeout: Option<Duration>,
    ) -> Result<(), StoreError>;

    /// Undoes [`Store::register_node`]: the node has no records any more.
    async fn deregister_node(&self, node: &NodeName) -> Result<(), StoreError>;

    /// The nodes that may have records and whose agents have not been heard of for longer than they
    /// themselves allowed.
    async fn lost_nodes(&self) -> Result<BTreeSet<NodeName>, StoreError>;

    /// Removes all pods that are said to be on a node, because the node is gone for good. Does
    /// nothing to a node whose agent lives, unless `even_if_alive`. A node that comes back all the
    /// same publishes its records again. It goes through all records there are. Idempotent.
    async fn remove_node(
        &self,
        node: &NodeName,
        even_if_alive: bool,
    ) -> Result<NodeRemoval, StoreError>;

    /// Begins to watch. The first change is always [`Change::All`], so that nothing is missed
    /// between reading and watching.
    async fn watch(&self) -> Result<Box<dyn Watch>, StoreError>;
}

/// A running watch.
#[async_trait]
pub trait Watch: Send {
    /// Replaces the set of pods to hear of.
    async fn interest(&mut self, interest: Interest) -> Result<(), StoreError>;

    /// Waits for the next change; changes that pile up meanwhile come as one. Cancel safe.
    async fn next(&mut self) -> Result<Change, StoreError>;
}
