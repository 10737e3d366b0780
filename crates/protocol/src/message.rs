//! Requests and answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use ipnet::IpNet;
use ratchet_model::{NodeName, PodKey, SandboxId, device::Interface};
use serde::{Deserialize, Serialize};

use crate::{report::Links, settings::Settings};

/// The protocol numbers that this build understands, as agent and as client.
pub const SUPPORTED: &[u32] = &[crate::PROTOCOL];

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Who are you?
    Hello,
    /// Is this pod Ratchet's, and is all well with what it declares? Changes nothing.
    Prepare(Prepare),
    /// A sandbox is about to be attached: write down what is needed for that. Void as soon as the
    /// asker closes the connection.
    Expect(Attach),
    /// A sandbox is there: wire it.
    Attach(Attach),
    /// A sandbox (or one attachment of it) goes: undo it.
    Detach(Detach),
    /// Is what was made for this sandbox still as it was?
    Check(Check),
    /// Undo all attachments of a network but these.
    Collect(Collect),
    /// Can you do your work?
    Status {
        /// What the asking config says.
        #[serde(default)]
        settings: Settings,
    },
    /// The links of this node.
    Links {
        /// Whether to go on with another answer after every change.
        #[serde(default)]
        watch: bool,
    },
    /// A node is gone for good: removes its pods.
    ForgetNode(ForgetNode),
    /// Another agent takes over: write down what is to be written down and exit. A managed agent
    /// refuses.
    Release,
}

/// A pod, as the runtime names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// K8S_POD_NAMESPACE, or `default`.
    pub namespace: String,
    /// K8S_POD_NAME, or the container id.
    pub name: String,
    /// K8S_POD_UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// See [`Request::Prepare`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The pod.
    pub pod: Pod,
    /// Its labels, as far as the plugin knows them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Whether the runtime passed the annotations, were there none; if not, they are to be had from
    /// the Kubernetes API only.
    #[serde(default)]
    pub annotations_passed: bool,
    /// Whether labels count.
    #[serde(default = "yes")]
    pub use_labels: bool,
    /// What the plugin's config says.
    #[serde(default)]
    pub settings: Settings,
    /// CNI_IFNAME, which no link may use.
    pub interface: String,
}

fn yes() -> bool {
    true
}

/// One attachment: CNI's key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name (`name` of the config).
    pub network: String,
    /// CNI_CONTAINERID.
    pub container_id: SandboxId,
    /// CNI_IFNAME.
    pub interface: String,
}

/// See [`Request::Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// What is attached.
    pub attachment: Attachment,
    /// CNI_NETNS.
    pub netns: PathBuf,
    /// The pod and what it declares, as in [`Prepare`].
    #[serde(flatten)]
    pub prepare: Prepare,
}

/// See [`Request::Detach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detach {
    /// What is detached.
    pub attachment: Attachment,
    /// CNI_NETNS, if there still is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
}

/// See [`Request::Check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is checked.
    pub attachment: Attachment,
    /// CNI_NETNS.
    pub netns: PathBuf,
    /// The link interfaces that ADD reported: each must be there, and with this address.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
}

/// See [`Request::Collect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// The network.
    pub network: String,
    /// Its attachments that are still valid: container id and interface.
    pub valid: Vec<(String, String)>,
}

/// See [`Request::ForgetNode`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetNode {
    /// The node.
    pub node: NodeName,
    /// Whether to do so although its agent may live.
    #[serde(default)]
    pub force: bool,
}

/// What the agent answers: `ok` with the request's own answer, or `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello(Box<Hello>),
    /// To [`Request::Prepare`].
    Prepared(Prepared),
    /// To [`Request::Attach`].
    Attached(Attached),
    /// To [`Request::Links`].
    Links(Links),
    /// To [`Request::ForgetNode`].
    Forgotten(Forgotten),
    /// To all others: it is done, it is so.
    Done,
    /// It could not be done.
    Error(Failure),
}

/// Who the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The program's version.
    pub version: String,
    /// The protocol numbers it understands.
    pub protocols: Vec<u32>,
    /// Its process id.
    pub pid: u32,
    /// Whether it is managed (systemd, a DaemonSet, by hand) and not started on demand by the
    /// plugin.
    pub managed: bool,
    /// Its settings, defaults filled in.
    pub settings: Settings,
}

/// What the agent makes of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Whether the pod is Ratchet's.
    pub ours: bool,
}

/// What became of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The link interfaces that are in the sandbox now.
    pub interfaces: Vec<Interface>,
    /// The addresses of all the pod's links, wired yet or not, in the order of declaration.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Links that are not up, and why.
    #[serde(default)]
    pub pending: Vec<String>,
}

/// What a node had that is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The pods that were said to be there.
    pub pods: BTreeSet<PodKey>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What happened and what to do.
    pub message: String,
}

/// Kinds of failures, by what the asker can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Somebody has to change a config or a declaration (CNI code 7).
    Invalid,
    /// It may work later (CNI code 11).
    TryLater,
    /// A file could not be read or written (CNI code 5).
    Io,
    /// The attachment exists already.
    Exists,
    /// Something that was made has been changed or removed.
    Broken,
    /// The request is of another protocol; the message names the ones understood.
    Protocol,
    /// Anything else, and what later versions add.
    #[serde(other)]
    Internal,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}
