//! When everything has settled: there is no device, record, VNI or file that nothing needs.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{
    DeclaredEnd, DeclaredLink, LinkId, PodKey, PodRecord,
    device::{Alias, Part},
};

use super::expected::{Ends, Expected, Living, key, link_id};
use crate::{
    agent::node_name,
    cluster::{Cluster, Sandbox},
    history::{Kind, Wrong},
    network::{Device, DeviceId, Endpoint, Form, Inner, Namespace, NetnsId, PodNumber},
    store::Contents,
};

/// The store has the pods that live and nothing that is not needed.
///
/// # Errors
/// What is missing or left.
pub fn check_store(contents: &Contents, living: &Living<'_>) -> Result<(), Wrong> {
    let pods: BTreeMap<PodKey, &Sandbox> = living
        .iter()
        .map(|(pod, found)| (key(*pod), *found))
        .collect();
    for (pod, sandbox) in &pods {
        let record = contents.records.get(pod);
        let is_right = record.is_some_and(|record| {
            record.sandbox() == Some(&sandbox.id)
                && record.links.len() == sandbox.declaration.links.len()
        });
        if !is_right {
            let text = format!(
                "{pod} lives in sandbox {} on n{}, and the store says {record:?}",
                sandbox.id, sandbox.node
            );
            return Err(Wrong::new(Kind::WrongStore, text));
        }
    }
    let lives = |pod: &PodKey| pods.contains_key(pod);
    let mut links = BTreeSet::new();
    for record in contents.records.values() {
        check_gone(record, &lives)?;
        let alive = record
            .links
            .iter()
            .filter(|link| lives(&link.local.pod) || lives(&link.remote.pod));
        links.extend(alive.map(DeclaredLink::id));
    }
    let mut having = contents.vnis.iter();
    if let Some((link, vni)) = having.find(|(link, _)| !links.contains(link)) {
        let text = format!("VNI {vni} is kept for link {link}, which has ended");
        return Err(Wrong::new(Kind::WrongStore, text));
    }
    Ok(())
}

/// A node holds what its links have, and what it has devices of: those of pods that wait for a peer
/// stay when the link has ended. A link without consent has no VNI.
///
/// # Errors
/// The first VNI that is held without need, or not held although there is a device.
pub fn check_held(network: &Inner, cluster: &Cluster, contents: &Contents) -> Result<(), Wrong> {
    for ((vni, holder), link) in &contents.held {
        let mut nodes = 0..cluster.nodes.len();
        let node = nodes.find(|node| node_name(*node) == *holder);
        let mut tunnels = node.into_iter().flat_map(|node| network.tunnels(node));
        let has_device = tunnels.any(|(_, passage)| passage.vni == *vni);
        if !has_device && contents.vnis.get(link) != Some(vni) {
            let text = format!("{holder} holds VNI {vni} for link {link}, which does not have it");
            return Err(Wrong::new(Kind::WrongStore, text));
        }
    }
    check_consent(contents)?;
    for node in 0..cluster.nodes.len() {
        for (device, passage) in network.tunnels(node).filter(|(device, _)| device.is_ours()) {
            let Some(alias) = device.proven() else {
                continue;
            };
            let holder = node_name(node);
            let is_held = contents.held.get(&(passage.vni, holder.clone())) == Some(&alias.link);
            if !is_held && !cluster.store.has_lost(&holder, passage.vni, alias.link) {
                let text = format!("{holder} has {} and does not hold its VNI", device.name);
                return Err(Wrong::new(Kind::WrongStore, text));
            }
        }
    }
    Ok(())
}

/// No node holds a VNI for a link that pods of the other namespace declare, and it has none.
fn check_consent(contents: &Contents) -> Result<(), Wrong> {
    let links = contents.records.values().flat_map(|record| &record.links);
    let foreign: BTreeSet<LinkId> = links
        .filter(|link| link.local.pod.namespace() != link.remote.pod.namespace())
        .map(DeclaredLink::id)
        .collect();
    let mut having = contents.vnis.keys().chain(contents.held.values());
    match having.find(|link| foreign.contains(link)) {
        Some(link) => {
            let text = format!("link {link} has a VNI without consent");
            Err(Wrong::new(Kind::WrongStore, text))
        }
        None => Ok(()),
    }
}

/// The record of a pod that has gone is there only for the sake of a peer that lives.
fn check_gone(record: &PodRecord, lives: &dyn Fn(&PodKey) -> bool) -> Result<(), Wrong> {
    let is_needed = record.peers().into_iter().any(lives);
    if !lives(&record.pod) && (record.location.is_some() || !is_needed) {
        let text = format!("{} has gone, and the store has {record:?}", record.pod);
        return Err(Wrong::new(Kind::WrongStore, text));
    }
    Ok(())
}

