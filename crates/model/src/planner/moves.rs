//! How many devices a plan moves.

use std::collections::{BTreeMap, BTreeSet};

use super::{assign::Assigned, index::Index};
use crate::device::{Netns, Wanted};

/// If more of one sandbox's devices than this would have to be moved, they are deleted and created
/// again instead: a move costs an RCU grace period (about 16 ms).
pub const MOVE_LIMIT: usize = 64;

/// Takes the devices of the sandboxes of which more would have to be moved than [`MOVE_LIMIT`] from
/// their objects.
pub(super) fn limit<'a>(index: &Index<'a>, wanted: &'a [Wanted], assigned: &mut [Assigned]) {
    let mut moves: BTreeMap<&Netns, usize> = BTreeMap::new();
    for (object, devices) in wanted.iter().zip(&*assigned) {
        for netns in moved_sides(index, object, *devices) {
            *moves.entry(netns).or_default() += 1;
        }
    }
    moves.retain(|_, count| *count > MOVE_LIMIT);
    if moves.is_empty() {
        return;
    }
    for (object, devices) in wanted.iter().zip(assigned) {
        if moved_sides(index, object, *devices).any(|netns| moves.contains_key(netns)) {
            *devices = Assigned::default();
        }
    }
}

/// Takes the devices from objects of which one would have to be moved to where a device of another
/// object is, as when a pod's root has swapped two names: each would wait for the other.
pub(super) fn unblock(index: &Index<'_>, wanted: &[Wanted], assigned: &mut [Assigned]) {
    let mut kept: BTreeSet<usize> = assigned.iter().flatten().flatten().copied().collect();
    for (object, devices) in wanted.iter().zip(assigned) {
        let mut there = object.ends().zip(*devices);
        let is_blocked = there.any(|(end, device)| {
            device.is_some_and(|number| index.must_move(number, end))
                && index.number_at(end).is_some_and(|at| kept.contains(&at))
        });
        if is_blocked {
            devices.iter().flatten().for_each(|number| {
                kept.remove(number);
            });
            *devices = Assigned::default();
        }
    }
}

/// The namespaces for which the moves of an object's devices count.
fn moved_sides<'i, 'a>(
    index: &'i Index<'a>,
    object: &'a Wanted,
    devices: Assigned,
) -> impl Iterator<Item = &'a Netns> + use<'i, 'a> {
    let there = object.ends().zip(devices);
    there.filter_map(|(end, device)| {
        let number = device.filter(|number| index.must_move(*number, end))?;
        Some(counted_side(&index.observed[number].netns, &end.netns))
    })
}

/// Of a move's two namespaces the one whose moves are counted: that of the pod that comes or goes.
fn counted_side<'n>(from: &'n Netns, to: &'n Netns) -> &'n Netns {
    if *from == Netns::Node { to } else { from }
}
