//! Which links there must be, by the declarations of the pods that live.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, PodKey};

use crate::{
    cluster::{Cluster, Sandbox},
    declaration::{DeclaredLink, namespace, pod_name},
    network::{Device, Endpoint, Inner, PodNumber},
    store::Contents,
};

/// The two ends of a link, in their order.
pub type Ends = [Endpoint; 2];

/// The sandbox of each pod that lives.
pub type Living<'c> = BTreeMap<PodNumber, &'c Sandbox>;

/// The declarations of a link, each with the pod that has it.
type Declarations<'c> = Vec<(PodNumber, &'c DeclaredLink)>;

/// What there must be.
pub struct Expected<'c> {
    /// The cluster.
    pub cluster: &'c Cluster,
    /// What its store has.
    pub contents: &'c Contents,
    network: &'c Inner,
    living: Living<'c>,
    links: BTreeMap<Ends, Declarations<'c>>,
}

/// A link that must be up.
pub struct Link<'e> {
    /// Its ends.
    pub ends: &'e Ends,
    /// Their sandboxes.
    pub sandboxes: [&'e Sandbox; 2],
    /// Its declarations, which agree.
    pub declarations: &'e [(PodNumber, &'e DeclaredLink)],
}

impl<'c> Expected<'c> {
    /// Reads the scenario.
    pub fn new(cluster: &'c Cluster, network: &'c Inner, contents: &'c Contents) -> Self {
        let living = living(cluster, network);
        let links = declared(&living);
        Self {
            cluster,
            contents,
            network,
            living,
            links,
        }
    }

    /// The sandbox of each pod that lives.
    pub fn living(&self) -> &Living<'c> {
        &self.living
    }

    /// The links that must be up.
    pub fn links_up(&self) -> impl Iterator<Item = Link<'_>> {
        let links = self.links_of_the_living();
        links.filter(|link| {
            !self.is_blocked(link) && !self.is_at_odds(link) && !self.is_vni_taken_away(link)
        })
    }

    /// Whether the root of a pod has moved a tunnel with the VNI that a link declares to a
    /// namespace of its own making: no other device of that node gets the VNI.
    fn is_vni_taken_away(&self, link: &Link<'_>) -> bool {
        let Some(vni) = link.declarations.iter().find_map(|(_, link)| link.vni) else {
            return false;
        };
        let sandboxes = &self.cluster.sandboxes;
        let is_in_pod = |device: &Device| sandboxes.iter().any(|of| of.netns == device.netns);
        link.sandboxes.iter().any(|sandbox| {
            let mut tunnels = self.network.tunnels(sandbox.node);
            tunnels.any(|(device, has)| has.vni.number() == vni && !is_in_pod(device))
        })
    }

    /// The links both of whose pods live.
    fn links_of_the_living(&self) -> impl Iterator<Item = Link<'_>> {
        self.links.iter().filter_map(|(ends, declarations)| {
            let [a, z] = ends.each_ref().map(|end| self.living.get(&end.pod));
            Some(Link {
                ends,
                sandboxes: [a?, z?],
                declarations,
            })
        })
    }

    /// Whether something is in the way of a link that its agent may not remove: a device that is
    /// not ours, or one of a link that is at odds, to which a pod's root gave this name.
    fn is_blocked(&self, link: &Link<'_>) -> bool {
        let mut ends = link.ends.iter().zip(&link.sandboxes);
        ends.any(|(end, sandbox)| {
            let found = self.network.find(sandbox.netns, &end.interface);
            let device = found.and_then(|id| self.network.device(id));
            let Some(device) = device.filter(|device| device.is_ours()) else {
                return device.is_some();
            };
            let other = device.proven().map(|alias| alias.link);
            let other = other.filter(|other| Some(*other) != link_id(link.ends));
            other.is_some_and(|other| {
                let mut links = self.links_of_the_living();
                links.any(|link| link_id(link.ends) == Some(other) && self.is_at_odds(&link))
            })
        })
    }

    /// Whether a link's declarations contradict each other or another link's: what there is of it
    /// then stays, whatever it is.
    fn is_at_odds(&self, link: &Link<'_>) -> bool {
        let ends = link.ends;
        let mut others = self.links.keys().filter(|other| *other != ends);
        let shares = others.any(|other| other.iter().any(|end| ends.contains(end)));
        let differ = |value: &dyn Fn(&(PodNumber, &DeclaredLink)) -> Option<u32>| {
            let values: BTreeSet<u32> = link.declarations.iter().filter_map(value).collect();
            values.len() > 1
        };
        let address = |end: &Endpoint, (pod, link): &(PodNumber, &DeclaredLink)| {
            link.address_of(*pod, end).map(u32::from)
        };
        let vni = link.declarations.iter().find_map(|(_, link)| link.vni);
        // A survivor keeps its tunnel, and its node the VNI, when its link has ended meanwhile for
        // the store: the node was cut off for long.
        let is_taken = vni.is_some_and(|vni| {
            let taken = self.contents.vnis.iter().map(|(link, vni)| (link, *vni));
            let held = self.contents.held.iter();
            let mut taken = taken.chain(held.map(|((vni, _), link)| (link, *vni)));
            taken.any(|(owner, taken)| taken.number() == vni && Some(*owner) != link_id(ends))
        });
        // Which of two that declare one VNI has it, a store that has lost everything does not know.
        let wants_it = |(_, link): &(PodNumber, &DeclaredLink)| vni.is_some() && link.vni == vni;
        let is_shared = self.cluster.store.was_wiped()
            && self
                .links
                .iter()
                .any(|(other, declarations)| other != ends && declarations.iter().any(wants_it));
        shares
            || is_taken
            || is_shared
            || differ(&|(_, link)| link.vni)
            || differ(&|(_, link)| link.mtu)
            || ends
                .iter()
                .any(|end| differ(&|declaration| address(end, declaration)))
    }
}

fn living<'c>(cluster: &'c Cluster, network: &Inner) -> Living<'c> {
    let pods: BTreeSet<PodNumber> = cluster.sandboxes.iter().map(|s| s.pod).collect();
    let newest = pods
        .into_iter()
        .filter_map(|pod| Some((pod, cluster.newest(pod)?)));
    newest
        .filter(|(_, sandbox)| sandbox.lives(network) && !sandbox.is_unknown)
        .collect()
}

fn declared<'c>(living: &Living<'c>) -> BTreeMap<Ends, Declarations<'c>> {
    let mut links = BTreeMap::<Ends, Declarations<'c>>::new();
    for (pod, sandbox) in living {
        let declared = sandbox.declaration.links.iter();
        for link in declared.filter(|link| !link.is_foreign(*pod)) {
            let ends = link.ends_in_order(*pod);
            links.entry(ends).or_default().push((*pod, link));
        }
    }
    links
}

/// The name by which Ratchet knows a pod.
pub fn key(pod: PodNumber) -> PodKey {
    PodKey::new(namespace(pod), &pod_name(pod)).expect("letters and digits make a name")
}

/// The id of the link between two ends, which are in their order.
pub fn link_id(ends: &Ends) -> Option<LinkId> {
    let [a, z] = ends;
    let (interface_a, interface_z) = (a.interface.parse().ok()?, z.interface.parse().ok()?);
    Some(LinkId::derive(
        (&key(a.pod), &interface_a),
        (&key(z.pod), &interface_z),
    ))
}

/// A link for messages.
pub fn describe(ends: &Ends) -> String {
    let [a, z] = ends
        .each_ref()
        .map(|end| format!("{}/{}", pod_name(end.pod), end.interface));
    format!("the link between {a} and {z}")
}