/// There is no device of ours that is not wanted.
///
/// # Errors
/// The first one.
pub fn check_devices(
    network: &Inner,
    expected: &Expected<'_>,
    forgers: &BTreeSet<PodNumber>,
) -> Result<(), Wrong> {
    let wanted: BTreeSet<Ends> = expected
        .contents
        .records
        .values()
        .flat_map(|record| &record.links)
        .filter(|link| link.local.pod.namespace() == link.remote.pod.namespace())
        .filter_map(ends)
        .collect();
    let sandboxes = &expected.cluster.sandboxes;
    for (netns, namespace) in network.namespaces() {
        let sandbox = sandboxes.iter().find(|sandbox| sandbox.netns == netns);
        // What a pod's root has in a namespace of its own is out of every agent's sight.
        let is_roots_own = sandbox.is_none() && namespace.pod.is_some();
        if is_roots_own || sandbox.is_some_and(|sandbox| sandbox.is_unknown) {
            continue;
        }
        for (id, device) in network.devices_in(netns) {
            let is_wanted = match namespace.pod {
                _ if !device.is_ours() => true,
                // What says that it is of a link that stays as it is may stay in the forger's pod.
                Some(pod) if forgers.contains(&pod) && device.proven().is_none() => true,
                Some(_) => is_end(&wanted, expected.living(), (netns, namespace), device),
                None => {
                    is_parked(network, id, device)
                        || is_stitched(&wanted, expected.living(), network, device)
                }
            };
            if !is_wanted {
                let text = format!("nothing needs {}", network.describe(device));
                return Err(Wrong::new(Kind::DeviceLeft, text));
            }
        }
    }
    Ok(())
}

/// The ends of a link that the store has.
fn ends(link: &DeclaredLink) -> Option<Ends> {
    let end = |end: &DeclaredEnd| {
        Some(Endpoint {
            pod: end.pod.name().strip_prefix('p')?.parse().ok()?,
            interface: end.interface.to_string(),
        })
    };
    let mut ends = [end(&link.local)?, end(&link.remote)?];
    ends.sort();
    Some(ends)
}

/// Whether a device is an end of one of these links, in the sandbox in which its pod lives.
fn is_end(
    wanted: &BTreeSet<Ends>,
    living: &Living<'_>,
    (netns, namespace): (NetnsId, &Namespace),
    device: &Device,
) -> bool {
    let Some(pod) = namespace.pod else {
        return false;
    };
    let is_current = living.get(&pod).is_some_and(|found| found.netns == netns);
    let is_it = |end: &Endpoint| end.pod == pod && end.interface == device.name;
    is_current && wanted.iter().any(|ends| ends.iter().any(is_it))
}

/// Whether a device in a node's namespace is the other end of one that is in a sandbox.
fn is_parked(network: &Inner, id: DeviceId, device: &Device) -> bool {
    let is_parked = |alias: &Alias| alias.sandbox.is_none();
    let pods = network
        .namespaces()
        .filter(|(_, space)| space.pod.is_some());
    let in_pods = pods.flat_map(|(netns, _)| network.devices_in(netns));
    let mut peers =
        in_pods.filter(|(_, other)| matches!(other.form, Form::Veth { peer } if peer == id));
    device.proven().is_some_and(is_parked) && peers.next().is_some()
}

/// Whether a device in a node's namespace belongs to an end in the sandbox in which its pod lives.
fn is_stitched(
    wanted: &BTreeSet<Ends>,
    living: &Living<'_>,
    network: &Inner,
    device: &Device,
) -> bool {
    let Some(alias) = device.proven().filter(|alias| alias.part != Part::Pod) else {
        return false;
    };
    let node = network.namespace(device.netns).map(|space| space.node);
    let is_its = |ends: &&Ends| link_id(ends) == Some(alias.link);
    wanted.iter().find(is_its).is_some_and(|ends| {
        let own = living.get(&ends[alias.end as usize].pod);
        own.is_some_and(|sandbox| {
            Some(sandbox.node) == node && alias.sandbox.as_ref() == Some(&sandbox.id)
        })
    })
}

/// When all pods have gone nothing is left of them.
///
/// # Errors
/// What is left.
pub fn check_empty(cluster: &Cluster) -> Result<(), Wrong> {
    let contents = cluster.store.contents();
    if !contents.is_empty() {
        let text = format!("all pods have gone, and the store has {contents:?}");
        return Err(Wrong::new(Kind::WrongStore, text));
    }
    for node in 0..cluster.nodes.len() {
        let files = cluster.files(node).names();
        if let Some(left) = files.iter().find(|name| *name != "complete") {
            let text = format!("all pods have gone, and n{node} keeps the file {left}");
            return Err(Wrong::new(Kind::FileLeft, text));
        }
    }
    Ok(())
}
