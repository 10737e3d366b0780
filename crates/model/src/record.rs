//! What nodes share: for every pod of Ratchet's one record, written by the agent of its node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::{
    declaration::{Accept, Declaration},
    link::{DeclaredLink, Mtu, Vni},
    names::{InterfaceName, LinkId, NodeName, PodKey, SandboxId},
    quotas::Quotas,
};

/// Where a pod's sandbox is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The node.
    pub node: NodeName,
    /// The node's parent address: where its tunnels end.
    pub vtep: IpAddr,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The greatest link MTU that fits into a tunnel on the node's underlay: both ends of a link
    /// get the lesser of the two nodes'.
    pub mtu: Mtu,
    /// Its departure has begun and takes a store several steps: the pod counts as gone already, and
    /// whoever finds this and knows of the sandbox has the rest to do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

/// One pod's facts: what it declares and where it is.
///
/// A record without location is that of a pod that has gone. It is kept for as long as a pod that
/// it declares a link with is alive, since the survivor's interface must stay what it is when the
/// pod comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// The pod.
    pub pod: PodKey,
    /// Where it is; none: gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Orders the sandboxes of one pod: nanoseconds since 1970, moved up where needed so that a new
    /// sandbox always is later than the one before it, whatever the nodes' clocks say.
    pub created: u64,
    /// The links this pod declares.
    #[serde(default)]
    pub links: Vec<DeclaredLink>,
    /// Whose declarations of links with it the pod accepts, as its annotation and the settings of
    /// its node say together.
    #[serde(default, skip_serializing_if = "Accept::is_default")]
    pub accept: Accept,
    /// How many links with it only pods of other namespaces may declare. None: the default of
    /// [`Quotas::foreign_links`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_foreign_links: Option<usize>,
    /// The interfaces of its networks (CNI_IFNAME): no link has one of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub networks: BTreeSet<InterfaceName>,
    /// What the runtime calls the pod (K8S_POD_NAME). Another pod that says the same name waits
    /// while this one lives. None: an agent of an earlier release wrote the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its interfaces that links have which only pods of other namespaces declare. Such a link was
    /// up with the interface, and no later claim takes that from it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given: BTreeMap<InterfaceName, LinkId>,
}

impl PodRecord {
    /// A pod that declares these links and accepts its own namespace's.
    pub fn new(
        pod: PodKey,
        location: Option<Location>,
        created: u64,
        links: Vec<DeclaredLink>,
    ) -> Self {
        Self {
            pod,
            location,
            created,
            links,
            accept: Accept::default(),
            max_foreign_links: None,
            networks: BTreeSet::new(),
            owner: None,
            given: BTreeMap::new(),
        }
    }

    /// The pods at the other ends of the links it declares, without itself.
    pub fn peers(&self) -> BTreeSet<&PodKey> {
        self.links
            .iter()
            .map(|link| &link.remote.pod)
            .filter(|pod| **pod != self.pod)
            .collect()
    }

    /// The sandbox, if the pod is there.
    pub fn sandbox(&self) -> Option<&SandboxId> {
        self.location.as_ref().map(|location| &location.sandbox)
    }

    /// How many links with it only pods of other namespaces may declare.
    pub fn foreign_links(&self) -> usize {
        let default = || Quotas::default().foreign_links;
        self.max_foreign_links.unwrap_or_else(default)
    }

    /// The pod that has the name, and its node, if it lives and is known.
    pub fn holder(&self) -> Option<(&str, &NodeName)> {
        let location = self.location.as_ref()?;
        Some((self.owner.as_deref()?, &location.node))
    }

    /// Whether the pod is there, and not about to leave.
    pub fn lives(&self) -> bool {
        self.location
            .as_ref()
            .is_some_and(|location| !location.leaving)
    }
}

/// The facts that concern a set of pods: their records, those of the pods that declare a link with
/// one of them, those of the pods that they declare a link with, and the VNIs of the links between
/// them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Records by pod.
    pub records: BTreeMap<PodKey, PodRecord>,
    /// VNIs by link.
    pub vnis: BTreeMap<LinkId, Vni>,
    /// What these pods declare, if the store says that and not the pods. Those of which it says
    /// nothing declare nothing.
    pub declared: Option<BTreeMap<PodKey, Declaration>>,
}

/// The links that these records declare and that have a pod which is there, each with the pods on
/// whose records that rests: for as long as these do not change, the link does not end.
pub fn living_links(records: &BTreeMap<PodKey, PodRecord>) -> BTreeMap<LinkId, BTreeSet<PodKey>> {
    let lives = |pod: &PodKey| records.get(pod).is_some_and(PodRecord::lives);
    let mut links: BTreeMap<LinkId, BTreeSet<PodKey>> = BTreeMap::new();
    for record in records.values() {
        for link in &record.links {
            let rests_on = if record.lives() {
                [record.pod.clone()].into()
            } else if lives(&link.remote.pod) {
                [record.pod.clone(), link.remote.pod.clone()].into()
            } else {
                continue;
            };
            links.insert(link.id(), rests_on);
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::DeclaredEnd;

    fn key(name: &str) -> PodKey {
        PodKey::new("default", name).unwrap()
    }

    fn record(name: &str, alive: bool, peers: &[&str]) -> PodRecord {
        let links = peers.iter().map(|peer| {
            DeclaredLink::new(
                DeclaredEnd::bare(key(name), format!("to-{peer}").parse().unwrap()),
                DeclaredEnd::bare(key(peer), format!("to-{name}").parse().unwrap()),
            )
        });
        let location = alive.then(|| Location {
            node: "n1".parse().unwrap(),
            vtep: "10.0.0.1".parse().unwrap(),
            sandbox: name.parse().unwrap(),
            mtu: Mtu::try_from(1450).unwrap(),
            leaving: false,
        });
        PodRecord::new(key(name), location, 1, links.collect())
    }

    fn around(records: &[PodRecord]) -> BTreeMap<PodKey, PodRecord> {
        records.iter().map(|r| (r.pod.clone(), r.clone())).collect()
    }

    #[test]
    fn a_link_lives_while_it_is_declared_and_one_of_its_pods_is_there() {
        let id = record("a", true, &["b"]).links[0].id();
        let rests_on = |a: bool, b: Option<bool>| {
            let peer = b.map(|b| record("b", b, &[]));
            let records: Vec<PodRecord> =
                peer.into_iter().chain([record("a", a, &["b"])]).collect();
            let links = living_links(&around(&records));
            links.get(&id).map(|pods| {
                pods.iter()
                    .map(|pod| pod.name().to_owned())
                    .collect::<Vec<_>>()
                    .join("+")
            })
        };
        assert_eq!(rests_on(true, None).unwrap(), "a");
        assert_eq!(rests_on(true, Some(false)).unwrap(), "a");
        assert_eq!(rests_on(false, Some(true)).unwrap(), "a+b");
        assert_eq!(rests_on(false, Some(false)), None);
        assert_eq!(rests_on(false, None), None);
    }
}
