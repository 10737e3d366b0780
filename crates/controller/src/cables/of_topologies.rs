//! Cables that Topologies declare.

use ratchet_api::{
    Accepted, DeclaredBy, EndpointRef, FieldError, LinkEnd, Slot, Topology, TopologyEnd,
    TopologyLink,
};
use ratchet_model::{DeclaredEnd, DeclaredLink, PodKey, Reason};

use super::{Cable, CableEnd, Cables, Refused};
use crate::{
    names::{self, DeclaredName},
    pods::{Found, Pods},
    snapshot::{Key, Snapshot},
};

/// Adds the cables of all Topologies. Of two Topologies that declare the same link, the older one
/// has it.
pub(super) fn add<'s>(cables: &mut Cables<'s>, snapshot: &'s Snapshot, pods: &Pods<'s>) {
    let topologies = snapshot.topologies.iter();
    let mut topologies: Vec<_> = topologies
        .filter(|(_, topology)| topology.metadata.deletion_timestamp.is_none())
        .collect();
    topologies.sort_by_key(|(key, topology)| {
        let created = topology.metadata.creation_timestamp.as_ref();
        (created.map(|time| time.0), *key)
    });
    for (key, topology) in topologies {
        let reader = Reader {
            key,
            topology,
            snapshot,
            pods,
        };
        let links = topology.spec.links.iter();
        let links = links.map(|link| reader.add(cables, link)).collect();
        cables.of_topologies.insert(key, links);
    }
}

struct Reader<'a, 's> {
    key: &'s Key,
    topology: &'s Topology,
    snapshot: &'s Snapshot,
    pods: &'a Pods<'s>,
}

fn unsupported(error: &FieldError) -> Refused {
    Refused {
        reason: Accepted::Unsupported,
        message: error.to_string(),
    }
}

impl<'s> Reader<'_, 's> {
    /// Adds the cable of a link, and returns the key of its Link.
    fn add(&self, cables: &mut Cables<'s>, link: &'s TopologyLink) -> Result<Key, Refused> {
        let mut ends = link.ends().map_err(|error| unsupported(&error))?;
        let declared = |end: &TopologyEnd<'_>| self.declared_name(&end.endpoint);
        // The Link of a link with a name stays when its pods are changed, so their order counts.
        if link.name.is_none() {
            ends.sort_by_cached_key(|end| declared(end).ok());
        }
        let [a, b] = [declared(&ends[0])?, declared(&ends[1])?];
        let is_own = [&a, &b].map(|end| end.pod.namespace() == self.key.namespace);
        if is_own == [false, false] {
            return Err(Refused {
                reason: Accepted::Unsupported,
                message: format!(
                    "neither end is in namespace {}: move the Topology to the namespace of one of \
                     its pods",
                    self.key.namespace
                ),
            });
        }
        let key = Key {
            namespace: self.key.namespace.clone(),
            name: names::of_topology(&self.key.name, link.name.as_deref(), [&a, &b]),
        };
        let present = self.snapshot.links.get(&key);
        let present = |end: fn(&ratchet_api::LinkSpec) -> &LinkEnd| {
            present.and_then(|link| end(&link.spec).pod_uid.as_deref())
        };
        let found = [
            self.end(&ends[0].endpoint, a, present(|spec| &spec.a)),
            self.end(&ends[1].endpoint, b, present(|spec| &spec.b)),
        ];
        for end in &found {
            cables.waiting.extend(self.waiting(end));
        }
        let other = cables.between(&found.each_ref().map(CableEnd::key));
        if let Some(other) = other.or_else(|| cables.all.contains_key(&key).then_some(&key)) {
            return Err(Refused {
                reason: Accepted::Conflict,
                message: format!("Link {other} is this link already: declare it once"),
            });
        }
        let declarations = declarations(link, &ends, &found, is_own);
        let cable = Cable {
            by: DeclaredBy::Topology,
            topology: Some(self.topology),
            declarations: declarations.map_err(|error| unsupported(&error))?,
            ends: found,
            conflict: None,
        };
        cables.insert(key.clone(), cable);
        Ok(key)
    }

    /// The end as it is declared. The schema refuses names that cannot be one.
    fn declared_name(&self, endpoint: &EndpointRef) -> Result<DeclaredName, Refused> {
        let pod = endpoint.pod_key(&self.key.namespace);
        let pod = pod.map_err(|error| Refused {
            reason: Accepted::Unsupported,
            message: format!("endpoint {endpoint}: {error}"),
        })?;
        Ok(DeclaredName {
            pod,
            interface: endpoint.interface.clone(),
        })
    }

    fn end(
        &self,
        endpoint: &EndpointRef,
        declared: DeclaredName,
        present: Option<&str>,
    ) -> CableEnd<'s> {
        let namespace = declared.pod.namespace();
        let slot = self.slot(endpoint, namespace);
        let (found, name) = match slot {
            Some(slot) => self.pods.in_slot(namespace, slot, present),
            None => {
                let found = self.pods.named(&declared.pod);
                (found, Some(endpoint.pod.clone()))
            }
        };
        let by_name = name.as_ref().map(|name| PodKey::new(namespace, name));
        let pod = match (found.pod(), by_name) {
            (Some(pod), _) => pod.key.clone(),
            (None, Some(Ok(key))) => key,
            (None, _) => stand_in(&declared.pod, &self.key.name),
        };
        let name = name.filter(|_| matches!(found, Found::Missing));
        let has_selector = slot.is_some_and(|slot| slot.selector.is_some());
        CableEnd {
            slot: has_selector.then(|| declared.pod.name().to_owned()),
            declared,
            pod,
            found,
            name,
        }
    }

    /// The slot of an endpoint, if its pod is one.
    fn slot(&self, endpoint: &EndpointRef, namespace: &str) -> Option<&'s Slot> {
        let is_own = namespace == self.key.namespace;
        let mut slots = self.topology.spec.pods.iter().filter(|_| is_own);
        slots.find(|slot| slot.name == endpoint.pod)
    }

    /// The pods that wait for an end's slot, because another pod has it.
    fn waiting(&self, end: &CableEnd<'s>) -> Vec<(&'s PodKey, Reason)> {
        let Some((name, holder)) = end.slot.as_ref().zip(end.found.pod()) else {
            return Vec::new();
        };
        let mut slots = self.topology.spec.pods.iter();
        let Some(slot) = slots.find(|slot| slot.name == *name) else {
            return Vec::new();
        };
        let waiting = self.pods.waiting_for(&self.key.namespace, slot, holder);
        let reason = || Reason::SlotHeld {
            slot: name.clone(),
            topology: self.key.to_string(),
            owner: holder.key.name().to_owned(),
        };
        waiting
            .into_iter()
            .map(|pod| (&pod.key, reason()))
            .collect()
    }
}

