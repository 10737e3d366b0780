//! From cables to the Links that are wanted, all but their VNIs.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::OwnerReference, jiff::Timestamp};
use kube::Resource;
use ratchet_api::{
    Accepted, DeclaredBy, Link, LinkEnd, LinkSpec, NodeUnderlaySpec, Route, Topology, node_label,
};
use ratchet_model::{End, Endpoint, Mac, NodeName, Reason, Vni, resolve, text::few};

use crate::{
    cables::{Cable, CableEnd, Cables, DECLARED_BY, ENDS},
    config::Config,
    pods::Found,
    records,
    snapshot::{Key, Pod, Snapshot},
};

/// The labels of a Link that say at which nodes it has an end.
const NODE_LABEL: &str = "node.ratchet.dev/";

/// What a Link should be.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The spec; a VNI is chosen later.
    pub spec: LinkSpec,
    /// The annotations that tell what was declared.
    pub annotations: BTreeMap<String, String>,
    /// The Topology.
    pub owner: Option<OwnerReference>,
    /// The VNI that is declared.
    pub vni: Option<Vni>,
    /// A pod of one of its ends is there.
    pub has_pod: bool,
    /// Whether it can be made, and why not.
    pub accepted: Accepted,
    /// The same for people.
    pub message: String,
}

impl Wanted {
    /// Whether its ends are on two nodes, so that it needs a tunnel.
    pub fn needs_vni(&self) -> bool {
        let nodes = [&self.spec.a.node, &self.spec.b.node];
        nodes.iter().all(|node| node.is_some()) && nodes[0] != nodes[1]
    }

    /// Says why nothing can be made of it. No agent has to do with it then.
    pub fn refuse(&mut self, reason: Accepted, message: String) {
        self.accepted = reason;
        self.message = message;
        for end in [&mut self.spec.a, &mut self.spec.b] {
            unresolve(end);
        }
    }

    /// Whether it only lacks a pod, or a pod's node: both come by themselves.
    pub fn waits_for_pods(&self) -> bool {
        matches!(
            self.accepted,
            Accepted::PodNotFound | Accepted::NotScheduled
        )
    }

    /// Whether the pods of a Link are all where they were; others may have come.
    pub fn keeps_places_of(&self, present: &LinkSpec) -> bool {
        let ends = [(&present.a, &self.spec.a), (&present.b, &self.spec.b)];
        ends.into_iter().all(|(before, after)| {
            before.node.is_none()
                || (&before.node, &before.pod_uid) == (&after.node, &after.pod_uid)
        })
    }

    /// The labels: those that a Link has and that are not ours stay.
    pub fn labels(&self, present: Option<&Link>) -> BTreeMap<String, String> {
        let present = present.and_then(|link| link.metadata.labels.clone());
        let mut labels = present.unwrap_or_default();
        labels.retain(|key, _| !key.starts_with(NODE_LABEL));
        let nodes = [&self.spec.a.node, &self.spec.b.node];
        let nodes = nodes
            .into_iter()
            .flatten()
            .filter_map(|node| node.parse().ok());
        labels.extend(nodes.map(|node: NodeName| (node_label(&node), String::new())));
        labels
    }
}

fn unresolve(end: &mut LinkEnd) {
    end.pod_uid = None;
    end.node = None;
    end.vtep = None;
    end.tunnel_mtu = None;
}

/// The Links that are wanted for cables, by key.
pub(crate) fn links(
    snapshot: &Snapshot,
    cables: &Cables<'_>,
    config: &Config,
    now: Timestamp,
) -> BTreeMap<Key, Wanted> {
    let mut resolved: HashMap<Key, resolve::Link> =
        records::resolve(snapshot, cables, config.cross_namespace, now);
    let wanted = cables.all.iter().filter_map(|(key, cable)| {
        let link = resolved.remove(key)?;
        Some((key.clone(), one(snapshot, config, key, cable, &link)))
    });
    wanted.collect()
}

