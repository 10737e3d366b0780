//! Cables that pods declare by their labels and annotations.

use ratchet_api::DeclaredBy;
use ratchet_model::{DeclaredEnd, DeclaredLink, PodKey, Reason};

use super::{Cable, CableEnd, Cables};
use crate::{
    names::{self, DeclaredName},
    pods::{Found, Pods},
    snapshot::{Key, Pod, Snapshot},
};

/// Adds the cables that pods declare, and to those of Topologies what pods declare of them.
pub(super) fn add<'s>(cables: &mut Cables<'s>, snapshot: &'s Snapshot, pods: &Pods<'s>) {
    for pod in snapshot.pods.values() {
        let Some(declaration) = &pod.declaration else {
            continue;
        };
        if let Some(holder) = pods.holder_of_its_name(pod) {
            let reason = name_held(&declaration.pod, holder);
            cables
                .waiting
                .extend(reason.map(|reason| (&pod.key, reason)));
            continue;
        }
        for (number, link) in declaration.links.iter().enumerate() {
            let by = match number < pod.label_links {
                true => DeclaredBy::Label,
                false => DeclaredBy::Annotation,
            };
            add_link(cables, snapshot, pods, (pod, by, link));
        }
    }
}

/// Why a pod's links wait while another pod has the name that it says.
fn name_held(name: &PodKey, holder: &Pod) -> Option<Reason> {
    Some(Reason::NameHeld {
        pod: name.clone(),
        owner: holder.key.name().to_owned(),
        node: holder.node.as_ref()?.parse().ok()?,
    })
}

fn add_link<'s>(
    cables: &mut Cables<'s>,
    snapshot: &'s Snapshot,
    pods: &Pods<'s>,
    (pod, by, link): (&'s Pod, DeclaredBy, &DeclaredLink),
) {
    // There can be no such namespace, so nobody can consent.
    let namespace = link.remote.pod.namespace();
    if namespace.contains('.') || !is_kubernetes_name(namespace) {
        return;
    }
    // A link may be between two interfaces of one pod.
    let is_within = link.remote.pod == link.local.pod;
    let found = match is_within {
        true => Found::Pod(pod),
        false => pods.declared(&link.remote.pod),
    };
    let local = end(&link.local, Found::Pod(pod));
    let remote = end(&link.remote, found);
    let declaration = DeclaredLink {
        local: renamed(&link.local, &local),
        remote: renamed(&link.remote, &remote),
        ..link.clone()
    };
    if let Some(key) = cables.between(&[local.key(), remote.key()]) {
        let key = key.clone();
        if let Some(cable) = cables.all.get_mut(&key) {
            cable.declarations.push(declaration);
        }
        return;
    }
    let mut ends = [local, remote];
    ends.sort_by(|one, other| one.declared.cmp(&other.declared));
    let name = names::of_pods(ends.each_ref().map(|end| &end.declared));
    let key = place(snapshot, &name, link, &ends);
    let cable = Cable {
        by,
        topology: None,
        ends,
        declarations: vec![declaration],
        conflict: None,
    };
    // Only if two digests were the same.
    if !cables.all.contains_key(&key) {
        cables.insert(key, cable);
    }
}

/// A Link is in the namespace of a pod that declares it, and stays where it is.
fn place(snapshot: &Snapshot, name: &str, link: &DeclaredLink, ends: &[CableEnd<'_>; 2]) -> Key {
    let own = link.local.pod.namespace();
    let others = ends.iter().map(|end| end.declared.pod.namespace());
    let keys = [own].into_iter().chain(others).map(|namespace| Key {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    });
    let mut keys: Vec<Key> = keys.collect();
    let there = keys.iter().position(|key| snapshot.links.contains_key(key));
    keys.swap_remove(there.unwrap_or(0))
}

/// An end as a pod declares it.
pub(super) fn end<'s>(declared: &DeclaredEnd, found: Found<'s>) -> CableEnd<'s> {
    let pod = found.pod().map_or(&declared.pod, |pod| &pod.key).clone();
    CableEnd {
        declared: DeclaredName {
            pod: declared.pod.clone(),
            interface: declared.interface.clone(),
        },
        name: found
            .pod()
            .is_none()
            .then(|| pod.name().to_owned())
            .filter(|name| is_kubernetes_name(name)),
        slot: (pod != declared.pod).then(|| declared.pod.name().to_owned()),
        pod,
        found,
    }
}

/// Whether a pod of Kubernetes can have a name. Declarations may use others.
pub(super) fn is_kubernetes_name(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn renamed(declared: &DeclaredEnd, end: &CableEnd<'_>) -> DeclaredEnd {
    DeclaredEnd {
        pod: end.pod.clone(),
        ..declared.clone()
    }
}
