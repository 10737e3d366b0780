//! Cables that meshnet's Topologies declare: one object for each pod, so each link twice, or once.
//!
//! meshnet knows a link by its namespace, its uid and its two pods. Here the two ends make the
//! cable, since KNE counts the uids again when it leaves a link out; and what the two sides say of
//! one uid must agree. While it does not, what there is stays, and nothing new is made.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_api::{
    Accepted, DeclaredBy, LinkEnd, LinkSpec,
    meshnet::{Link, Topology},
};
use ratchet_model::{DeclaredEnd, DeclaredLink, InterfaceName, NameError, PodKey};

use super::{Cable, CableEnd, Cables, Refused, of_pods::is_kubernetes_name};
use crate::{
    names::{self, DeclaredName},
    pods::Pods,
    snapshot::{Key, Snapshot},
};

/// Adds the cables of meshnet's Topologies.
pub(super) fn add<'s>(cables: &mut Cables<'s>, snapshot: &'s Snapshot, pods: &Pods<'s>) {
    let mut refused: BTreeMap<Place<'s>, Refused> = BTreeMap::new();
    let mut claims: BTreeMap<[DeclaredName; 2], Vec<Claim<'s>>> = BTreeMap::new();
    let mut wires = Wires::default();
    let topologies = snapshot.meshnet.iter();
    let topologies =
        topologies.filter(|(_, topology)| topology.metadata.deletion_timestamp.is_none());
    for (key, topology) in topologies.clone() {
        for (number, link) in topology.spec.links.iter().enumerate() {
            let place = (key, number);
            match Claim::read(place, link) {
                Ok((ends, claim)) => {
                    wires.note(&ends, &claim);
                    claims.entry(ends).or_default().push(claim);
                }
                Err(why) => drop(refused.insert(place, why)),
            }
        }
    }
    let mut settled: BTreeMap<Place<'s>, Result<Key, Refused>> = BTreeMap::new();
    for (ends, claims) in &claims {
        let key = settle(cables, (snapshot, pods), ends, claims, &wires);
        settled.extend(claims.iter().map(|claim| (claim.place, key.clone())));
    }
    settled.extend(refused.into_iter().map(|(place, why)| (place, Err(why))));
    for (key, topology) in topologies {
        let of_one = (0..topology.spec.links.len()).filter_map(|n| settled.remove(&(key, n)));
        cables.of_meshnet.insert(key, of_one.collect());
    }
}

/// A link's place: the Topology, and the number in its list.
type Place<'s> = (&'s Key, usize);

/// What one Topology says of a link.
struct Claim<'s> {
    place: Place<'s>,
    link: &'s Link,
    /// Which of the two ends is the Topology's own.
    own: usize,
}

fn unsupported(message: impl Into<String>) -> Refused {
    Refused {
        reason: Accepted::Unsupported,
        message: message.into(),
    }
}

impl<'s> Claim<'s> {
    /// Reads a link: its two ends, the smaller one first, and what is said of it.
    fn read(place: Place<'s>, link: &'s Link) -> Result<([DeclaredName; 2], Self), Refused> {
        if link.peer_pod == "localhost" {
            return Err(unsupported(format!(
                "peer_pod localhost is a macvlan interface on {}, which Ratchet does not make",
                link.peer_intf
            )));
        }
        if link.peer_pod.starts_with("physical/") {
            return Err(unsupported(format!(
                "peer_pod {} is a machine outside of the cluster, to which Ratchet makes no links",
                link.peer_pod
            )));
        }
        let (key, _) = place;
        let local = end(&key.namespace, &key.name, &link.local_intf)?;
        let peer = end(&key.namespace, &link.peer_pod, &link.peer_intf)?;
        if local == peer {
            return Err(unsupported("it would connect an interface with itself"));
        }
        let own = usize::from(local > peer);
        let ends = if own == 0 {
            [local, peer]
        } else {
            [peer, local]
        };
        Ok((ends, Self { place, link, own }))
    }

    /// What it says of the address of an end: its own end's counts first.
    fn address(&self, end: usize) -> (bool, &'s str) {
        match end == self.own {
            true => (true, &self.link.local_ip),
            false => (false, &self.link.peer_ip),
        }
    }
}

fn end(namespace: &str, pod: &str, interface: &str) -> Result<DeclaredName, Refused> {
    let key = PodKey::new(namespace, pod).map_err(|error| unsupported(error.to_string()))?;
    if !is_kubernetes_name(pod) {
        return Err(unsupported(format!("{pod:?} cannot be the name of a pod")));
    }
    let of_interface = |error: NameError| unsupported(format!("interface {interface:?}: {error}"));
    Ok(DeclaredName {
        pod: key,
        interface: interface.parse::<InterfaceName>().map_err(of_interface)?,
    })
}

/// Which ends are said to be those of a uid between two pods. There should be one pair each.
#[derive(Default)]
struct Wires(BTreeMap<(PodKey, PodKey, String), BTreeSet<[DeclaredName; 2]>>);

impl Wires {
    fn id(ends: &[DeclaredName; 2], claim: &Claim<'_>) -> (PodKey, PodKey, String) {
        let [a, b] = ends.each_ref().map(|end| end.pod.clone());
        (a, b, claim.link.uid.to_string())
    }

