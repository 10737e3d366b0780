//! When a Link that is being deleted may go, and its VNI be freed: when no node can still have a
//! device with it, as far as the Link tells.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use ratchet_api::{EndState, Link, LinkEnd, LinkEndStatus};

use crate::{memory::Memory, snapshot::Snapshot};

/// A node whose Node object is gone for so long has no devices any more.
const NODE_GONE: SignedDuration = SignedDuration::from_mins(10);

/// After so long, a VNI is freed in any case.
const AT_LAST: SignedDuration = SignedDuration::from_hours(1);

/// The nodes of a Link that is being deleted which may still have a device of it. After an hour,
/// none does, in any case.
pub(crate) fn unclean_nodes<'l>(
    link: &'l Link,
    snapshot: &Snapshot,
    memory: &Memory,
    now: Timestamp,
) -> Vec<&'l str> {
    if deleted_for(link, now).is_none_or(|time| time >= AT_LAST) {
        return Vec::new();
    }
    let is_gone = |node: &str| {
        memory
            .gone_for(node, now)
            .is_some_and(|gone| gone >= NODE_GONE)
    };
    let unclean = ends(link).into_iter().filter_map(|(end, said)| {
        let node = end.node.as_deref()?;
        let is_removed = said.is_some_and(|said| is_removed(link, end, said, snapshot));
        (!is_removed && !is_gone(node)).then_some(node)
    });
    unclean.collect()
}

/// For how long a Link has been being deleted.
pub(crate) fn deleted_for(link: &Link, now: Timestamp) -> Option<SignedDuration> {
    let deleted = link.metadata.deletion_timestamp.as_ref();
    deleted.map(|deleted| now.duration_since(deleted.0))
}

/// The ends, each with what its agent says.
fn ends(link: &Link) -> [(&LinkEnd, Option<&LinkEndStatus>); 2] {
    let status = link.status.as_ref();
    [
        (&link.spec.a, status.and_then(|status| status.a.as_ref())),
        (&link.spec.b, status.and_then(|status| status.b.as_ref())),
    ]
}

/// Whether an end's agent says that nothing is left of it, and will not make it again: it has seen
/// that the Link is being deleted, or the pod is gone.
fn is_removed(link: &Link, end: &LinkEnd, said: &LinkEndStatus, snapshot: &Snapshot) -> bool {
    let has_seen = link
        .metadata
        .generation
        .is_none_or(|now| said.observed_generation >= now);
    says_removed(end, said) && (has_seen || !pod_is_there(end, snapshot))
}

/// Whether an end's agent says that nothing is left of it.
pub(crate) fn says_removed(end: &LinkEnd, said: &LinkEndStatus) -> bool {
    said.state == EndState::Removed
        && end.pod_uid.as_ref() == Some(&said.pod_uid)
        && end.node.as_ref() == Some(&said.node)
}

fn pod_is_there(end: &LinkEnd, snapshot: &Snapshot) -> bool {
    let key = end.pod_key().ok().flatten();
    let pod = key.and_then(|key| snapshot.pods.get(&key));
    pod.is_some_and(|pod| end.pod_uid.as_ref() == Some(&pod.uid))
}

/// The nodes that a Link's ends leave where a device may be left, when its ends are to be these.
pub(crate) fn left_nodes<'l>(link: &'l Link, wanted: [&LinkEnd; 2]) -> Vec<&'l str> {
    let left = ends(link)
        .into_iter()
        .zip(wanted)
        .filter_map(|((end, said), wanted)| {
            let node = end.node.as_deref()?;
            let stays = wanted.node.as_deref() == Some(node);
            let is_clean = said.is_some_and(|said| says_removed(end, said));
            (!stays && !is_clean).then_some(node)
        });
    left.collect()
}
