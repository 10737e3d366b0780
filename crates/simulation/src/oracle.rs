//! Whether all is as it must be when everything has settled.
//!
//! The oracle asks the wire, and not Ratchet: which links there must be it reads from the
//! scenario's declarations by its own short rules.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{PodKey, device::Alias};

use crate::{
    agent::NAMESPACE,
    cluster::{Cluster, Sandbox},
    declaration::{DeclaredLink, address_text, pod_name},
    history::{Kind, Wrong},
    network::{Device, DeviceId, Endpoint, Form, Inner, PodNumber},
    store::Contents,
};

/// The two ends of a link, in their order.
type Ends = [Endpoint; 2];

/// The links that living pods declare.
type Links<'c> = BTreeMap<Ends, Vec<(PodNumber, &'c DeclaredLink)>>;

/// Checks everything; returns how many links carry frames.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(cluster: &Cluster) -> Result<u64, Wrong> {
    let living = living(cluster);
    let links = declared(&living);
    let contents = cluster.store.contents();
    check_store(&contents, &living)?;
    let network = cluster.network.lock();
    let mut count = 0;
    for (ends, declarations) in &links {
        let both = ends
            .iter()
            .map(|end| living.get(&end.pod))
            .collect::<Option<Vec<_>>>();
        let Some(both) = both else { continue };
        let is_blocked = ends.iter().zip(&both).any(|(end, sandbox)| {
            let found = network.find(sandbox.netns, &end.interface);
            let device = found.and_then(|id| network.device(id));
            device.is_some_and(|device| !device.is_ours())
        });
        let is_blocked = is_blocked || has_old_tunnel(&network, ends, &both, &contents);
        if is_blocked || is_at_odds(ends, declarations, &links, &contents) {
            continue;
        }
        carries(&network, ends, &both)?;
        check_addresses(&network, ends, &both, declarations)?;
        count += 1;
    }
    check_devices(cluster, &network, &living, &contents)?;
    Ok(count)
}

fn wrong(kind: Kind, text: String) -> Wrong {
    Wrong { kind, text }
}

/// Whether the node of an end still has the tunnel of another link, which had this link's VNI
/// before it: the kernel has room for one of them only.
///
/// A node that was taken for lost, and comes back with a pod whose peer has gone meanwhile, keeps
/// that pod's tunnel although its VNI was freed. See the crate's documentation.
fn has_old_tunnel(network: &Inner, ends: &Ends, both: &[&&Sandbox], contents: &Contents) -> bool {
    let link = link_id(ends);
    let Some(vni) = link.and_then(|link| contents.vnis.get(&link)) else {
        return false;
    };
    let nodes: Vec<usize> = both.iter().map(|sandbox| sandbox.node).collect();
    network.namespaces().any(|(netns, namespace)| {
        nodes.contains(&namespace.node)
            && network.devices_in(netns).any(|(_, device)| {
                let owner = device.alias.as_ref().map(|alias| alias.link);
                matches!(&device.form, Form::Vxlan { tunnel, .. } if tunnel.vni == *vni)
                    && owner != link
            })
    })
}

/// The sandbox of each pod that lives.
fn living(cluster: &Cluster) -> BTreeMap<PodNumber, &Sandbox> {
    let pods: BTreeSet<PodNumber> = cluster.sandboxes.iter().map(|s| s.pod).collect();
    let newest = pods
        .into_iter()
        .filter_map(|pod| Some((pod, cluster.newest(pod)?)));
    newest
        .filter(|(_, sandbox)| cluster.lives(sandbox) && !sandbox.is_unknown)
        .collect()
}

fn declared<'c>(living: &BTreeMap<PodNumber, &'c Sandbox>) -> Links<'c> {
    let mut links = Links::new();
    for (pod, sandbox) in living {
        for link in &sandbox.declaration.links {
            let mut ends = link.ends(*pod);
            ends.sort();
            links.entry(ends).or_default().push((*pod, link));
        }
    }
    links
}