/// A name in the place of the pod of a slot that has none. No pod of Kubernetes has a '_' in it.
fn stand_in(slot: &PodKey, topology: &str) -> PodKey {
    let mut name = format!("{}_of_{topology}", slot.name());
    name.truncate(253);
    PodKey::new(slot.namespace(), &name).unwrap_or_else(|_| slot.clone())
}

/// What a Topology declares, as the pods of its namespace would.
fn declarations(
    link: &TopologyLink,
    ends: &[TopologyEnd<'_>; 2],
    found: &[CableEnd<'_>; 2],
    is_own: [bool; 2],
) -> Result<Vec<DeclaredLink>, FieldError> {
    let [a, b] = [
        declared_end(&ends[0], &found[0])?,
        declared_end(&ends[1], &found[1])?,
    ];
    let (mtu, vni, wiring) = (link.read_mtu()?, link.read_vni()?, link.read_wiring()?);
    let of = |local: &DeclaredEnd, remote: &DeclaredEnd| DeclaredLink {
        mtu,
        vni,
        wiring,
        ..DeclaredLink::new(local.clone(), remote.clone())
    };
    let both = [(is_own[0], of(&a, &b)), (is_own[1], of(&b, &a))];
    let own = both.into_iter().filter(|(is_own, _)| *is_own);
    Ok(own.map(|(_, link)| link).collect())
}

/// What is not given is left to the pods' own declarations.
fn declared_end(end: &TopologyEnd<'_>, found: &CableEnd<'_>) -> Result<DeclaredEnd, FieldError> {
    let read = LinkEnd {
        namespace: found.pod.namespace().to_owned(),
        pod: Some(found.pod.name().to_owned()),
        interface: end.endpoint.interface.to_string(),
        addresses: end.addresses.to_vec(),
        mac: end.mac.map(ToOwned::to_owned),
        routes: end.routes.to_vec(),
        ..LinkEnd::default()
    };
    let bare = DeclaredEnd::bare(found.pod.clone(), found.declared.interface.clone());
    let read = read.declared()?.unwrap_or(bare);
    Ok(DeclaredEnd {
        addresses: read.addresses.filter(|list| !list.is_empty()),
        routes: read.routes.filter(|list| !list.is_empty()),
        ..read
    })
}
