//! From cables to the model's records, and the model's word on them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::jiff::Timestamp;
use ratchet_model::{
    Location, Mtu, PodKey, PodRecord,
    declaration::{Accept, CrossNamespace},
    resolve::{self, Link},
};

use crate::{
    cables::{Cables, EndKey},
    snapshot::{Key, Pod, Snapshot},
};

/// What the model says of each cable, by the key of its Link. A cable that is not here is none.
pub(crate) fn resolve(
    snapshot: &Snapshot,
    cables: &Cables<'_>,
    cross_namespace: CrossNamespace,
    now: Timestamp,
) -> HashMap<Key, Link> {
    let mut records: BTreeMap<PodKey, PodRecord> = BTreeMap::new();
    let mut foreign: BTreeMap<PodKey, BTreeSet<String>> = BTreeMap::new();
    for (key, cable) in &cables.all {
        for end in &cable.ends {
            let new = || record(end.pod.clone(), end.found.pod(), cross_namespace);
            records.entry(end.pod.clone()).or_insert_with(new);
        }
        let since = since(snapshot, key, now);
        for link in &cable.declarations {
            let (declarer, other) = (&link.local.pod, &link.remote.pod);
            if declarer.namespace() != other.namespace() {
                let from = foreign.entry(other.clone()).or_default();
                from.insert(declarer.namespace().to_owned());
            }
            if let Some(record) = records.get_mut(declarer) {
                let mut link = link.clone();
                link.since = since;
                record.links.push(link);
            }
        }
    }
    for (pod, from) in &foreign {
        if let Some(record) = records.get_mut(pod) {
            grant(snapshot, record, from);
        }
    }
    let links = resolve::resolve(&records).into_iter();
    links
        .filter_map(|link| {
            let ends = link
                .endpoints()
                .map(|end| -> EndKey { (end.pod.clone(), end.interface.clone()) });
            Some((cables.between(&ends)?.clone(), link))
        })
        .collect()
}

/// Since when a link is declared, in nanoseconds since 1970. Of several that claim an interface,
/// the first has it.
fn since(snapshot: &Snapshot, key: &Key, now: Timestamp) -> u64 {
    let link = snapshot.links.get(key);
    let created = link.and_then(|link| link.metadata.creation_timestamp.as_ref());
    let since = created.map_or(now, |time| time.0);
    u64::try_from(since.as_nanosecond()).unwrap_or(0)
}

fn record(key: PodKey, pod: Option<&Pod>, cross_namespace: CrossNamespace) -> PodRecord {
    let declaration = pod.and_then(|pod| pod.declaration.as_ref());
    let accept = declaration.and_then(|declaration| declaration.accept.as_ref());
    PodRecord {
        accept: Accept::effective(accept, cross_namespace),
        ..PodRecord::new(key, pod.and_then(there), 0, Vec::new())
    }
}

/// Resolving asks only whether a pod lives, and whether it is being deleted makes no difference.
fn there(_: &Pod) -> Option<Location> {
    Some(Location {
        node: "any".parse().ok()?,
        vtep: [0, 0, 0, 0].into(),
        sandbox: "any".parse().ok()?,
        mtu: Mtu::try_from(Mtu::MAX).ok()?,
        leaving: false,
    })
}

/// Adds to what a pod accepts what LinkGrants of its namespace allow.
fn grant(snapshot: &Snapshot, record: &mut PodRecord, from: &BTreeSet<String>) {
    let namespace = record.pod.namespace().to_owned();
    let pod = snapshot.pods.get(&record.pod);
    let grants: Vec<_> = snapshot
        .grants
        .values()
        .filter(|grant| grant.metadata.namespace.as_deref() == Some(&namespace))
        .collect();
    let label = |key: &str| pod.and_then(|pod| pod.labels.get(key).map(String::as_str));
    let allowed = from.iter().filter(|namespace| {
        grants
            .iter()
            .any(|grant| grant.spec.allows(namespace, label))
    });
    let accept = record.accept.clone();
    if let Ok(accept) = accept.and_namespaces(allowed.map(String::as_str)) {
        record.accept = accept;
    }
}
