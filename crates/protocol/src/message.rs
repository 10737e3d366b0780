//! Requests and answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use ipnet::IpNet;
use ratchet_model::{NodeName, PodKey, Reason, SandboxId, device::Interface};
use serde::{Deserialize, Serialize};

use crate::{
    report::{Links, ReasonReport},
    settings::Settings,
};

/// The protocol numbers that this build understands, as agent and as client.
pub const SUPPORTED: &[u32] = &[crate::PROTOCOL];

/// A client's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Asks for the agent's version, process id and settings.
    Hello,
    /// Asks whether a pod is Ratchet's. Fails if its declaration is invalid. Changes nothing.
    Prepare(Prepare),
    /// A sandbox will be attached: prepare it. No longer valid when the client closes the
    /// connection.
    Expect(Attach),
    /// Attaches a sandbox: makes its links.
    Attach(Attach),
    /// Detaches a sandbox, or one attachment of it.
    Detach(Detach),
    /// Checks that everything that was made for a sandbox is unchanged.
    Check(Check),
    /// Detaches all attachments of a network except these.
    Collect(Collect),
    /// Asks whether the agent can serve requests.
    Status {
        /// The settings of the client's config.
        #[serde(default)]
        settings: Settings,
    },
    /// Asks for the links of this node.
    Links {
        /// Whether to send another answer after every change.
        #[serde(default)]
        watch: bool,
    },
    /// A node is gone for good: removes its pods from the store.
    ForgetNode(ForgetNode),
    /// Another agent takes over: the agent saves its state and exits. A managed agent refuses.
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
    /// Its labels, if the plugin knows them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Whether the runtime passed the annotations, even an empty map. If not, only the Kubernetes
    /// API has them.
    #[serde(default)]
    pub annotations_passed: bool,
    /// Whether labels declare links.
    #[serde(default = "yes")]
    pub use_labels: bool,
    /// The settings of the plugin's config.
    #[serde(default)]
    pub settings: Settings,
    /// CNI_IFNAME. No link may use it.
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
    /// CNI_NETNS, if it still exists.
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
    /// The link interfaces that ADD reported. Each must exist and have this MAC address.
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
    /// Whether to remove them even if the node's agent may be alive.
    #[serde(default)]
    pub force: bool,
}

/// The agent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The answer to [`Request::Hello`].
    Hello(Box<Hello>),
    /// The answer to [`Request::Prepare`].
    Prepared(Prepared),
    /// The answer to [`Request::Attach`].
    Attached(Attached),
    /// The answer to [`Request::Links`].
    Links(Links),
    /// The answer to [`Request::ForgetNode`].
    Forgotten(Forgotten),
    /// The answer to all others: the request succeeded.
    Done,
    /// The request failed.
    Error(Failure),
}

/// The agent's version, process and settings.
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
    /// Its settings, with defaults.
    pub settings: Settings,
}

/// The answer to [`Request::Prepare`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Whether the pod is Ratchet's.
    pub ours: bool,
}

/// The state of an attached sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The link interfaces that are in the sandbox now.
    pub interfaces: Vec<Interface>,
    /// The addresses of all of the pod's links, up or not, in the order of declaration.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// The addresses of each end that has some, by its interface, up or not.
    #[serde(default)]
    pub by_interface: BTreeMap<String, Vec<IpNet>>,
    /// Links that are not up, and why.
    #[serde(default)]
    pub pending: Vec<String>,
}

/// The answer to [`Request::ForgetNode`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The pods that were removed.
    pub pods: BTreeSet<PodKey>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What happened, and what to do.
    pub message: String,
    /// The same, for programs, if it is one of the reasons in docs/reasons.md.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Box<ReasonReport>>,
}

/// Kinds of failures, by what the client can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A config or a declaration must be changed (CNI code 7).
    Invalid,
    /// It may work later (CNI code 11).
    TryLater,
    /// A file could not be read or written (CNI code 5).
    Io,
    /// The attachment exists already.
    Exists,
    /// Something that Ratchet made was changed or removed.
    Broken,
    /// The request has an unknown protocol number. The message names the known ones.
    Protocol,
    /// Anything else, including kinds that later versions add.
    #[serde(other)]
    Internal,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            reason: None,
        }
    }

    /// A failure of this kind, for a reason that is in the table.
    pub fn because(kind: FailureKind, reason: &Reason) -> Self {
        Self {
            kind,
            message: reason.to_string(),
            reason: Some(Box::new(reason.into())),
        }
    }
}
