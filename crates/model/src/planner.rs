//! The planner: from what is wanted and what was observed to the steps that lead from one to the
//! other.
//!
//! A pure function, and ignorant of wirings: it compares devices. What it relies on:
//! * A device's alias is written last. A device whose alias equals the wanted one needs nothing
//!   more, and what its pod did to it since (addresses, MTU, down) is the pod's own affair.
//! * A device of ours without alias, or with another one, is unfinished and is finished.
//! * A device that is not ours is never touched, even when it stands where one of ours is wanted.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    device::{
        Alias, At, Birth, GROUP_OURS, Kind, Netns, Observed, Operation, Step, Tunnel, Wanted,
        WantedEnd,
    },
    leftover::Leftover,
    link::End,
    names::LinkId,
};

/// More moves than this of one sandbox's devices are not done: a move costs an RCU grace period
/// (about 16 ms), so that beyond it the devices are sooner made anew than moved.
pub const MOVE_LIMIT: usize = 64;

/// The digest ([`Alias::config`]) of a device that is not what it should be yet.
const UNFINISHED: u32 = 0;

/// What a plan is about: whatever is ours within it and not wanted is removed. What it finds
/// outside of it, it leaves alone.
#[derive(Debug, Clone, Copy)]
pub struct PlanScope<'a> {
    /// The devices of these links, wherever they are.
    pub links: &'a BTreeSet<LinkId>,
    /// All devices in these namespaces, be their links known or not.
    pub places: &'a BTreeSet<Netns>,
}

impl PlanScope<'_> {
    fn covers(self, device: &Observed) -> bool {
        self.places.contains(&device.netns)
            || device
                .alias
                .as_ref()
                .is_some_and(|alias| self.links.contains(&alias.link))
    }
}

/// Something that is not ours is in the way of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The link.
    pub link: LinkId,
    /// The device in the way.
    pub at: At,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in phases: deletions, moves, births, configuration, commits.
    pub steps: Vec<Step>,
    /// Links that cannot be wired because a device that is not ours is in their way.
    pub conflicts: Vec<Conflict>,
    /// What devices that are replaced by others (of another kind) leave to these. Addresses and
    /// routes must have been observed for that, whatever the alias said; and it has to be where it
    /// outlives us before the first step is taken.
    pub replaced: Vec<Leftover>,
}

/// Plans the way from `observed` to `wanted`.
///
/// `observed` must hold all devices of ours in the places of `scope`, and of each of its links that
/// is not frozen every device that bears its alias and whatever stands at the places where its ends
/// are wanted. `wanted` must hold the links of the scope, and those that have ends in its places.
/// At most one [`Wanted`] a link.
pub fn plan(wanted: &[Wanted], observed: &[Observed], scope: PlanScope<'_>) -> Plan {
    let mut planner = Planner::new(observed);
    let too_many_moves = planner.sandboxes_with_too_many_moves(wanted);
    for object in wanted {
        planner.object(object, &too_many_moves);
    }
    for (index, device) in observed.iter().enumerate() {
        if device.is_ours() && !planner.claimed.contains(&index) && scope.covers(device) {
            planner.delete(index);
        }
    }
    planner.finish()
}

/// The links that need nothing in some namespaces of which `observed` is all that is there: every
/// end that is wanted there is as it is wanted and has nothing to inherit, and there is no other
/// device of the link. To a plan for these places they may be [`Wanted::Frozen`].
pub fn settled(
    wanted: &[Wanted],
    observed: &[Observed],
    places: &BTreeSet<Netns>,
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
            .into_iter()
            .filter(|end| places.contains(&end.netns))
            .collect();
        let is_there = |end: &&WantedEnd| {
            devices
                .iter()
                .any(|device| is_as_wanted(device, end, wanted))
        };
        let inherits = wanted.ends().iter().any(|end| end.leftover.is_some());
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
    kind_fits
        && device.netns == end.netns
        && device.name == end.name
        && device.alias.as_ref() == Some(&end.alias)
}