fn one(
    snapshot: &Snapshot,
    config: &Config,
    key: &Key,
    cable: &Cable<'_>,
    link: &resolve::Link,
) -> Wanted {
    let present = snapshot.links.get(key).map(|link| &link.spec);
    let [a, b] = &cable.ends;
    let [a, b] = [
        (a, present.map(|spec| &spec.a)),
        (b, present.map(|spec| &spec.b)),
    ];
    let [a, b] = [a, b]
        .map(|(end, present)| with_name(link_end((snapshot, config), link, end), end, present));
    let mut wanted = Wanted {
        spec: LinkSpec {
            topology: cable
                .topology
                .and_then(|topology| topology.metadata.name.clone()),
            declared_by: cable.by,
            mtu: link.mtu.map(u32::from),
            vni: present.and_then(|spec| spec.vni),
            wiring: link.wiring.map(|kind| kind.to_string()),
            a,
            b,
        },
        annotations: annotations(cable),
        owner: cable.topology.and_then(owner),
        vni: link.vni,
        has_pod: cable.ends.iter().any(|end| end.found.pod().is_some()),
        accepted: Accepted::Resolved,
        message: remarks(link),
    };
    if let Some(reason) = &link.barred {
        wanted.refuse(word(reason), text(reason));
    } else if let Some(reason) = &link.problem {
        match present {
            // What there is stays as it is until the declarations agree.
            Some(present) => {
                keep_declared(&mut wanted.spec, present);
                wanted.vni = None;
            }
            None => wanted.refuse(Accepted::Conflict, String::new()),
        }
        (wanted.accepted, wanted.message) = (Accepted::Conflict, text(reason));
    } else if let Some(conflict) = &cable.conflict {
        (wanted.accepted, wanted.message) = (Accepted::Conflict, conflict.clone());
    } else if let Some((reason, message)) = undeclarable(config, link.vni) {
        wanted.refuse(reason, message);
    } else if let Some((reason, message)) =
        lacking(cable).or_else(|| no_underlay(snapshot, &wanted.spec))
    {
        (wanted.accepted, wanted.message) = (reason, message);
    }
    wanted
}

/// An end: what is declared of it, and pod, node and VTEP as far as they are known.
fn link_end(
    (snapshot, config): (&Snapshot, &Config),
    link: &resolve::Link,
    end: &CableEnd<'_>,
) -> LinkEnd {
    let which = match (&link.a.pod, &link.a.interface) == (&end.pod, &end.declared.interface) {
        true => End::A,
        false => End::Z,
    };
    let is_open = link.barred.is_none();
    let pod = end.found.pod();
    let name = pod.map(|pod| pod.key.name().to_owned());
    let declared = declared_end(link, which, end);
    let Some(pod) = pod.filter(|pod| is_open && !pod.host_network && pod.node.is_some()) else {
        return LinkEnd {
            pod: name.or_else(|| end.name.clone()),
            ..declared
        };
    };
    let node = pod.node.clone();
    let underlay = node.as_ref().and_then(|node| snapshot.underlays.get(node));
    let underlay = underlay
        .map(|underlay| &underlay.spec)
        .filter(|underlay| config.any_vtep || is_nodes_own(snapshot, pod, underlay));
    LinkEnd {
        pod: name,
        pod_uid: Some(pod.uid.clone()),
        node,
        vtep: underlay.map(|underlay| underlay.vtep.clone()),
        tunnel_mtu: underlay.map(|underlay| underlay.mtu),
        ..declared
    }
}

/// Names an end's slot. One that has no pod keeps the name of its last one: for the node of the
/// other end, that pod is gone and will come back, and the interface there stays.
fn with_name(link_end: LinkEnd, end: &CableEnd<'_>, present: Option<&LinkEnd>) -> LinkEnd {
    let name = Some(end.declared.pod.name());
    let last = present.filter(|present| present.slot.as_deref() == name);
    match last.filter(|_| end.found.pod().is_none()) {
        None => LinkEnd {
            slot: end.slot.clone(),
            ..link_end
        },
        Some(last) => LinkEnd {
            pod: last.pod.clone(),
            slot: last.slot.clone(),
            ..link_end
        },
    }
}

/// Whether a node's tunnels end at an address that its Node object has.
fn is_nodes_own(snapshot: &Snapshot, pod: &Pod, underlay: &NodeUnderlaySpec) -> bool {
    let node = pod.node.as_ref().and_then(|node| snapshot.nodes.get(node));
    let vtep = underlay.vtep.parse();
    node.is_some_and(|addresses| vtep.is_ok_and(|vtep| addresses.contains(&vtep)))
}

fn declared_end(link: &resolve::Link, which: End, end: &CableEnd<'_>) -> LinkEnd {
    let settled: &Endpoint = link.endpoint(which);
    let derived = Mac::derive(link.id, which);
    LinkEnd {
        namespace: end.declared.pod.namespace().to_owned(),
        interface: settled.interface.to_string(),
        addresses: settled.addresses.iter().map(ToString::to_string).collect(),
        mac: Some(settled.mac)
            .filter(|mac| *mac != derived)
            .map(|mac| mac.to_string()),
        routes: settled.routes.iter().map(Route::from).collect(),
        ..LinkEnd::default()
    }
}

fn keep_declared(spec: &mut LinkSpec, present: &LinkSpec) {
    spec.mtu = present.mtu;
    spec.wiring.clone_from(&present.wiring);
    for (end, present) in [(&mut spec.a, &present.a), (&mut spec.b, &present.b)] {
        end.addresses.clone_from(&present.addresses);
        end.mac.clone_from(&present.mac);
        end.routes.clone_from(&present.routes);
    }
}