    fn note(&mut self, ends: &[DeclaredName; 2], claim: &Claim<'_>) {
        let of_uid = self.0.entry(Self::id(ends, claim)).or_default();
        of_uid.insert(ends.clone());
    }

    /// What contradicts a claim.
    fn conflict(&self, ends: &[DeclaredName; 2], claim: &Claim<'_>) -> Option<String> {
        let of_uid = self.0.get(&Self::id(ends, claim))?;
        let other = of_uid.iter().find(|other| *other != ends)?;
        Some(format!(
            "uid {} is said to connect {} with {}, and also {} with {}: change one of them",
            claim.link.uid, ends[0], ends[1], other[0], other[1]
        ))
    }
}

/// Makes the cable of two ends, and returns its key.
fn settle<'s>(
    cables: &mut Cables<'s>,
    (snapshot, pods): (&'s Snapshot, &Pods<'s>),
    names: &[DeclaredName; 2],
    claims: &[Claim<'s>],
    wires: &Wires,
) -> Result<Key, Refused> {
    let ends = names.each_ref().map(|name| cable_end(name, pods));
    let key = Key {
        namespace: names[0].pod.namespace().to_owned(),
        name: names::of_meshnet([&names[0], &names[1]]),
    };
    let other = cables.between(&ends.each_ref().map(CableEnd::key));
    if let Some(other) = other.or_else(|| cables.all.contains_key(&key).then_some(&key)) {
        return Err(Refused {
            reason: Accepted::Conflict,
            message: format!("Link {other} is this link already: declare it once"),
        });
    }
    let addresses = [0, 1].map(|end| address(&names[end], end, claims));
    let of_uid = claims.iter().find_map(|claim| wires.conflict(names, claim));
    let of_addresses = addresses.iter().find_map(|said| said.clone().err());
    let conflict = of_uid.or(of_addresses);
    let present = snapshot.links.get(&key);
    let present = present.filter(|link| link.metadata.deletion_timestamp.is_none());
    let addresses = match (&conflict, present) {
        (None, _) => addresses.map(|said| said.into_iter().flatten().map(str::to_owned).collect()),
        (Some(_), Some(link)) => {
            let LinkSpec { a, b, .. } = &link.spec;
            [a.addresses.clone(), b.addresses.clone()]
        }
        (Some(message), None) => {
            return Err(Refused {
                reason: Accepted::Conflict,
                message: message.clone(),
            });
        }
    };
    let cable = Cable {
        by: DeclaredBy::Meshnet,
        topology: None,
        declarations: declarations(&ends, addresses)?,
        ends,
        conflict,
    };
    cables.insert(key.clone(), cable);
    Ok(key)
}

fn cable_end<'s>(name: &DeclaredName, pods: &Pods<'s>) -> CableEnd<'s> {
    let found = pods.named(&name.pod);
    CableEnd {
        declared: name.clone(),
        pod: name.pod.clone(),
        name: found.pod().is_none().then(|| name.pod.name().to_owned()),
        slot: None,
        found,
    }
}

/// The address of an end: what its own Topology says, else what the peer's says.
fn address<'s>(
    name: &DeclaredName,
    end: usize,
    claims: &[Claim<'s>],
) -> Result<Option<&'s str>, String> {
    let said = |own: bool| -> Vec<&'s str> {
        let said = claims.iter().map(|claim| claim.address(end));
        said.filter(|(is_own, address)| *is_own == own && !address.is_empty())
            .map(|(_, address)| address)
            .collect()
    };
    let own = said(true);
    let said = if own.is_empty() { said(false) } else { own };
    let first = said.first().copied();
    match said.iter().find(|address| Some(**address) != first) {
        None => Ok(first),
        Some(other) => Err(format!(
            "{name} is said to have the address {}, and also {other}: change one of them",
            first.unwrap_or_default()
        )),
    }
}

/// What both pods of a cable declare. Who may write Topologies speaks for all pods of a namespace.
fn declarations(
    ends: &[CableEnd<'_>; 2],
    addresses: [Vec<String>; 2],
) -> Result<Vec<DeclaredLink>, Refused> {
    let [of_a, of_b] = addresses;
    let [a, b] = [declared(&ends[0], of_a)?, declared(&ends[1], of_b)?];
    let other = DeclaredLink::new(b.clone(), a.clone());
    Ok(vec![DeclaredLink::new(a, b), other])
}

fn declared(end: &CableEnd<'_>, addresses: Vec<String>) -> Result<DeclaredEnd, Refused> {
    let bare = DeclaredEnd::bare(end.pod.clone(), end.declared.interface.clone());
    let read = LinkEnd {
        addresses,
        ..LinkEnd::of_declared(&bare)
    };
    let read = read
        .declared()
        .map_err(|error| unsupported(error.to_string()))?;
    let addresses = read.and_then(|read| read.addresses);
    Ok(DeclaredEnd {
        addresses: addresses.filter(|list| !list.is_empty()),
        ..bare
    })
}

/// A link of a Topology, in words.
pub(crate) fn described(topology: &Topology, number: usize) -> String {
    match topology.spec.links.get(number) {
        Some(link) => format!(
            "uid {} ({} to {}:{})",
            link.uid, link.local_intf, link.peer_pod, link.peer_intf
        ),
        None => String::new(),
    }
}