/// A device to be configured: the one that is there (perhaps after a move), or a newborn.
enum Body<'a> {
    Settled(&'a Observed),
    Moved(&'a Observed),
    Newborn(Option<Leftover>),
}

struct Planner<'a> {
    observed: &'a [Observed],
    by_end: BTreeMap<(LinkId, End), Vec<usize>>,
    by_place: BTreeMap<(&'a Netns, &'a str), usize>,
    /// Devices that stay, by index into `observed`.
    claimed: BTreeSet<usize>,
    deletions: Vec<Step>,
    moves: Vec<Step>,
    births: Vec<Step>,
    configuration: Vec<Step>,
    commits: Vec<Step>,
    conflicts: Vec<Conflict>,
    replaced: Vec<Leftover>,
}

impl<'a> Planner<'a> {
    fn new(observed: &'a [Observed]) -> Self {
        let mut by_end: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (index, device) in observed.iter().enumerate() {
            if let Some(alias) = &device.alias {
                by_end
                    .entry((alias.link, alias.end))
                    .or_default()
                    .push(index);
            }
        }
        let by_place = observed
            .iter()
            .enumerate()
            .map(|(i, d)| ((&d.netns, d.name.as_str()), i))
            .collect();
        Self {
            observed,
            by_end,
            by_place,
            claimed: BTreeSet::new(),
            deletions: Vec::new(),
            moves: Vec::new(),
            births: Vec::new(),
            configuration: Vec::new(),
            commits: Vec::new(),
            conflicts: Vec::new(),
            replaced: Vec::new(),
        }
    }

    fn finish(self) -> Plan {
        let phases = [
            self.deletions,
            self.moves,
            self.births,
            self.configuration,
            self.commits,
        ];
        Plan {
            steps: phases.into_iter().flatten().collect(),
            conflicts: self.conflicts,
            replaced: self.replaced,
        }
    }

    fn object(&mut self, wanted: &Wanted, too_many_moves: &BTreeSet<&Netns>) {
        match wanted {
            Wanted::Veth { a, z } => self.veth(a, z, too_many_moves),
            Wanted::Vxlan { end, tunnel } => self.vxlan(end, tunnel),
            Wanted::Hold { survivor, parked } => self.hold(survivor, parked, too_many_moves),
            Wanted::Frozen(link) => {
                for end in End::BOTH {
                    self.claimed
                        .extend(self.by_end.get(&(*link, end)).into_iter().flatten());
                }
            }
        }
    }

    fn veth(&mut self, a: &WantedEnd, z: &WantedEnd, too_many_moves: &BTreeSet<&Netns>) {
        let conflicts = [a, z].map(|end| self.foreign_at(end));
        if conflicts.iter().any(Option::is_some) {
            self.conflict(a.alias.link, conflicts);
            return;
        }
        let pair = self.pair(a, z).filter(|pair| {
            [(pair[0], a), (pair[1], z)]
                .into_iter()
                .all(|(index, end)| {
                    !self.moves_to(index, end) || !self.exceeds(index, end, too_many_moves)
                })
        });
        if let Some(pair) = pair {
            for (index, end) in pair.into_iter().zip([a, z]) {
                self.claimed.insert(index);
                let device = &self.observed[index];
                let body = if self.moves_to(index, end) {
                    self.relocate(index, end);
                    Body::Moved(device)
                } else {
                    Body::Settled(device)
                };
                self.configure(end, body);
            }
            return;
        }
        let leftovers = [a, z].map(|end| self.replace(end));
        let [birth_a, birth_z] =
            [(a, &leftovers[0]), (z, &leftovers[1])].map(|(end, left)| self.birth(end, left));
        push(
            &mut self.births,
            a,
            Operation::CreateVeth {
                a: birth_a,
                z: birth_z,
            },
        );
        for (end, leftover) in [a, z].into_iter().zip(leftovers) {
            self.configure(end, Body::Newborn(leftover));
        }
    }