/// What a Link remembers of pods' declarations.
fn annotations(cable: &Cable<'_>) -> BTreeMap<String, String> {
    if matches!(cable.by, DeclaredBy::Topology | DeclaredBy::Meshnet) {
        return BTreeMap::new();
    }
    let [a, b] = &cable.ends;
    let declares = |end: &CableEnd<'_>| {
        cable.declarations.iter().any(|link| {
            (&link.local.pod, &link.local.interface) == (&end.pod, &end.declared.interface)
        })
    };
    let declarers = [(a, "a"), (b, "b")]
        .into_iter()
        .filter(|(end, _)| declares(end));
    let declarers: Vec<&str> = declarers.map(|(_, name)| name).collect();
    [
        (ENDS.to_owned(), format!("{} {}", a.declared, b.declared)),
        (DECLARED_BY.to_owned(), declarers.join(" ")),
    ]
    .into()
}

/// Kubernetes deletes a Link with its Topology. Pods are no owners: a link outlives their restart.
fn owner(topology: &Topology) -> Option<OwnerReference> {
    topology
        .controller_owner_ref(&())
        .map(|owner| OwnerReference {
            block_owner_deletion: None,
            ..owner
        })
}

fn word(reason: &Reason) -> Accepted {
    match reason {
        Reason::NoConsent { .. }
        | Reason::NamespaceIsolated { .. }
        | Reason::TooManyForeignLinks { .. } => Accepted::NotPermitted,
        _ => Accepted::Conflict,
    }
}

fn text(reason: &Reason) -> String {
    match reason {
        Reason::NoConsent { pod, declarer } => format!(
            "{reason}; or create a LinkGrant in namespace {} for namespace {}",
            pod.namespace(),
            declarer.namespace()
        ),
        _ => reason.to_string(),
    }
}

fn remarks(link: &resolve::Link) -> String {
    let remarks = link.remarks.iter().map(|(_, reason)| reason);
    let all: Vec<String> = link
        .warnings
        .iter()
        .chain(remarks)
        .map(ToString::to_string)
        .collect();
    all.join("; ")
}

fn undeclarable(config: &Config, vni: Option<Vni>) -> Option<(Accepted, String)> {
    let range = config.declarable_vnis;
    let vni = vni.filter(|vni| !range.contains(*vni))?;
    let reason = Reason::VniNotDeclarable { vni, range };
    Some((Accepted::Unsupported, reason.to_string()))
}

/// What is missing of the pods. The worst comes first.
fn lacking(cable: &Cable<'_>) -> Option<(Accepted, String)> {
    let of_ends = cable.ends.iter().filter_map(lacking_at);
    of_ends.min_by_key(|(reason, _)| match reason {
        Accepted::HostNetwork => 0,
        Accepted::Ambiguous => 1,
        Accepted::PodNotFound => 2,
        _ => 3,
    })
}

fn lacking_at(end: &CableEnd<'_>) -> Option<(Accepted, String)> {
    let pod = match &end.found {
        Found::Pod(pod) => pod,
        Found::Missing => {
            let message = match &end.name {
                Some(name) => format!("there is no pod {}/{name}", end.pod.namespace()),
                None => format!("no pod has the labels of {}", end.declared.pod.name()),
            };
            return Some((Accepted::PodNotFound, message));
        }
        Found::Ambiguous { keeps, names } => {
            let count = names.len();
            let names = few(names.iter().map(|name| (*name).to_owned()));
            let kept = keeps.map(|pod| format!("; the link stays with {}", pod.key.name()));
            let message = format!(
                "{count} pods have the labels of {}, expected one: {}{}",
                end.declared.pod.name(),
                names.join(", "),
                kept.unwrap_or_default()
            );
            return Some((Accepted::Ambiguous, message));
        }
    };
    if pod.host_network {
        let message = format!(
            "pod {} has its node's network (hostNetwork), so it can have no link",
            pod.key
        );
        return Some((Accepted::HostNetwork, message));
    }
    let is_scheduled = pod.node.is_some();
    (!is_scheduled).then(|| {
        (
            Accepted::NotScheduled,
            format!("pod {} has no node yet", pod.key),
        )
    })
}

fn no_underlay(snapshot: &Snapshot, spec: &LinkSpec) -> Option<(Accepted, String)> {
    let (a, b) = (&spec.a, &spec.b);
    if a.node == b.node {
        return None;
    }
    let end = [a, b].into_iter().find(|end| end.vtep.is_none())?;
    let node = end.node.as_deref()?;
    let message = match snapshot.underlays.get(node) {
        None => format!(
            "node {node} has no NodeUnderlay yet: its agent says where its tunnels end; does it \
             run?"
        ),
        Some(underlay) => format!(
            "the NodeUnderlay {node} has the address {}, and the Node's status does not: correct \
             parent_address, or start the controller with --any-vtep",
            underlay.spec.vtep
        ),
    };
    Some((Accepted::NoUnderlay, message))
}
