//! What the API has, as far as the controller needs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use ratchet_api::{Link, LinkGrant, NodeUnderlay, Topology, VNIBlock, meshnet};
use ratchet_model::{
    PodKey, Quotas,
    declaration::{Declaration, DeclarationError, declare_within},
};

/// An object of a namespace. Written `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The name in it.
    pub name: String,
}

impl Key {
    /// The key of an object, from its metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: PodKey,
    /// The uid.
    pub uid: String,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// The uid of the object that controls it, such as a ReplicaSet.
    pub controller: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What its labels and annotations declare; `None`: it is not Ratchet's, or declares nonsense.
    pub declaration: Option<Arc<Declaration>>,
    /// The first so many of the declared links are of the labels of 2017.
    pub label_links: usize,
    /// What is wrong with the declaration.
    pub problem: Option<DeclarationError>,
    /// The node.
    pub node: Option<String>,
    /// Whether it has its node's network.
    pub host_network: bool,
    /// Whether its containers run.
    pub running: bool,
    /// Whether it is being deleted.
    pub leaving: bool,
}

/// What is read of a pod beside its metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodState {
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `status.phase`.
    pub phase: String,
}

impl Pod {
    /// A pod as the API has it. `None` when it has ended, or has no name.
    pub fn read(metadata: ObjectMeta, state: PodState, quotas: &Quotas) -> Option<Self> {
        if ["Succeeded", "Failed"].contains(&&*state.phase) {
            return None;
        }
        let key = PodKey::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?).ok()?;
        let labels = metadata.labels.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default();
        let declared = declare_within(quotas, &key, &labels, &annotations);
        let (declaration, problem) = match declared {
            Ok(declaration) => (declaration.map(Arc::new), None),
            Err(error) => (None, Some(error)),
        };
        // The labels declare one link, if the pod is the primary of a pair, and it comes first.
        let is_primary = |texts: &BTreeMap<String, String>| {
            texts
                .get("ratchet.primary")
                .is_some_and(|value| value == "true")
        };
        let owners = metadata.owner_references.unwrap_or_default();
        let controller = owners
            .into_iter()
            .find(|owner| owner.controller == Some(true));
        Some(Self {
            uid: metadata.uid.unwrap_or_default(),
            created: metadata.creation_timestamp.map(|time| time.0),
            controller: controller.map(|owner| owner.uid),
            label_links: usize::from(is_primary(&labels) || is_primary(&annotations)),
            labels,
            declaration,
            problem,
            node: state.node.filter(|node| !node.is_empty()),
            host_network: state.host_network,
            running: state.phase == "Running",
            leaving: metadata.deletion_timestamp.is_some(),
            key,
        })
    }

    /// Orders the pods of which one is meant: the best comes first.
    pub(crate) fn rank(&self) -> impl Ord + use<'_> {
        (
            self.leaving,
            !self.running,
            self.created,
            &self.key,
            &self.uid,
        )
    }
}

/// All that the controller reads.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The Topologies.
    pub topologies: BTreeMap<Key, Arc<Topology>>,
    /// meshnet's Topologies, if they are read.
    pub meshnet: BTreeMap<Key, Arc<meshnet::Topology>>,
    /// The pods that have not ended.
    pub pods: BTreeMap<PodKey, Arc<Pod>>,
    /// The nodes' underlays, by node.
    pub underlays: BTreeMap<String, Arc<NodeUnderlay>>,
    /// The grants.
    pub grants: BTreeMap<Key, Arc<LinkGrant>>,
    /// The Links.
    pub links: BTreeMap<Key, Arc<Link>>,
    /// The blocks of VNIs, by number.
    pub blocks: BTreeMap<u32, Arc<VNIBlock>>,
    /// The nodes: their addresses (`status.addresses`).
    pub nodes: BTreeMap<String, Arc<BTreeSet<IpAddr>>>,
}