    fn vxlan(&mut self, end: &WantedEnd, tunnel: &Tunnel) {
        if let Some(foreign) = self.foreign_at(end) {
            self.conflict(end.alias.link, [Some(foreign), None]);
            return;
        }
        let fits = |index: &usize| {
            let device = &self.observed[*index];
            let Kind::Vxlan {
                vni,
                parent,
                port,
                local,
                ..
            } = &device.kind
            else {
                return false;
            };
            // A family cannot be changed in place.
            let same_family = local.is_none_or(|local| local.is_ipv4() == tunnel.local.is_ipv4());
            same_family
                && (*vni, *parent, *port) == (tunnel.vni.number(), tunnel.parent, tunnel.port)
                && device.netns == end.netns
                && device.name == end.name
        };
        if let Some(index) = self.candidates(end).into_iter().find(fits) {
            self.claimed.insert(index);
            let device = &self.observed[index];
            let Kind::Vxlan { remote, local, .. } = &device.kind else {
                return;
            };
            if (*remote, *local) != (Some(tunnel.remote), Some(tunnel.local)) {
                let operation = Operation::Retarget {
                    at: device.at(),
                    tunnel: tunnel.clone(),
                };
                push(&mut self.births, end, operation);
            }
            self.configure(end, Body::Settled(device));
            return;
        }
        let leftover = self.replace(end);
        let operation = Operation::CreateVxlan {
            birth: self.birth(end, &leftover),
            tunnel: tunnel.clone(),
        };
        push(&mut self.births, end, operation);
        self.configure(end, Body::Newborn(leftover));
    }

    fn hold(
        &mut self,
        survivor: &WantedEnd,
        parked: &WantedEnd,
        too_many_moves: &BTreeSet<&Netns>,
    ) {
        let at_its_place = |index: &usize| {
            let device = &self.observed[*index];
            device.alias.is_some() && device.netns == survivor.netns && device.name == survivor.name
        };
        let Some(index) = self.candidates(survivor).into_iter().find(at_its_place) else {
            return;
        };
        let Kind::Veth { peer } = self.observed[index].kind else {
            self.claimed.insert(index);
            return;
        };
        let own_index = self.observed[index].index;
        let is_its_peer = |index: &usize| {
            let device = &self.observed[*index];
            device.index == peer && device.kind == Kind::Veth { peer: own_index }
        };
        let other = self.candidates(parked).into_iter().find(is_its_peer);
        let Some(other) = other else {
            // Its far end was not observed: it is somewhere of no concern to this plan.
            self.claimed.insert(index);
            return;
        };
        if self.moves_to(other, parked) {
            let taken = self
                .by_place
                .contains_key(&(&parked.netns, parked.name.as_str()));
            if taken || self.exceeds(other, parked, too_many_moves) {
                // Both ends go; the survivor's is made anew when its peer is back.
                return;
            }
            self.relocate(other, parked);
        } else if self.observed[other].alias.as_ref() != Some(&parked.alias) {
            push(
                &mut self.commits,
                parked,
                Operation::Commit(place(parked), parked.alias.clone()),
            );
        }
        self.claimed.extend([index, other]);
    }

    /// The devices that may be this end: by alias, and what is unfinished at its place.
    fn candidates(&self, end: &WantedEnd) -> Vec<usize> {
        let mut found = self
            .by_end
            .get(&(end.alias.link, end.alias.end))
            .cloned()
            .unwrap_or_default();
        if let Some(&index) = self.by_place.get(&(&end.netns, end.name.as_str())) {
            let device = &self.observed[index];
            if device.alias.is_none() && device.group == GROUP_OURS {
                found.push(index);
            }
        }
        found
    }

    /// An existing veth pair for the two ends.
    fn pair(&self, a: &WantedEnd, z: &WantedEnd) -> Option<[usize; 2]> {
        let z_candidates = self.candidates(z);
        self.candidates(a).into_iter().find_map(|index_a| {
            let device_a = &self.observed[index_a];
            let Kind::Veth { peer: peer_of_a } = device_a.kind else {
                return None;
            };
            z_candidates.iter().copied().find_map(|index_z| {
                let device_z = &self.observed[index_z];
                let mutual = device_z.index == peer_of_a
                    && device_z.kind
                        == Kind::Veth {
                            peer: device_a.index,
                        };
                (mutual && index_a != index_z).then_some([index_a, index_z])
            })
        })
    }

