//! Topologies: what users write to get links between the pods of a namespace.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Condition, PodSelector, Route,
    schema::{self, SLOT_RULES, TOPOLOGY_RULES, rules},
};

/// Links between pods.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ratchet.dev",
    version = "v1alpha1",
    kind = "Topology",
    plural = "topologies",
    namespaced,
    shortname = "rtopo",
    category = "ratchet",
    status = "TopologyStatus",
    derive = "PartialEq",
    doc = "A set of links between pods. Ratchet makes a Link for each of them. A change is applied \
           to running pods, and links that are not changed go on.",
    printcolumn(name = "Links", type_ = "integer", json_path = ".status.links"),
    printcolumn(name = "Up", type_ = "integer", json_path = ".status.ready"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].reason"#
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[schemars(extend("x-kubernetes-validations" = rules(TOPOLOGY_RULES)))]
pub struct TopologySpec {
    /// Names for pods whose own names are not known beforehand: pods of a StatefulSet, or of a
    /// Deployment with one replica. A pod with a name of its own needs no entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::slots")]
    pub pods: Vec<Slot>,
    /// The links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::links")]
    pub links: Vec<TopologyLink>,
}

/// A name for one pod, by which endpoints find it. Exactly one of `statefulSet` and `selector`
/// says which pod it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(SLOT_RULES)))]
pub struct Slot {
    /// The name that endpoints use instead of the pod's.
    #[schemars(schema_with = "schema::label")]
    pub name: String,
    /// A pod of a StatefulSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StatefulSetPod")]
    pub stateful_set: Option<StatefulSetPod>,
    /// The one pod of the namespace that has these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PodSelector")]
    pub selector: Option<PodSelector>,
}

/// A pod of a StatefulSet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatefulSetPod {
    /// The StatefulSet's name.
    #[schemars(schema_with = "schema::stateful_set")]
    pub name: String,
    /// The pod's number: 0 for `web-0`.
    #[schemars(schema_with = "schema::ordinal")]
    pub ordinal: i32,
}

impl StatefulSetPod {
    /// The pod's name.
    pub fn pod_name(&self) -> String {
        format!("{}-{}", self.name, self.ordinal)
    }
}

/// A link between two interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopologyLink {
    /// A name for the link. With it, the endpoints can be changed and the Link stays the same
    /// object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label")]
    pub name: Option<String>,
    /// The two endpoints: `pod:interface`, such as `r1:eth1`, or `namespace/pod:interface`. The
    /// pod is a name of `pods`, if there is such an entry, else the name of a pod. A pod of
    /// another namespace needs a LinkGrant there.
    #[schemars(schema_with = "schema::endpoints")]
    pub endpoints: Vec<String>,
    /// Addresses with their prefix length: a list for the first endpoint and a list for the second
    /// one, such as `[["10.0.0.1/24"], ["10.0.0.2/24"]]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::pair_of_addresses")]
    pub addresses: Vec<Vec<String>>,
    /// MAC addresses, one for each endpoint. Ratchet chooses one where the text is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::pair_of_macs")]
    pub macs: Vec<String>,
    /// Routes out of the interface: a list for the first endpoint and a list for the second one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::pair_of_routes")]
    pub routes: Vec<Vec<Route>>,
    /// The MTU of both ends, in bytes. Without it, the greatest that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::mtu")]
    pub mtu: Option<u32>,
    /// The VXLAN network identifier of the link. Without it, Ratchet chooses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::vni")]
    pub vni: Option<u32>,
    /// How both ends are wired: `direct` or `stitched`. Without it, as each node's config says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::wiring")]
    pub wiring: Option<String>,
}

/// The state of a Topology. The controller writes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyStatus {
    /// How many links it has.
    #[serde(default)]
    #[schemars(schema_with = "schema::count")]
    pub links: i32,
    /// How many of them are up at both ends.
    #[serde(default)]
    #[schemars(schema_with = "schema::count")]
    pub ready: i32,
    /// The Topology's generation that this is about.
    #[serde(default)]
    #[schemars(schema_with = "schema::generation")]
    pub observed_generation: i64,
    /// `Accepted` says whether all its links can be made, `Ready` whether all are up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
