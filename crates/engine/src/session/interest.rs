//! What the store's watch is to listen for: this node's own pods, and the pods at the other ends
//! of their links.

use std::collections::BTreeSet;

use ratchet_model::PodKey;
use ratchet_store::Interest;

use super::known::Known;
use crate::sandboxes::Sandboxes;

/// All that is of interest.
pub(super) fn whole(known: &Known, sandboxes: &Sandboxes) -> Interest {
    let own = sandboxes.pods();
    let peers = own
        .iter()
        .flat_map(|pod| known.neighbours(pod))
        .filter(|pod| !own.contains(pod))
        .collect();
    let awaited = known.vnis().awaited();
    Interest {
        own,
        peers,
        awaited,
    }
}

/// Corrects an interest as far as these pods go. Returns whether that changed it.
///
/// Only they can have come to be of interest, or have ceased to be, when they are all whose
/// records or sandboxes have changed, with their neighbours before and after: what it costs does
/// not grow with the pods of the node.
pub(super) fn correct(
    interest: &mut Interest,
    pods: &BTreeSet<PodKey>,
    known: &Known,
    sandboxes: &Sandboxes,
) -> bool {
    let mut changed = false;
    for pod in pods {
        let is_own = sandboxes.has(pod);
        let is_peer = !is_own && is_peer(pod, known, sandboxes);
        changed |= put(&mut interest.own, pod, is_own);
        changed |= put(&mut interest.peers, pod, is_peer);
    }
    changed | await_vnis(interest, known)
}

/// Corrects which VNIs are waited for. Returns whether that changed it.
pub(super) fn await_vnis(interest: &mut Interest, known: &Known) -> bool {
    let awaited = known.vnis().awaited();
    let changed = interest.awaited != awaited;
    interest.awaited = awaited;
    changed
}

/// Whether a pod is a neighbour of one of this node's.
pub(super) fn is_peer(pod: &PodKey, known: &Known, sandboxes: &Sandboxes) -> bool {
    known
        .neighbours(pod)
        .iter()
        .any(|neighbour| sandboxes.has(neighbour))
}

/// Puts a pod into a set, or takes it out. Returns whether that changed it.
fn put(set: &mut BTreeSet<PodKey>, pod: &PodKey, is_in: bool) -> bool {
    match (is_in, set.contains(pod)) {
        (true, false) => set.insert(pod.clone()),
        (false, true) => set.remove(pod),
        _ => false,
    }
}
