//! The devices and links that need no plan.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    device::{Kind, Netns, Observed, Wanted, WantedEnd},
    leftover::Leftovers,
    names::LinkId,
};

/// The ends that are wanted, to find the devices that are complete.
pub struct WantedEnds<'a> {
    /// Sorted by link and end.
    ends: Vec<&'a WantedEnd>,
}

impl<'a> WantedEnds<'a> {
    /// The ends of these objects.
    pub fn of(wanted: &'a [Wanted]) -> Self {
        let mut ends: Vec<&WantedEnd> = wanted.iter().flat_map(Wanted::ends).collect();
        ends.sort_unstable_by_key(|end| end.alias.end_id());
        Self { ends }
    }

    /// Whether a device is one of the ends and complete: its addresses and routes do not matter.
    pub fn has_complete(&self, device: &Observed) -> bool {
        let Some(alias) = &device.alias else {
            return false;
        };
        let key = alias.end_id();
        let first = self.ends.partition_point(|end| end.alias.end_id() < key);
        self.ends[first..]
            .iter()
            .take_while(|end| end.alias.end_id() == key)
            .any(|end| end.is_complete(device))
    }
}

/// The links that need nothing in some namespaces of which `observed` is everything: every end that
/// is wanted there is complete, nothing was left to any end, and there is no other device of the
/// link. For a plan about these namespaces they may be [`Wanted::Frozen`].
pub fn settled(
    wanted: &[Wanted],
    observed: &[Observed],
    kept: &Leftovers,
    namespaces: &BTreeSet<Netns>,
) -> BTreeSet<LinkId> {
    let mut devices: BTreeMap<LinkId, Vec<&Observed>> = BTreeMap::new();
    for device in observed {
        if let Some(alias) = device.says() {
            devices.entry(alias.link).or_default().push(device);
        }
    }
    let mut objects: Vec<&Wanted> = wanted.iter().collect();
    objects.sort_by_key(|object| object.link());
    let is_settled = |(link, objects): &(LinkId, &[&Wanted])| {
        let devices = devices.get(link).map(Vec::as_slice).unwrap_or_default();
        let is_left = |object: &&Wanted| object.ends().any(|end| kept.of(end).is_some());
        // What a stitched link is joined to is in the node's namespace.
        let is_stitched = objects.iter().any(|object| object.is_stitched());
        !is_stitched && !objects.iter().any(is_left) && is_all_there(objects, devices, namespaces)
    };
    objects
        .chunk_by(|one, other| one.link() == other.link())
        .map(|objects| (objects[0].link(), objects))
        .filter(is_settled)
        .map(|(link, _)| link)
        .collect()
}

/// Whether these devices of a link are the ends of its objects in some namespaces, and no others.
fn is_all_there(objects: &[&Wanted], devices: &[&Observed], namespaces: &BTreeSet<Netns>) -> bool {
    let mut count = 0;
    let all_there = objects.iter().all(|object| {
        let mut ends = object.ends().filter(|end| namespaces.contains(&end.netns));
        ends.all(|end| {
            count += 1;
            let mut devices = devices.iter();
            devices.any(|device| is_as_wanted(device, end, object))
        })
    });
    all_there && count == devices.len()
}

fn is_as_wanted(device: &Observed, end: &WantedEnd, wanted: &Wanted) -> bool {
    let kind_fits = match (wanted, &device.kind) {
        // A peer on the node is that of a stitched link.
        (Wanted::Veth { a, z }, Kind::Veth { peer }) => peer
            .as_ref()
            .is_none_or(|peer| peer.netns == a.netns || peer.netns == z.netns),
        (Wanted::Hold { .. }, _) => true,
        (Wanted::Vxlan { tunnel, .. }, kind) => *kind == Kind::from(tunnel),
        _ => false,
    };
    kind_fits && device.is_at(&end.netns, &end.name) && end.is_complete(device)
}
