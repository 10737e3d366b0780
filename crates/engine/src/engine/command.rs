//! What the engine is told, and where its answers go.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

use ratchet_kernel::CarrierNews;
use ratchet_model::{
    SandboxId,
    declaration::{Declaration, DeclarationError},
};
use ratchet_protocol::{
    Attachment, Check, Collect, Detach, Failure, ForgetNode, Links, Reply, Settings,
};
use ratchet_store::StoreHealth;
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use crate::{clock::Clock, events::Events, kernel::Kernel, state::StateDir, store::OpenStore};

/// Where commands are sent.
pub type Commands = mpsc::Sender<Command>;

/// Where the answer to a request goes.
pub type Answer<T> = oneshot::Sender<Result<T, Failure>>;

/// What the engine is told.
pub enum Command {
    /// A pod of Ratchet's is coming. Does its config agree with the agent's settings?
    Prepare(Settings, Answer<Reply>),
    /// This sandbox will be attached soon: write it to disk.
    Expect(Box<NewSandbox>, Answer<Reply>),
    /// The client that had a sandbox expected has closed its connection.
    Unexpect(SandboxId),
    /// Wire this sandbox.
    Attach(Box<NewSandbox>, Answer<Reply>),
    /// Undo this attachment.
    Detach(Detach, Answer<Reply>),
    /// Is this attachment as ADD left it?
    Check(Check, Answer<Reply>),
    /// Undo all attachments but these.
    Collect(Collect, Answer<Reply>),
    /// Could an ADD succeed now?
    Status(Settings, Answer<Reply>),
    /// Report the node's links.
    Links(Answer<Links>),
    /// Report how the engine is.
    Vitals(oneshot::Sender<Vitals>),
    /// Report the settings in force.
    Settings(Answer<Settings>),
    /// A node is gone for good.
    ForgetNode(ForgetNode, Answer<Reply>),
    /// The store has news for the engine.
    Changed,
    /// The watch on the store broke, for this reason.
    StoreLost(String),
    /// The store answers again.
    StoreBack,
    /// The carriers of pods' interfaces may have changed.
    Carriers(CarrierNews),
    /// The labels or annotations of a pod may have changed.
    Declared(Box<Declared>),
    /// This work in the background has panicked ([`crate::Task`]).
    Panicked(&'static str),
    /// End.
    Stop,
}

/// How an engine is, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Links that are up.
    pub up: usize,
    /// Links that wait for something which comes by itself.
    pub pending: usize,
    /// Links that cannot be made.
    pub failed: usize,
    /// How long the last resync took, once there was one.
    pub resync: Option<Duration>,
    /// Whether the last call to the store failed, or its watch.
    pub has_store_trouble: bool,
    /// What the store says of itself; `None` before it was opened.
    pub store: Option<StoreHealth>,
}

/// A sandbox to attach: what the runtime says of it, and what its pod declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSandbox {
    /// What is attached.
    pub attachment: Attachment,
    /// The sandbox's network namespace (CNI_NETNS).
    pub netns: PathBuf,
    /// The settings of the plugin's config.
    pub settings: Settings,
    /// The pod as Kubernetes names it: namespace and name.
    pub kubernetes: (String, String),
    /// Whether the pod's labels count.
    pub use_labels: bool,
    /// What the pod declares.
    pub declaration: Declaration,
}

/// What a running pod declares now, `Ok(None)` if the pod is not Ratchet's any more. The engine
/// knows which of the two counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The pod as Kubernetes names it: namespace and name.
    pub kubernetes: (String, String),
    /// By its labels and annotations.
    pub with_labels: Result<Option<Declaration>, DeclarationError>,
    /// By its annotations only.
    pub annotations_only: Result<Option<Declaration>, DeclarationError>,
}

/// What an engine is made with.
pub struct Setup {
    /// The settings that the process was started with.
    pub settings: Settings,
    /// Whether the process was started by an administrator, and so refuses other settings.
    pub managed: bool,
    /// What must outlive the process.
    pub states: StateDir,
    /// This boot's id.
    pub boot_id: String,
    /// The node's kernel.
    pub kernel: Box<dyn Kernel>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Opens the store.
    pub open_store: OpenStore,
    /// Tells users what they have to fix.
    pub events: Box<dyn Events>,
    /// Runs what waits, such as the store's watch.
    pub runtime: Handle,
    /// Where that sends its commands.
    pub commands: Commands,
    /// Told after every reconcile.
    pub progress: watch::Sender<u64>,
}