/// Whether a link's declarations contradict each other or another link's: what there is of it then
/// stays, whatever it is.
fn is_at_odds(
    ends: &Ends,
    declarations: &[(PodNumber, &DeclaredLink)],
    links: &Links<'_>,
    contents: &Contents,
) -> bool {
    let shares = links
        .keys()
        .any(|other| other != ends && other.iter().any(|end| ends.contains(end)));
    let differ = |value: &dyn Fn(&(PodNumber, &DeclaredLink)) -> Option<u32>| {
        let values: BTreeSet<u32> = declarations.iter().filter_map(value).collect();
        values.len() > 1
    };
    let address = |end: &Endpoint, (pod, link): &(PodNumber, &DeclaredLink)| {
        let own = link.ends(*pod)[0] == *end;
        let address = if own { link.address } else { link.peer_address };
        address.map(u32::from)
    };
    let vni = declarations.iter().find_map(|(_, link)| link.vni);
    let is_taken = vni.is_some_and(|vni| {
        let has = contents
            .vnis
            .iter()
            .find(|(_, taken)| taken.number() == vni);
        has.is_some_and(|(link, _)| Some(*link) != link_id(ends))
    });
    shares
        || is_taken
        || differ(&|(_, link)| link.vni)
        || ends
            .iter()
            .any(|end| differ(&|declaration| address(end, declaration)))
}

fn key(pod: PodNumber) -> PodKey {
    PodKey::new(NAMESPACE, &pod_name(pod)).expect("letters and digits make a name")
}

/// The id of the link between two ends, which are in their order.
pub fn link_id(ends: &[Endpoint; 2]) -> Option<ratchet_model::LinkId> {
    let [a, z] = ends;
    let (interface_a, interface_z) = (a.interface.parse().ok()?, z.interface.parse().ok()?);
    Some(ratchet_model::LinkId::derive(
        (&key(a.pod), &interface_a),
        (&key(z.pod), &interface_z),
    ))
}

/// A frame that leaves by either end arrives at the other one, and nowhere else.
fn carries(network: &Inner, ends: &Ends, both: &[&&Sandbox]) -> Result<(), Wrong> {
    let name = || {
        let [a, z] = ends
            .each_ref()
            .map(|end| format!("{}/{}", pod_name(end.pod), end.interface));
        format!("the link between {a} and {z}")
    };
    let mut devices = Vec::new();
    for (end, sandbox) in ends.iter().zip(both) {
        let found = network.find(sandbox.netns, &end.interface);
        devices.push(found.ok_or_else(|| {
            let text = format!(
                "{} must be up, but there is no {} in sandbox {}",
                name(),
                end.interface,
                sandbox.id
            );
            wrong(Kind::LinkDown, text)
        })?);
    }
    for (from, to) in [(devices[0], devices[1]), (devices[1], devices[0])] {
        let Some(sender) = network.device(from) else {
            continue;
        };
        let receivers = network.receivers(sender);
        if receivers != [to] {
            let found: Vec<String> = receivers
                .iter()
                .filter_map(|id| network.device(*id))
                .map(|device| network.describe(device))
                .collect();
            return Err(wrong(
                Kind::LinkDown,
                format!(
                    "{} must be up, but a frame from {} arrives at [{}]",
                    name(),
                    network.describe(sender),
                    found.join(", ")
                ),
            ));
        }
    }
    Ok(())
}

/// Both ends have the addresses that were declared.
fn check_addresses(
    network: &Inner,
    ends: &Ends,
    both: &[&&Sandbox],
    declarations: &[(PodNumber, &DeclaredLink)],
) -> Result<(), Wrong> {
    for (end, sandbox) in ends.iter().zip(both) {
        let said = declarations.iter().find_map(|(pod, link)| {
            if link.ends(*pod)[0] == *end {
                link.address
            } else {
                link.peer_address
            }
        });
        let found = network.find(sandbox.netns, &end.interface);
        let Some(device) = found.and_then(|id| network.device(id)) else {
            continue;
        };
        let wanted: Vec<String> = said.into_iter().map(address_text).collect();
        let has: Vec<String> = device
            .addresses
            .iter()
            .map(|observed| observed.address.to_string())
            .collect();
        if has != wanted {
            return Err(wrong(
                Kind::WrongAddresses,
                format!(
                    "{} has the addresses {has:?}, and {wanted:?} were declared",
                    network.describe(device)
                ),
            ));
        }
    }
    Ok(())
}

