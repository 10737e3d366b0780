//! The Kubernetes API `ratchet.dev/v1alpha1`: its objects as Rust types, and the
//! CustomResourceDefinitions that follow from them.
//!
//! Users write [`Topology`] and [`LinkGrant`]. The controller writes specs of [`Link`] and
//! [`VNIBlock`]; agents write [`NodeUnderlay`] and the status of the Links of their node.
//!
//! Texts are strings here, since an object that cannot be read would end the watch of all. The
//! schemas refuse bad ones at `kubectl apply`; `LinkEnd::declared` and the like read them into the
//! model's types.
//!
//! The documentation of types and fields becomes the description in `kubectl explain`, so it is
//! written for users.
#![allow(
    clippy::duplicated_attributes,
    reason = "columns of `kubectl get` have their type in common"
)]

mod condition;
mod endpoint;
mod grant;
mod labels;
mod link;
pub mod meshnet;
mod read;
pub mod schema;
mod topology;
mod underlay;
mod vni;

pub use condition::{ACCEPTED, Accepted, READY, end};
pub use endpoint::{EndpointError, EndpointRef};
pub use grant::{LinkGrant, LinkGrantFrom, LinkGrantSpec, LinkGrantTo};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
pub use labels::{PodSelector, node_label};
pub use link::{
    DeclaredBy, EndState, Kind, Link, LinkEnd, LinkEndStatus, LinkSpec, LinkStatus, Route,
};
pub use read::{FieldError, TopologyEnd};
pub use schema::{crds, max_links};
pub use topology::{Slot, StatefulSetPod, Topology, TopologyLink, TopologySpec, TopologyStatus};
pub use underlay::{NodeUnderlay, NodeUnderlaySpec};
pub use vni::{VNI_BLOCK_SIZE, VNIBlock, VNIBlockSpec, VNIEntry};

/// The API group of all kinds.
pub const GROUP: &str = "ratchet.dev";

/// The version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// The field manager under which an agent writes `status.a` of a Link, or both ends of one that is
/// within its node. It is the end's and not the node's: under one name for both ends, a server-side
/// apply of one would remove the other.
pub const MANAGER_OF_A: &str = "ratchet-a";

/// The field manager under which an agent writes `status.b` of a Link.
pub const MANAGER_OF_B: &str = "ratchet-b";

/// The finalizer of a Link whose VNI may not be given to another one yet.
pub const VNI_FINALIZER: &str = "ratchet.dev/vni";
