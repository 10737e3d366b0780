//! Where everything is: the key layout.
//!
//! ```text
//! <prefix>/pods/<namespace>/<pod>                     the pod's record, JSON
//! <prefix>/peers/<namespace>/<pod>/<namespace>/<pod>  index: the second declares a link with the
//!                                                     first
//! <prefix>/links/<link id>                            the link's VNI
//! <prefix>/vnis                                       the VNIs that are taken, as in 11-18,20
//! <prefix>/nodes/<node>                               there may be pods on this node
//! <prefix>/alive/<node>                               its agent lives: a lease of `node_timeout`
//! ```
//!
//! A node has its two keys from before its first sandbox until after its last one.
//!
//! docs/etcd.md says the same to users, with `etcdctl` lines.

use ratchet_model::{LinkId, NodeName, PodKey};

/// The keys below one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// Below a prefix, with or without a slash at its end.
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
        }
    }

    /// What all keys begin with.
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

    /// The index of those that declare a link with a pod.
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

    /// A node that may have records.
    pub(super) fn node(&self, node: &NodeName) -> String {
        format!("{}{node}", self.nodes())
    }

    /// All of them.
    pub(super) fn nodes(&self) -> String {
        format!("{}/nodes/", self.prefix)
    }

    /// That a node's agent lives.
    pub(super) fn alive(&self, node: &NodeName) -> String {
        format!("{}{node}", self.all_alive())
    }

    /// All that live.
    pub(super) fn all_alive(&self) -> String {
        format!("{}/alive/", self.prefix)
    }

    /// The VNIs that are taken.
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