/// The store has the pods that live and nothing that nobody needs.
fn check_store(contents: &Contents, living: &BTreeMap<PodNumber, &Sandbox>) -> Result<(), Wrong> {
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
            return Err(wrong(
                Kind::WrongStore,
                format!(
                    "{pod} lives in sandbox {} on n{}, and the store says {record:?}",
                    sandbox.id, sandbox.node
                ),
            ));
        }
    }
    let mut links = BTreeSet::new();
    for record in contents.records.values() {
        let lives = |pod: &PodKey| pods.contains_key(pod);
        let is_needed = record.peers().into_iter().any(lives);
        if !lives(&record.pod) && (record.location.is_some() || !is_needed) {
            return Err(wrong(
                Kind::WrongStore,
                format!("{} has gone, and the store has {record:?}", record.pod),
            ));
        }
        let alive = record
            .links
            .iter()
            .filter(|link| lives(&link.local.pod) || lives(&link.remote.pod));
        links.extend(alive.map(ratchet_model::DeclaredLink::id));
    }
    match contents.vnis.iter().find(|(link, _)| !links.contains(link)) {
        Some((link, vni)) => Err(wrong(
            Kind::WrongStore,
            format!("VNI {vni} is kept for link {link}, which has ended"),
        )),
        None => Ok(()),
    }
}

/// There is no device of ours that nobody wants.
fn check_devices(
    cluster: &Cluster,
    network: &Inner,
    living: &BTreeMap<PodNumber, &Sandbox>,
    contents: &Contents,
) -> Result<(), Wrong> {
    let wanted: BTreeSet<Ends> = contents
        .records
        .values()
        .flat_map(|record| &record.links)
        .filter_map(|link| {
            let end = |end: &ratchet_model::DeclaredEnd| {
                Some(Endpoint {
                    pod: end.pod.name().strip_prefix('p')?.parse().ok()?,
                    interface: end.interface.to_string(),
                })
            };
            let mut ends = [end(&link.local)?, end(&link.remote)?];
            ends.sort();
            Some(ends)
        })
        .collect();
    for (netns, namespace) in network.namespaces() {
        let sandbox = cluster.sandboxes.iter().find(|s| s.netns == netns);
        if sandbox.is_some_and(|sandbox| sandbox.is_unknown) {
            continue;
        }
        for (id, device) in network.devices_in(netns) {
            let is_wanted = match namespace.pod {
                _ if !device.is_ours() => true,
                Some(pod) => {
                    let is_current = living.get(&pod).is_some_and(|found| found.netns == netns);
                    let is_end = |end: &Endpoint| end.pod == pod && end.interface == device.name;
                    is_current && wanted.iter().any(|ends| ends.iter().any(is_end))
                }
                None => is_parked(network, id, device),
            };
            if !is_wanted {
                return Err(wrong(
                    Kind::DeviceLeft,
                    format!("nobody wants {}", network.describe(device)),
                ));
            }
        }
    }
    Ok(())
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
    device.alias.as_ref().is_some_and(is_parked) && peers.next().is_some()
}

/// When all pods have gone nothing is left of them.
///
/// # Errors
/// What is left.
pub fn check_empty(cluster: &Cluster) -> Result<(), Wrong> {
    let contents = cluster.store.contents();
    if !contents.is_empty() {
        return Err(wrong(
            Kind::WrongStore,
            format!("all pods have gone, and the store has {contents:?}"),
        ));
    }
    for node in 0..cluster.nodes.len() {
        let files = cluster.files(node).names();
        if let Some(left) = files.iter().find(|name| *name != "complete") {
            return Err(wrong(
                Kind::FileLeft,
                format!("all pods have gone, and n{node} keeps the file {left}"),
            ));
        }
    }
    Ok(())
}
