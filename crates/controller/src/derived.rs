//! What follows from declarations. Most of what changes are the statuses of Links, and nothing here
//! follows from those: then it stays as it was.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use ratchet_api::{Link, Topology, meshnet};
use ratchet_model::{PodKey, Reason};

use crate::{
    cables::{Cables, Refused},
    config::Config,
    pods::Pods,
    snapshot::{Key, Snapshot},
    wanted::{self, Wanted},
};

/// What follows from a snapshot's declarations.
#[derive(Debug)]
pub(crate) struct Derived {
    /// What it follows from.
    from: (Snapshot, Config),
    /// The Links that are wanted.
    pub wanted: BTreeMap<Key, Wanted>,
    /// The links of each Topology, in its order.
    pub of_topologies: BTreeMap<Key, Vec<Result<Key, Refused>>>,
    /// The same of meshnet's Topologies.
    pub of_meshnet: BTreeMap<Key, Vec<Result<Key, Refused>>>,
    /// The pods whose place another pod has, with the reason why they wait.
    pub waiting: BTreeMap<PodKey, Reason>,
}

impl Derived {
    /// From a snapshot, or from what was derived before.
    pub fn of(
        before: Option<Arc<Self>>,
        snapshot: &Snapshot,
        config: &Config,
        now: Timestamp,
    ) -> Arc<Self> {
        let is_same = |before: &Arc<Self>| {
            before.from.1 == *config && says_the_same(&before.from.0, snapshot)
        };
        if let Some(before) = before.filter(is_same) {
            return before;
        }
        let pods = Pods::of(snapshot);
        let cables = Cables::of(snapshot, &pods);
        let wanted = wanted::links(snapshot, &cables, config, now);
        Arc::new(Self {
            from: (snapshot.clone(), *config),
            wanted,
            of_topologies: owned(cables.of_topologies),
            of_meshnet: owned(cables.of_meshnet),
            waiting: owned(cables.waiting),
        })
    }
}

fn owned<K: Ord + Clone, V>(by_key: BTreeMap<&K, V>) -> BTreeMap<K, V> {
    let all = by_key.into_iter();
    all.map(|(key, value)| (key.clone(), value)).collect()
}

/// Whether two snapshots declare the same.
fn says_the_same(one: &Snapshot, other: &Snapshot) -> bool {
    same(&one.pods, &other.pods, PartialEq::eq)
        && same(&one.topologies, &other.topologies, same_topology)
        && same(&one.meshnet, &other.meshnet, same_of_meshnet)
        && same(&one.links, &other.links, same_link)
        && same(&one.grants, &other.grants, PartialEq::eq)
        && same(&one.underlays, &other.underlays, PartialEq::eq)
        && same(&one.nodes, &other.nodes, PartialEq::eq)
}

fn same<Id: Ord, V>(
    one: &BTreeMap<Id, Arc<V>>,
    other: &BTreeMap<Id, Arc<V>>,
    is_same: impl Fn(&V, &V) -> bool,
) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|((id, value), (other_id, other))| {
                id == other_id && (Arc::ptr_eq(value, other) || is_same(value, other))
            })
}

/// All but the status.
fn same_topology(one: &Topology, other: &Topology) -> bool {
    let of = |topology: &Topology| {
        let metadata = &topology.metadata;
        (metadata.uid.clone(), metadata.deletion_timestamp.clone())
    };
    one.spec == other.spec && of(one) == of(other)
}

/// All but the status.
fn same_of_meshnet(one: &meshnet::Topology, other: &meshnet::Topology) -> bool {
    let is_leaving = |topology: &meshnet::Topology| topology.metadata.deletion_timestamp.is_some();
    one.spec == other.spec && is_leaving(one) == is_leaving(other)
}

/// All but the status.
fn same_link(one: &Link, other: &Link) -> bool {
    let of = |link: &Link| {
        let metadata = &link.metadata;
        (metadata.uid.clone(), metadata.deletion_timestamp.clone())
    };
    one.spec == other.spec
        && of(one) == of(other)
        && one.metadata.annotations == other.metadata.annotations
}
