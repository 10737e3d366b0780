//! From Topologies and pods to cables: what is declared, with the pods that are meant.
//!
//! Nothing is judged here but what cannot become a cable at all. Whether pods consent and what
//! contradicts is decided by `ratchet_model::resolve`.

mod of_meshnet;
mod of_pods;
mod of_topologies;
mod remembered;

use std::collections::{BTreeMap, HashMap};

use ratchet_api::{Accepted, DeclaredBy, Topology};
use ratchet_model::{DeclaredLink, InterfaceName, PodKey, Reason};

use crate::{
    names::DeclaredName,
    pods::{Found, Pods},
    snapshot::{Key, Snapshot},
};
pub(crate) use of_meshnet::described;
pub(crate) use remembered::{DECLARED_BY, ENDS};

/// A cable that is declared.
#[derive(Debug, Clone)]
pub(crate) struct Cable<'s> {
    /// What declares it.
    pub by: DeclaredBy,
    /// The Topology, if one declares it.
    pub topology: Option<&'s Topology>,
    /// The ends `a` and `b`.
    pub ends: [CableEnd<'s>; 2],
    /// What is declared, each by the pod of the local end.
    pub declarations: Vec<DeclaredLink>,
    /// What contradicts, if that is not to be seen in the declarations. What there is stays.
    pub conflict: Option<String>,
}

/// An end of a cable.
#[derive(Debug, Clone)]
pub(crate) struct CableEnd<'s> {
    /// The end as it is declared.
    pub declared: DeclaredName,
    /// The pod in the records: the real one's name, or a name in its place.
    pub pod: PodKey,
    /// The pod that was found.
    pub found: Found<'s>,
    /// The name of a pod that is missing, if it is known.
    pub name: Option<String>,
    /// The name by which the link knows the pod, if that is not the pod's own: pods with other
    /// names may take its place.
    pub slot: Option<String>,
}

impl CableEnd<'_> {
    /// The end in the records.
    pub fn key(&self) -> EndKey {
        (self.pod.clone(), self.declared.interface.clone())
    }
}

/// An end in the records.
pub(crate) type EndKey = (PodKey, InterfaceName);

/// A link of a Topology, by its place in the list, that becomes no cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Why.
    pub reason: Accepted,
    /// The same for people.
    pub message: String,
}

/// All cables, by the key of their Link.
#[derive(Debug, Default)]
pub(crate) struct Cables<'s> {
    /// The cables.
    pub all: BTreeMap<Key, Cable<'s>>,
    /// The links of each Topology, in its order.
    pub of_topologies: BTreeMap<&'s Key, Vec<Result<Key, Refused>>>,
    /// The same of meshnet's Topologies.
    pub of_meshnet: BTreeMap<&'s Key, Vec<Result<Key, Refused>>>,
    /// The pods whose place another pod has, with the reason why they wait.
    pub waiting: BTreeMap<&'s PodKey, Reason>,
    /// Which cable has two ends. A link that is declared twice is one cable.
    by_ends: HashMap<[EndKey; 2], Key>,
}

impl<'s> Cables<'s> {
    /// Those of a snapshot.
    pub fn of(snapshot: &'s Snapshot, pods: &Pods<'s>) -> Self {
        let mut cables = Self::default();
        of_topologies::add(&mut cables, snapshot, pods);
        of_meshnet::add(&mut cables, snapshot, pods);
        of_pods::add(&mut cables, snapshot, pods);
        remembered::add(&mut cables, snapshot, pods);
        cables
    }

    /// The cable with two ends.
    pub fn between(&self, ends: &[EndKey; 2]) -> Option<&Key> {
        self.by_ends.get(&sorted(ends.clone()))
    }

    /// Adds a cable whose ends no other one has.
    fn insert(&mut self, key: Key, cable: Cable<'s>) {
        let ends = cable.ends.each_ref().map(CableEnd::key);
        self.by_ends.insert(sorted(ends), key.clone());
        self.all.insert(key, cable);
    }
}

fn sorted(mut ends: [EndKey; 2]) -> [EndKey; 2] {
    ends.sort_unstable();
    ends
}
