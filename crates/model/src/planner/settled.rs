//! The devices and links that need no plan.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    device::{Kind, Netns, Observed, Wanted, WantedEnd},
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
        ends.sort_unstable_by_key(|end| (end.alias.link, end.alias.end));
        Self { ends }
    }

    /// Whether a device is one of the ends and complete: its addresses and routes do not matter.
    pub fn has_complete(&self, device: &Observed) -> bool {
        let Some(alias) = &device.alias else {
            return false;
        };
        let key = (alias.link, alias.end);
        let first = self
            .ends
            .partition_point(|end| (end.alias.link, end.alias.end) < key);
        self.ends[first..]
            .iter()
            .take_while(|end| (end.alias.link, end.alias.end) == key)
            .any(|end| end.is_complete(device))
    }
}

/// The links that need nothing in some namespaces of which `observed` is everything: every end that
/// is wanted there is complete, nothing was left to any end, and there is no other device of the
/// link. For a plan about these namespaces they may be [`Wanted::Frozen`].
pub fn settled(
    wanted: &[Wanted],
    observed: &[Observed],
    namespaces: &BTreeSet<Netns>,
) -> BTreeSet<LinkId> {
    let mut by_link: BTreeMap<LinkId, Vec<&Observed>> = BTreeMap::new();
    for device in observed {
        if let Some(alias) = &device.alias {
            by_link.entry(alias.link).or_default().push(device);
        }
    }
    let is_settled = |wanted: &&Wanted| {
        let devices = by_link
            .get(&wanted.link())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let ends: Vec<&WantedEnd> = wanted
            .ends()
            .filter(|end| namespaces.contains(&end.netns))
            .collect();
        let is_there = |end: &&WantedEnd| {
            devices
                .iter()
                .any(|device| is_as_wanted(device, end, wanted))
        };
        let inherits = wanted.ends().any(|end| end.leftover.is_some());
        !inherits && devices.len() == ends.len() && ends.iter().all(is_there)
    };
    wanted.iter().filter(is_settled).map(Wanted::link).collect()
}

fn is_as_wanted(device: &Observed, end: &WantedEnd, wanted: &Wanted) -> bool {
    let kind_fits = match (wanted, &device.kind) {
        (Wanted::Veth { .. }, Kind::Veth { .. }) | (Wanted::Hold { .. }, _) => true,
        (Wanted::Vxlan { tunnel, .. }, kind) => *kind == Kind::from(tunnel),
        _ => false,
    };
    kind_fits && device.is_at(&end.netns, &end.name) && end.is_complete(device)
}
