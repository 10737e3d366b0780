//! The statuses of meshnet's Topologies, as KNE's tools read them: a pod with `src_ip` and `net_ns`
//! is alive, and `plumbing_error` says what keeps its links from being made.
//!
//! No agent says the path of a pod's network namespace, which is nobody's business outside of its
//! node. `net_ns` has a text in its place that is no path.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use ratchet_api::{
    EndState, Link, LinkEnd, LinkEndStatus,
    meshnet::{Status, Topology},
};
use ratchet_model::text::{bounded, few};

use crate::{
    cables::{Refused, described},
    conditions::Judgement,
    derived::Derived,
    memory::{Memory, Told},
    plan::Plan,
    snapshot::{Key, Snapshot},
};

/// The longest `plumbing_error`, in bytes.
const MESSAGE: usize = 4096;

/// The status of a Topology is written at most so often.
const BETWEEN_STATUSES: SignedDuration = SignedDuration::from_secs(1);

/// What the API server has left out is not written again for this time.
const BETWEEN_TRIES: SignedDuration = SignedDuration::from_secs(60);

/// Adds the statuses that must be written.
pub(crate) fn statuses(
    (snapshot, derived): (&Snapshot, &Derived),
    judgements: &BTreeMap<Key, Judgement>,
    memory: &mut Memory,
    now: Timestamp,
    plan: &mut Plan,
) {
    memory
        .meshnet
        .retain(|key, _| snapshot.meshnet.contains_key(key));
    if derived.of_meshnet.is_empty() {
        return;
    }
    let sandboxes = Sandboxes::of(snapshot);
    for (key, links) in &derived.of_meshnet {
        let Some(topology) = snapshot.meshnet.get(key) else {
            continue;
        };
        let errors = errors(snapshot, (key, topology), links, judgements);
        let status = Status {
            plumbing_error: bounded(few(errors.into_iter()).join("; "), MESSAGE),
            ..sandboxes.status(snapshot, key)
        };
        if topology.status == status {
            continue;
        }
        if let Some(wait) = wait(memory.meshnet.get(key), topology, &status, now) {
            plan.again_in(wait);
            continue;
        }
        let told = Told {
            status: status.clone(),
            version: topology.metadata.resource_version.clone(),
            at: now,
        };
        memory.meshnet.insert(key.clone(), told);
        plan.meshnet.push((key.clone(), status));
    }
}

/// How long a status must wait.
fn wait(
    told: Option<&Told>,
    topology: &Topology,
    status: &Status,
    now: Timestamp,
) -> Option<SignedDuration> {
    let told = told?;
    // meshnet's definition of 2023 has no such field. The server leaves it out.
    let is_left_out = told.status == *status
        && told.version == topology.metadata.resource_version
        && topology.status
            == Status {
                plumbing_error: String::new(),
                ..status.clone()
            };
    let rest = match is_left_out {
        true => BETWEEN_TRIES,
        false => BETWEEN_STATUSES,
    };
    let left = rest - now.duration_since(told.at);
    left.is_positive().then_some(left)
}

/// The ends of a Link, with what is said of them. What is said of another pod is left out.
fn ends(link: &Link) -> impl Iterator<Item = (&LinkEnd, &LinkEndStatus)> {
    let status = link.status.as_ref();
    let ends = [
        (&link.spec.a, status.and_then(|status| status.a.as_ref())),
        (&link.spec.b, status.and_then(|status| status.b.as_ref())),
    ];
    ends.into_iter().filter_map(|(end, said)| {
        let said = said.filter(|said| end.pod_uid.as_ref() == Some(&said.pod_uid))?;
        Some((end, said))
    })
}

/// The sandboxes of pods, by the pods' uids, as agents have said them.
struct Sandboxes<'s>(HashMap<&'s str, (&'s LinkEnd, &'s str)>);

impl<'s> Sandboxes<'s> {
    fn of(snapshot: &'s Snapshot) -> Self {
        let said = snapshot.links.values().flat_map(|link| ends(link));
        let said = said.filter_map(|(end, said)| {
            let sandbox = said.sandbox.as_deref()?;
            let is_there = said.state != EndState::Removed && !sandbox.is_empty();
            is_there.then_some((&*said.pod_uid, (end, sandbox)))
        });
        Self(said.collect())
    }

    /// The status of a Topology, of which its pod is alive or not.
    fn status(&self, snapshot: &Snapshot, key: &Key) -> Status {
        let pod = ratchet_model::PodKey::new(&key.namespace, &key.name).ok();
        let pod = pod.and_then(|pod| snapshot.pods.get(&pod));
        let said = pod.and_then(|pod| self.0.get(&*pod.uid));
        let Some((end, sandbox)) = said else {
            return Status::default();
        };
        let addresses = end.node.as_ref().and_then(|node| snapshot.nodes.get(node));
        let address = addresses.and_then(|addresses| addresses.first());
        let address = || address.map(ToString::to_string).unwrap_or_default();
        Status {
            src_ip: end.vtep.clone().unwrap_or_else(address),
            net_ns: format!("ratchet:{sandbox}"),
            container_id: (*sandbox).to_owned(),
            ..Status::default()
        }
    }
}

/// What keeps links of a Topology from being made, without what passes by itself.
fn errors(
    snapshot: &Snapshot,
    (key, topology): (&Key, &Topology),
    links: &[Result<Key, Refused>],
    judgements: &BTreeMap<Key, Judgement>,
) -> Vec<String> {
    let of_link = |(number, link): (usize, &Result<Key, Refused>)| {
        let why = match link {
            Err(Refused { reason, message }) => format!("{reason}: {message}"),
            Ok(link) => match judgements.get(link).and_then(Judgement::trouble) {
                Some((reason, message)) => format!("{reason}: {message}"),
                None => failure(snapshot.links.get(link)?, key)?,
            },
        };
        Some(format!("{}: {why}", described(topology, number)))
    };
    links.iter().enumerate().filter_map(of_link).collect()
}

/// Why the pod's end of a Link could not be made.
fn failure(link: &Link, key: &Key) -> Option<String> {
    let mut failed = ends(link).filter(|(end, said)| {
        end.pod.as_ref() == Some(&key.name) && said.state == EndState::Failed
    });
    let (_, said) = failed.next()?;
    let words = [said.reason.as_deref(), said.message.as_deref()];
    Some(words.into_iter().flatten().collect::<Vec<_>>().join(": "))
}
