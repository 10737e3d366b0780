//! What the engine is told, and where its answers go.

use std::sync::{Arc, mpsc};

use ratchet_kubernetes::PodNews;
use ratchet_model::SandboxId;
use ratchet_protocol::{
    Attach, Check, Collect, Detach, Failure, ForgetNode, Links, Prepare, Reply, Settings,
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};

use crate::{clock::Clock, kernel::Kernel, state::StateDir, store::OpenStore};

/// Where commands are sent.
pub type Commands = mpsc::Sender<Command>;

/// Where the answer to a request goes.
pub type Answer<T> = oneshot::Sender<Result<T, Failure>>;

/// What the engine is told.
pub enum Command {
    /// Is this pod ours, and is its declaration right?
    Prepare(Prepare, Answer<Reply>),
    /// This sandbox will be attached soon: write it to disk.
    Expect(Box<Attach>, Answer<Reply>),
    /// The client that had a sandbox expected has closed its connection.
    Unexpect(SandboxId),
    /// Wire this sandbox.
    Attach(Box<Attach>, Answer<Reply>),
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
    /// The Kubernetes API has news of pods.
    Pods(PodNews),
    /// End.
    Stop,
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
    /// Runs what waits: the store's watch, the API's.
    pub runtime: Handle,
    /// Where those send their commands.
    pub commands: Commands,
    /// Told after every reconcile.
    pub progress: watch::Sender<u64>,
}
