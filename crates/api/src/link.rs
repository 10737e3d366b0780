//! Links: one object for each cable, however it was declared.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Condition,
    schema::{self, END_RULES, LINK_RULES, ROUTE_RULES, in_turn, rules},
};

/// What a link is. The controller writes it.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ratchet.dev",
    version = "v1alpha1",
    kind = "Link",
    plural = "links",
    namespaced,
    shortname = "rl",
    category = "ratchet",
    status = "LinkStatus",
    derive = "PartialEq",
    doc = "A cable between an interface of one pod and an interface of another one. Ratchet's \
           controller makes Links from Topologies and from what pods declare; do not write them.",
    selectable = ".spec.topology",
    selectable = ".spec.a.node",
    selectable = ".spec.b.node",
    printcolumn(name = "A", type_ = "string", json_path = ".spec.a.pod"),
    printcolumn(
        name = "A-Interface",
        type_ = "string",
        json_path = ".spec.a.interface"
    ),
    printcolumn(name = "A-State", type_ = "string", json_path = ".status.a.state"),
    printcolumn(name = "B", type_ = "string", json_path = ".spec.b.pod"),
    printcolumn(
        name = "B-Interface",
        type_ = "string",
        json_path = ".spec.b.interface"
    ),
    printcolumn(name = "B-State", type_ = "string", json_path = ".status.b.state"),
    printcolumn(name = "VNI", type_ = "integer", json_path = ".spec.vni"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].reason"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "A-Node",
        type_ = "string",
        json_path = ".spec.a.node",
        priority = 1
    ),
    printcolumn(
        name = "B-Node",
        type_ = "string",
        json_path = ".spec.b.node",
        priority = 1
    ),
    printcolumn(
        name = "Kind",
        type_ = "string",
        json_path = ".status.a.kind",
        priority = 1
    ),
    printcolumn(
        name = "A-MTU",
        type_ = "integer",
        json_path = ".status.a.mtu",
        priority = 1
    ),
    printcolumn(
        name = "B-MTU",
        type_ = "integer",
        json_path = ".status.b.mtu",
        priority = 1
    ),
    printcolumn(
        name = "A-Message",
        type_ = "string",
        json_path = ".status.a.message",
        priority = 1
    ),
    printcolumn(
        name = "B-Message",
        type_ = "string",
        json_path = ".status.b.message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(LINK_RULES)))]
pub struct LinkSpec {
    /// The Topology that declares the link, in the Link's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::name")]
    pub topology: Option<String>,
    /// What declares the link.
    pub declared_by: DeclaredBy,
    /// The MTU of both ends, in bytes. Without it, the greatest that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::mtu")]
    pub mtu: Option<u32>,
    /// The VXLAN network identifier. A link within one node does not need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::vni")]
    pub vni: Option<u32>,
    /// How both ends are wired: `direct` or `stitched`. Without it, as each node's config says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::wiring")]
    pub wiring: Option<String>,
    /// One end.
    pub a: LinkEnd,
    /// The other end.
    pub b: LinkEnd,
}

/// What declares a link.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum DeclaredBy {
    /// A Topology of ratchet.dev.
    Topology,
    /// The annotation `ratchet.dev/links` of a pod.
    Annotation,
    /// The labels of 2017 on a pod.
    Label,
    /// A Topology of networkop.co.uk (meshnet).
    Meshnet,
}

/// One end of a link.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(END_RULES)))]
pub struct LinkEnd {
    /// The pod's namespace.
    #[schemars(schema_with = "schema::namespace")]
    pub namespace: String,
    /// The pod's name. Missing until a pod fits the declaration; of one that is gone it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::name")]
    pub pod: Option<String>,
    /// The name by which the link knows the pod, if that is not the pod's own: of a Topology's slot
    /// with a selector, or that of the label `ratchet.pod_name`. Such a pod may be replaced by one
    /// with another name, and the link is still the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::slot")]
    pub slot: Option<String>,
    /// The interface's name in the pod.
    #[schemars(schema_with = "schema::interface")]
    pub interface: String,
    /// Addresses of the interface, with their prefix length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::addresses")]
    pub addresses: Vec<String>,
    /// The interface's MAC address. Without it, Ratchet chooses one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::mac")]
    pub mac: Option<String>,
    /// Routes out of the interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::routes")]
    pub routes: Vec<Route>,
    /// The pod's uid. Set when the pod has a node.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::uid")]
    pub pod_uid: Option<String>,
    /// The pod's node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::node")]
    pub node: Option<String>,
    /// The address at which the node's tunnels end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip")]
    pub vtep: Option<String>,
    /// The greatest MTU of a link that fits into the node's tunnels, in bytes.
    #[serde(default, rename = "tunnelMTU", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::mtu")]
    pub tunnel_mtu: Option<u32>,
}

/// A route out of a link's interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = in_turn("self.dst", ROUTE_RULES)))]
pub struct Route {
    /// The destination: a network, such as `10.1.0.0/16`.
    #[schemars(schema_with = "schema::destination")]
    pub dst: String,
    /// The next hop. Without it, the destination is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::next_hop")]
    pub via: Option<String>,
    /// The metric. Without it, the kernel's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::metric")]
    pub metric: Option<u32>,
}

/// What is known of a link. Each agent writes its node's end, the controller the conditions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LinkStatus {
    /// End `a`, as the agent of its node says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LinkEndStatus")]
    pub a: Option<LinkEndStatus>,
    /// End `b`, as the agent of its node says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LinkEndStatus")]
    pub b: Option<LinkEndStatus>,
    /// `Accepted` says whether the link can be made, and why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The state of one end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkEndStatus {
    /// The node whose agent wrote this.
    #[schemars(schema_with = "schema::node")]
    pub node: String,
    /// The uid of the pod that this is about.
    #[serde(rename = "podUID")]
    #[schemars(schema_with = "schema::uid")]
    pub pod_uid: String,
    /// The pod's sandbox: the id of its network namespace's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::sandbox")]
    pub sandbox: Option<String>,
    /// The Link's generation that this is about.
    #[schemars(schema_with = "schema::generation")]
    pub observed_generation: i64,
    /// What there is of this end.
    pub state: EndState,
    /// Which kind of device the interface is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Kind")]
    pub kind: Option<Kind>,
    /// The interface's MTU, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::mtu")]
    pub mtu: Option<u32>,
    /// Why the end is in this state: a word for programs. docs/reasons.md has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::reason")]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::message")]
    pub message: Option<String>,
}

/// The state of a link's end.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum EndState {
    /// The interface waits for something that comes by itself.
    Waiting,
    /// The interface is there and complete.
    Up,
    /// The interface could not be made, or a person has to correct something.
    Failed,
    /// The interface was there, and nothing is left of it on the node.
    Removed,
}

/// The kind of device that an interface is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Kind {
    /// One of a pair: both ends are on one node.
    Veth,
    /// The end of a tunnel to another node.
    Vxlan,
}