    fn moves_to(&self, index: usize, end: &WantedEnd) -> bool {
        let device = &self.observed[index];
        device.netns != end.netns || device.name != end.name
    }

    fn exceeds(&self, index: usize, end: &WantedEnd, too_many_moves: &BTreeSet<&Netns>) -> bool {
        too_many_moves.contains(busy_side(&self.observed[index].netns, &end.netns))
    }

    /// Sandboxes of which more devices would have to be moved than is worth while.
    fn sandboxes_with_too_many_moves<'w>(&self, wanted: &'w [Wanted]) -> BTreeSet<&'w Netns>
    where
        'a: 'w,
    {
        let mut moves: BTreeMap<&Netns, usize> = BTreeMap::new();
        for object in wanted {
            let ends = match object {
                Wanted::Veth { a, z } => vec![a, z],
                Wanted::Hold { parked, .. } => vec![parked],
                Wanted::Vxlan { .. } | Wanted::Frozen(_) => continue,
            };
            for end in ends {
                if let Some(index) = self
                    .candidates(end)
                    .into_iter()
                    .find(|index| self.moves_to(*index, end))
                {
                    *moves
                        .entry(busy_side(&self.observed[index].netns, &end.netns))
                        .or_default() += 1;
                }
            }
        }
        moves
            .into_iter()
            .filter(|(_, count)| *count > MOVE_LIMIT)
            .map(|(netns, _)| netns)
            .collect()
    }

    fn foreign_at(&self, end: &WantedEnd) -> Option<At> {
        let index = *self.by_place.get(&(&end.netns, end.name.as_str()))?;
        let device = &self.observed[index];
        (!device.is_ours()).then(|| device.at())
    }

    /// Leaves the link as it is: what it has stays, nothing is made.
    fn conflict(&mut self, link: LinkId, places: [Option<At>; 2]) {
        self.conflicts
            .extend(places.into_iter().flatten().map(|at| Conflict { link, at }));
        self.object(&Wanted::Frozen(link), &BTreeSet::new());
    }

    /// What is there of an end and does not fit makes room; gives what it leaves, or what one
    /// before it has left.
    fn replace(&mut self, end: &WantedEnd) -> Option<Leftover> {
        let mut leftover = end.leftover.clone();
        for index in self.candidates(end) {
            let device = &self.observed[index];
            let is_at_its_place = device.netns == end.netns && device.name == end.name;
            if is_at_its_place && (device.alias.is_some() || end.leftover.is_some()) {
                leftover = Leftover::of(device, end);
            }
            self.delete(index);
        }
        self.replaced.extend(leftover.clone());
        leftover
    }

    fn delete(&mut self, index: usize) {
        if self.claimed.insert(index) {
            let device = &self.observed[index];
            let link = device
                .alias
                .as_ref()
                .map_or(LinkId::UNKNOWN, |alias| alias.link);
            self.deletions.push(Step {
                link,
                operation: Operation::Delete(device.at()),
            });
        }
    }

    /// A device to be made, in the place of what was there.
    fn birth(&self, end: &WantedEnd, leftover: &Option<Leftover>) -> Birth {
        let at_its_place = self
            .by_place
            .get(&(&end.netns, end.name.as_str()))
            .map(|index| self.observed[*index].index);
        let index = leftover
            .as_ref()
            .map(|leftover| leftover.index)
            .or(at_its_place);
        Birth {
            at: place(end),
            mac: end.mac,
            mtu: end.mtu,
            index,
        }
    }

    fn relocate(&mut self, index: usize, end: &WantedEnd) {
        let alias = Alias {
            sandbox: None,
            config: UNFINISHED,
            ..end.alias.clone()
        };
        let operation = Operation::Move {
            from: self.observed[index].at(),
            to: place(end),
            alias,
        };
        push(&mut self.moves, end, operation);
    }

    fn configure(&mut self, end: &WantedEnd, body: Body<'_>) {
        let at = place(end);
        let (device, keeps_addresses, fresh, leftover) = match body {
            Body::Settled(device) if device.alias.as_ref() == Some(&end.alias) => return,
            Body::Settled(device) => {
                let same_sandbox = device
                    .alias
                    .as_ref()
                    .is_some_and(|alias| alias.sandbox == end.alias.sandbox);
                // Whoever made it has died before it had all.
                let leftover = end.leftover.clone().filter(|_| device.alias.is_none());
                (Some(device), true, !same_sandbox, leftover)
            }
            Body::Moved(device) => (Some(device), false, true, None),
            Body::Newborn(leftover) => (None, false, true, leftover),
        };
        let steps = &mut self.configuration;
        if let Some(device) = device {
            if keeps_addresses
                && device
                    .alias
                    .as_ref()
                    .is_some_and(|alias| alias.config != UNFINISHED)
            {
                let unfinished = Alias {
                    config: UNFINISHED,
                    ..end.alias.clone()
                };
                push(steps, end, Operation::Begin(at.clone(), unfinished));
            }
            if device.mac != Some(end.mac) {
                push(steps, end, Operation::SetMac(at.clone(), end.mac));
            }
            if device.mtu != end.mtu.bytes() {
                push(steps, end, Operation::SetMtu(at.clone(), end.mtu));
            }
        }
        let (addresses, routes) = match device {
            Some(device) if keeps_addresses => {
                (device.addresses.as_slice(), device.routes.as_slice())
            }
            _ => (&[][..], &[][..]),
        };
        for stale in routes
            .iter()
            .filter(|o| o.ours && !end.routes.contains(&o.route))
        {
            push(
                steps,
                end,
                Operation::RemoveRoute(at.clone(), stale.route.clone()),
            );
        }
        for stale in addresses
            .iter()
            .filter(|o| o.ours && !end.addresses.contains(&o.address))
        {
            push(
                steps,
                end,
                Operation::RemoveAddress(at.clone(), stale.address),
            );
        }
        for address in end
            .addresses
            .iter()
            .filter(|wanted| !addresses.iter().any(|o| o.address == **wanted))
        {
            push(steps, end, Operation::AddAddress(at.clone(), *address));
        }
        // It takes over what users added to the one that it replaces.
        for address in leftover
            .iter()
            .flat_map(|h| &h.addresses)
            .filter(|left| !end.addresses.contains(left))
        {
            push(steps, end, Operation::RestoreAddress(at.clone(), *address));
        }
        // Whoever has set a live interface down wants it down; only one that is new to its sandbox
        // is set up.
        if fresh {
            push(steps, end, Operation::SetUp(at.clone(), end.up));
        }
        for route in end
            .routes
            .iter()
            .filter(|wanted| !routes.iter().any(|o| o.route == **wanted))
        {
            push(steps, end, Operation::AddRoute(at.clone(), route.clone()));
        }
        for route in leftover
            .iter()
            .flat_map(|h| &h.routes)
            .filter(|left| !end.routes.contains(left))
        {
            push(
                steps,
                end,
                Operation::RestoreRoute(at.clone(), route.clone()),
            );
        }
        push(
            &mut self.commits,
            end,
            Operation::Commit(at, end.alias.clone()),
        );
    }
}

/// Of a move's two namespaces the one whose moves are counted: the pod's that comes or goes.
fn busy_side<'n>(from: &'n Netns, to: &'n Netns) -> &'n Netns {
    if *from == Netns::Node { to } else { from }
}

fn push(steps: &mut Vec<Step>, end: &WantedEnd, operation: Operation) {
    steps.push(Step {
        link: end.alias.link,
        operation,
    });
}

fn place(end: &WantedEnd) -> At {
    At {
        netns: end.netns.clone(),
        name: end.name.clone(),
    }
}
