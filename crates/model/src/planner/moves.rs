//! How many devices a plan moves.

use std::collections::{BTreeMap, BTreeSet};

use super::index::Index;
use crate::device::{Netns, Wanted};

/// If more of one sandbox's devices than this would have to be moved, they are deleted and created
/// again instead: a move costs an RCU grace period (about 16 ms).
pub const MOVE_LIMIT: usize = 64;

/// The sandboxes of which more devices would have to be moved than [`MOVE_LIMIT`].
pub(super) fn sandboxes_over_limit<'a>(
    index: &Index<'a>,
    wanted: &'a [Wanted],
) -> BTreeSet<&'a Netns> {
    let mut moves: BTreeMap<&Netns, usize> = BTreeMap::new();
    for object in wanted {
        let ends = match object {
            Wanted::Veth { a, z } => [Some(a), Some(z)],
            Wanted::Hold { parked, .. } => [Some(parked), None],
            Wanted::Vxlan { .. } | Wanted::Frozen(_) => continue,
        };
        for end in ends.into_iter().flatten() {
            let moved = index
                .candidates(end)
                .find(|number| index.must_move(*number, end));
            if let Some(number) = moved {
                let netns = counted_side(&index.observed[number].netns, &end.netns);
                *moves.entry(netns).or_default() += 1;
            }
        }
    }
    moves
        .into_iter()
        .filter(|(_, count)| *count > MOVE_LIMIT)
        .map(|(netns, _)| netns)
        .collect()
}

/// Of a move's two namespaces the one whose moves are counted: that of the pod that comes or goes.
pub(super) fn counted_side<'n>(from: &'n Netns, to: &'n Netns) -> &'n Netns {
    if *from == Netns::Node { to } else { from }
}
