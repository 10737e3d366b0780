//! The links that need no plan.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    device::{Kind, Netns, Observed, Wanted, WantedEnd},
    names::LinkId,
};

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
    kind_fits && device.is_at(&end.netns, &end.name) && device.alias.as_ref() == Some(&end.alias)
}
