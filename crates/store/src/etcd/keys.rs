//! The layout of the keys.
//!
//! ```text
//! <prefix>/pods/<namespace>/<pod>                     the pod's record, JSON
//! <prefix>/peers/<namespace>/<pod>/<namespace>/<pod>  index: the second declares a link with the
//!                                                     first
//! <prefix>/links/<link id>                            the link's VNI
//! <prefix>/numbers/<VNI>                              the link that has the VNI and the nodes that
//!                                                     hold it, JSON
//! <prefix>/vnis                                       the VNIs of the range that are in use, such
//!                                                     as 11-18,20; with many gaps, more
//! <prefix>/blocked/<node>                             VNIs of other devices of the node
//! <prefix>/nodes/<node>                               this node may have pods
//! <prefix>/alive/<node>                               its agent is alive: a lease of
//!                                                     `node_timeout`
//! ```
//!
//! A node has its two keys from before its first sandbox until after its last one.
//!
//! docs/etcd.md says the same to users, with `etcdctl` lines.

use ratchet_model::{LinkId, NodeName, PodKey, Vni};

/// The keys below one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// The keys below a prefix, which may end with a slash.
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
        }
    }

    /// The prefix of all keys.
    pub(super) fn root(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// A pod's record.
    pub(super) fn pod(&self, pod: &PodKey) -> String {
        format!("{}/pods/{pod}", self.prefix)
    }

    /// All pods' records.
    pub(super) fn pods(&self) -> String {
        format!("{}/pods/", self.prefix)
    }

    /// The index of the pods that declare a link with a pod.
    pub(super) fn declarers(&self, pod: &PodKey) -> String {
        format!("{}/peers/{pod}/", self.prefix)
    }

    /// One entry of that index.
    pub(super) fn declarer(&self, pod: &PodKey, declarer: &PodKey) -> String {
        format!("{}{declarer}", self.declarers(pod))
    }

    /// A link's VNI.
    pub(super) fn link(&self, link: LinkId) -> String {
        format!("{}{link}", self.links())
    }

    /// All links' VNIs.
    pub(super) fn links(&self) -> String {
        format!("{}/links/", self.prefix)
    }

    /// Whose a VNI is.
    pub(super) fn number(&self, vni: Vni) -> String {
        format!("{}{vni}", self.numbers())
    }

    /// All of these.
    pub(super) fn numbers(&self) -> String {
        format!("{}/numbers/", self.prefix)
    }

    /// The VNIs that are of no use on a node.
    pub(super) fn blocked(&self, node: &NodeName) -> String {
        format!("{}/blocked/{node}", self.prefix)
    }

    /// A node that may have records.
    pub(super) fn node(&self, node: &NodeName) -> String {
        format!("{}{node}", self.nodes())
    }

    /// All nodes that may have records.
    pub(super) fn nodes(&self) -> String {
        format!("{}/nodes/", self.prefix)
    }

    /// The key that says that a node's agent is alive.
    pub(super) fn alive(&self, node: &NodeName) -> String {
        format!("{}{node}", self.all_alive())
    }

    /// All nodes whose agents are alive.
    pub(super) fn all_alive(&self) -> String {
        format!("{}/alive/", self.prefix)
    }

    /// The VNIs that are in use.
    pub(super) fn taken(&self) -> String {
        format!("{}/vnis", self.prefix)
    }
}

/// The end of the range of all keys that begin with `prefix`, which ends in an ASCII character.
pub(super) fn after(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
