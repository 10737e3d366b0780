//! Nodes' underlays: what tunnels to a node need to know.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Where a node's tunnels end. The node's agent writes it.
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "ratchet.dev",
    version = "v1alpha1",
    kind = "NodeUnderlay",
    plural = "nodeunderlays",
    category = "ratchet",
    derive = "PartialEq",
    doc = "Where the tunnels of the node of this name end. The node's agent writes it; do not.",
    printcolumn(name = "VTEP", type_ = "string", json_path = ".spec.vtep"),
    printcolumn(name = "MTU", type_ = "integer", json_path = ".spec.mtu"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.port"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
pub struct NodeUnderlaySpec {
    /// The address at which the node's tunnels end.
    #[schemars(schema_with = "schema::ip")]
    pub vtep: String,
    /// The greatest MTU of a link that fits into the node's tunnels, in bytes.
    #[schemars(schema_with = "schema::mtu")]
    pub mtu: u32,
    /// The UDP port of the node's tunnels.
    #[schemars(schema_with = "schema::port")]
    pub port: u16,
    /// The release of the node's agent.
    #[schemars(schema_with = "schema::release")]
    pub version: String,
}
