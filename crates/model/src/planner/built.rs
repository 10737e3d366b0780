//! How the links are wired that exist.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    WiringKind,
    device::{Kind, Netns, Observed, Part, Wanted, WantedEnd},
    names::LinkId,
    wiring::name_on_node,
};

/// How links are wired of which every interface that is wanted in a pod is there. A link that lacks
/// one can be wired in any way: a pod of it starts.
///
/// `observed` must hold all devices of these links.
pub fn built(wanted: &[Wanted], observed: &[Observed]) -> BTreeMap<LinkId, WiringKind> {
    let by_place: BTreeMap<(&Netns, &str), &Observed> = observed
        .iter()
        .map(|device| ((&device.netns, device.name.as_str()), device))
        .collect();
    let on_node = observed.iter().filter(|device| device.netns == Netns::Node);
    let names: BTreeMap<u32, &str> = on_node
        .map(|device| (device.index, device.name.as_str()))
        .collect();
    let mut built: BTreeMap<LinkId, BTreeSet<Option<WiringKind>>> = BTreeMap::new();
    for end in wanted.iter().flat_map(Wanted::ends) {
        if end.alias.part == Part::Pod && end.netns != Netns::Node {
            let device = by_place.get(&(&end.netns, end.name.as_str()));
            let found = device.and_then(|device| strategy(device, end, &names));
            built.entry(end.alias.link).or_default().insert(found);
        }
    }
    let agreed = |(link, mut found): (LinkId, BTreeSet<Option<WiringKind>>)| {
        let first = found.pop_first().flatten()?;
        found.is_empty().then_some((link, first))
    };
    built.into_iter().filter_map(agreed).collect()
}

/// How an interface in a pod is wired; none if it is not that of the end.
fn strategy(
    device: &Observed,
    end: &WantedEnd,
    on_node: &BTreeMap<u32, &str>,
) -> Option<WiringKind> {
    let alias = device.alias.as_ref()?;
    if (alias.end_id(), &alias.sandbox) != (end.alias.end_id(), &end.alias.sandbox) {
        return None;
    }
    let (link, of, _) = alias.end_id();
    let node_end = name_on_node(link, of, Part::Node);
    Some(match &device.kind {
        Kind::Veth { peer: Some(peer) } if peer.netns == Netns::Node => {
            let is_stub = on_node.get(&peer.index) == Some(&node_end.as_str());
            if is_stub {
                WiringKind::Stitched
            } else {
                WiringKind::Direct
            }
        }
        _ => WiringKind::Direct,
    })
}
