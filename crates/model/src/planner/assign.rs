//! Which of the observed devices are those of which wanted object.
//!
//! An alias says of which end of which link a device is. Of several objects of one link more than
//! one can have devices of the same end, so each device is given to one object only: first where
//! both ends are in place, then where one is, then where both would have to be moved.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashSet},
};

use super::{index::Index, moves, vxlan};
use crate::{
    device::{Kind, Wanted, WantedEnd},
    names::LinkId,
};

/// The devices of an object, by number, in the order of its ends ([`Wanted::ends`]). An object has
/// all of its devices or none; a survivor may be there without another end.
pub(super) type Assigned = [Option<usize>; 2];

/// Devices that can be those of an object.
struct Fit {
    object: usize,
    devices: Assigned,
}

/// Gives devices to the objects whose links are not frozen, one [`Assigned`] each.
pub(super) fn assign(
    index: &Index<'_>,
    wanted: &[Wanted],
    frozen: &BTreeSet<LinkId>,
) -> Vec<Assigned> {
    let mut fits: Vec<Fit> = wanted
        .iter()
        .enumerate()
        .filter(|(_, object)| !frozen.contains(&object.link()))
        .flat_map(|(object, wanted)| {
            let devices = fitting(index, wanted).into_iter();
            devices.map(move |devices| Fit { object, devices })
        })
        .collect();
    fits.sort_by_key(|fit| Reverse(in_place(index, &wanted[fit.object], &fit.devices)));
    let mut assigned = vec![Assigned::default(); wanted.len()];
    let mut taken = HashSet::new();
    for Fit { object, devices } in fits {
        let mut numbers = devices.iter().flatten();
        if assigned[object] == Assigned::default() && numbers.all(|number| !taken.contains(number))
        {
            taken.extend(devices.into_iter().flatten());
            assigned[object] = devices;
        }
    }
    moves::limit(index, wanted, &mut assigned);
    moves::unblock(index, wanted, &mut assigned);
    assigned
}

fn in_place(index: &Index<'_>, wanted: &Wanted, devices: &Assigned) -> usize {
    let there = wanted.ends().zip(devices);
    there
        .filter(|(end, device)| device.is_some_and(|number| !index.must_move(number, end)))
        .count()
}

/// All devices that can be those of an object.
fn fitting(index: &Index<'_>, wanted: &Wanted) -> Vec<Assigned> {
    match wanted {
        Wanted::Veth { a, z }
        | Wanted::Stub {
            pod: a, node: z, ..
        } => index
            .pairs(a, z)
            .map(|[one, other]| [Some(one), Some(other)])
            .collect(),
        // A tunnel that is exactly as wired, where it is wanted, is the link's, marked or not: its
        // socket is on the node, which has one for a VNI.
        Wanted::Vxlan { end, tunnel, .. } => index
            .number_at(end)
            .into_iter()
            .filter(|number| vxlan::fits(&index.observed[*number], end, tunnel))
            .filter(|number| {
                let alias = index.observed[*number].alias.as_ref();
                alias.is_none_or(|alias| alias.end_id() == end.alias.end_id())
            })
            .map(|number| [Some(number), None])
            .collect(),
        Wanted::Hold { survivor, parked } => index
            .candidates(survivor)
            .filter(|number| index.observed[*number].is_at(&survivor.netns, &survivor.name))
            .filter_map(|number| held(index, number, parked))
            .collect(),
        Wanted::Frozen(_) => Vec::new(),
    }
}

/// A survivor with its other end; none if that cannot be parked.
fn held(index: &Index<'_>, survivor: usize, parked: &WantedEnd) -> Option<Assigned> {
    let device = &index.observed[survivor];
    let mut others = index.candidates(parked);
    // Only a veth has another end. If that was not observed, it is in a namespace that this plan is
    // not about.
    let Some(other) = others.find(|other| index.are_peers(survivor, *other)) else {
        let is_proven = device.alias.is_some() || matches!(device.kind, Kind::Vxlan { .. });
        return is_proven.then_some([Some(survivor), None]);
    };
    let is_blocked = index.must_move(other, parked) && index.at(parked).is_some();
    (!is_blocked).then_some([Some(survivor), Some(other)])
}
