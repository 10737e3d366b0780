//! The `Topology` of meshnet (`networkop.co.uk/v1beta1`), which KNE writes: one object for each
//! pod, with the pod's name. `deploy/meshnet/crd.yaml` has its definition.
//!
//! It is not our API, so it is not among [`crate::crds`]. What its schema allows can be read, nulls
//! and missing fields too: an object that cannot be read would end the watch of all.

use std::{borrow::Cow, fmt};

use kube::{
    Resource,
    core::{NamespaceResourceScope, ObjectMeta},
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;

/// The API group.
pub const GROUP: &str = "networkop.co.uk";

/// The version.
pub const VERSION: &str = "v1beta1";

/// The field manager of the statuses that the controller writes.
pub const MANAGER: &str = "ratchet-meshnet";

/// The links of one pod, which has the name of this object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Topology {
    /// Name and namespace are the pod's.
    pub metadata: ObjectMeta,
    /// The links.
    #[serde(deserialize_with = "or_default")]
    pub spec: Spec,
    /// What is known of the pod.
    #[serde(deserialize_with = "or_default")]
    pub status: Status,
}

/// The links of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// Each is a link's end at this pod. The peer's object has the same link, seen from there.
    #[serde(deserialize_with = "or_default")]
    pub links: Vec<Link>,
}

/// A link as one of its pods sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// With the two pods, this says which link it is. 0 is a number like others.
    #[serde(deserialize_with = "or_default")]
    pub uid: Uid,
    /// The other pod, in the same namespace.
    #[serde(deserialize_with = "or_default")]
    pub peer_pod: String,
    /// The interface in this pod.
    #[serde(deserialize_with = "or_default")]
    pub local_intf: String,
    /// The interface in the other pod.
    #[serde(deserialize_with = "or_default")]
    pub peer_intf: String,
    /// The address here, with its prefix length. An empty text is none.
    #[serde(deserialize_with = "or_default")]
    pub local_ip: String,
    /// The address in the other pod.
    #[serde(deserialize_with = "or_default")]
    pub peer_ip: String,
}

/// A link's number. The schema knows no bounds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(pub Number);

impl Default for Uid {
    fn default() -> Self {
        Self(0.into())
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is known of a pod. A pod with `src_ip` and `net_ns` counts as alive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Links that were left to the peer. Nobody reads this any more.
    #[serde(deserialize_with = "or_default")]
    pub skipped: Vec<Skipped>,
    /// The address of the pod's node, at which its tunnels end.
    #[serde(deserialize_with = "or_default")]
    pub src_ip: String,
    /// The pod's network namespace.
    #[serde(deserialize_with = "or_default")]
    pub net_ns: String,
    /// The id of the pod's sandbox.
    #[serde(deserialize_with = "or_default")]
    pub container_id: String,
    /// What keeps links from being made, in words.
    #[serde(deserialize_with = "or_default")]
    pub plumbing_error: String,
}

/// A link that was left to the peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Skipped {
    /// The peer.
    #[serde(deserialize_with = "or_default")]
    pub pod_name: String,
    /// The link.
    #[serde(deserialize_with = "or_default")]
    pub link_id: Uid,
}

/// A null counts as a missing field.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Resource for Topology {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Topology".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "topologies".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests;
