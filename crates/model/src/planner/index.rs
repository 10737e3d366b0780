//! The observed devices, found by what they are and by where they are.

use std::collections::BTreeMap;

use crate::{
    device::{Alias, Netns, Observed, Part, WantedEnd},
    link::End,
    names::LinkId,
};

/// The observed devices. They are referred to by their number in the slice.
pub(super) struct Index<'a> {
    pub observed: &'a [Observed],
    by_end: BTreeMap<(LinkId, End, Part), Vec<usize>>,
    by_location: BTreeMap<(&'a Netns, &'a str), usize>,
}

impl<'a> Index<'a> {
    pub fn new(observed: &'a [Observed]) -> Self {
        let mut by_end: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (number, device) in observed.iter().enumerate() {
            if let Some(alias) = &device.alias {
                by_end.entry(alias.end_id()).or_default().push(number);
            }
        }
        let by_location = observed
            .iter()
            .enumerate()
            .map(|(number, device)| ((&device.netns, device.name.as_str()), number))
            .collect();
        Self {
            observed,
            by_end,
            by_location,
        }
    }

    /// The devices whose alias names this part of an end, in all sandboxes and parked.
    fn of_end(&self, id: (LinkId, End, Part)) -> &[usize] {
        self.by_end.get(&id).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the veth is there that a tunnel is joined to, by the tunnel's alias.
    pub fn has_node_end_of(&self, tunnel: &Alias) -> bool {
        let ends = self.of_end((tunnel.link, tunnel.end, Part::Node));
        ends.iter().any(|number| {
            let alias = self.observed[*number].alias.as_ref();
            alias.is_some_and(|alias| alias.sandbox == tunnel.sandbox)
        })
    }

    /// The device that is where an end is wanted, ours or not.
    pub fn at(&self, end: &WantedEnd) -> Option<&'a Observed> {
        Some(&self.observed[self.number_at(end)?])
    }

    /// The number of that device.
    pub fn number_at(&self, end: &WantedEnd) -> Option<usize> {
        self.number_of(&end.netns, &end.name)
    }

    /// The number of the device of this name in a namespace.
    pub fn number_of(&self, netns: &Netns, name: &str) -> Option<usize> {
        self.by_location.get(&(netns, name)).copied()
    }

    /// A device that is not ours where an end is wanted.
    pub fn foreign_at(&self, end: &WantedEnd) -> Option<&'a Observed> {
        let device = self.at(end)?;
        (!device.is_ours() && !self.is_other_end(device, end)).then_some(device)
    }

    /// Whether the kernel says that a device is the peer of what is at the other end of this veth,
    /// which is proven: then it is this end, even if its pod's root has changed its alias and
    /// group.
    fn is_other_end(&self, device: &Observed, end: &WantedEnd) -> bool {
        let (link, end, part) = end.alias.end_id();
        let others: &[_] = match part {
            Part::Pod => &[(link, end.other(), Part::Pod), (link, end, Part::Node)],
            Part::Node => &[(link, end, Part::Pod)],
            Part::Tunnel => &[],
        };
        let mut others = others.iter().flat_map(|id| self.of_end(*id));
        others.any(|other| self.observed[*other].is_peer_of(device))
    }

    /// The devices that may be this end: those with its alias, and an unfinished one where it is
    /// wanted.
    pub fn candidates(&self, end: &WantedEnd) -> impl Iterator<Item = usize> + Clone {
        let unfinished = self.number_at(end).filter(|number| {
            let device = &self.observed[*number];
            let is_other_end = || device.alias.is_none() && self.is_other_end(device, end);
            device.is_unfinished() || is_other_end()
        });
        self.of_end(end.alias.end_id())
            .iter()
            .copied()
            .chain(unfinished)
    }

    /// The existing veth pairs that can be that of two ends.
    pub fn pairs(&self, a: &WantedEnd, z: &WantedEnd) -> impl Iterator<Item = [usize; 2]> {
        let of_z = self.candidates(z);
        self.candidates(a).flat_map(move |number| {
            let others = of_z.clone();
            others
                .filter(move |other| *other != number && self.are_peers(number, *other))
                .map(move |other| [number, other])
        })
    }

    /// Whether two devices are the ends of one veth pair.
    pub fn are_peers(&self, one: usize, other: usize) -> bool {
        self.observed[one].is_peer_of(&self.observed[other])
    }

    /// Whether a device has to be moved to be where an end is wanted.
    pub fn must_move(&self, number: usize, end: &WantedEnd) -> bool {
        !self.observed[number].is_at(&end.netns, &end.name)
    }
}
