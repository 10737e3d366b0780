//! What `ratchet links` shows.

use ipnet::IpNet;
use ratchet_model::{InterfaceName, LinkId, Mac, NodeName, PodKey, Reason};
use serde::{Deserialize, Serialize};

/// The links of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// The node.
    pub node: Option<NodeName>,
    /// Every link with an end at one of the node's pods, sorted by endpoints.
    pub links: Vec<LinkReport>,
    /// Problems that affect all links, such as a store that is offline.
    #[serde(default)]
    pub notices: Vec<String>,
    /// The same, for programs.
    #[serde(default)]
    pub notice_details: Vec<ReasonReport>,
}

impl Links {
    /// Adds something that concerns all links.
    pub fn notice(&mut self, reason: &Reason) {
        self.notices.push(reason.to_string());
        self.notice_details.push(reason.into());
    }
}

/// A reason, for programs: docs/reasons.md lists them all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonReport {
    /// Its stable code.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl From<&Reason> for ReasonReport {
    fn from(reason: &Reason) -> Self {
        Self {
            code: reason.code().to_owned(),
            message: reason.message(),
            hint: reason.hint(),
        }
    }
}

/// One link, as one of its nodes sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// Its id.
    pub id: LinkId,
    /// One end.
    pub a: EndReport,
    /// The other.
    pub z: EndReport,
    /// `veth` or `vxlan`, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its VNI, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// Its MTU in bytes, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Its state.
    pub state: LinkState,
    /// Why it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_details: Option<ReasonReport>,
    /// Warnings: what the user may not expect.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The same, for programs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warning_details: Vec<ReasonReport>,
    /// The pods that declare it.
    #[serde(default)]
    pub declared_by: Vec<PodKey>,
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndReport {
    /// The pod.
    pub pod: PodKey,
    /// The interface in the pod.
    pub interface: InterfaceName,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The node the pod is on, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
}

/// The state of a link on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// This node's half is made.
    Up,
    /// It waits for something that needs no action.
    Pending,
    /// Something must be corrected.
    Error,
    /// A state that a later version has.
    #[serde(other)]
    Unknown,
}

impl std::fmt::Display for LinkState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            LinkState::Up => "up",
            LinkState::Pending => "pending",
            LinkState::Error => "error",
            LinkState::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests;
