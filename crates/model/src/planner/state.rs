//! The state of a plan that is being made.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    assign::{Assigned, assign},
    index::Index,
    order,
    plan::{Conflict, Plan, PlanScope},
    vxlan,
};
use crate::{
    device::{Alias, Observed, Operation, Part, Step, Wanted, WantedEnd},
    leftover::{Leftover, Leftovers},
    names::LinkId,
};

pub(super) struct Planner<'a> {
    pub index: Index<'a>,
    /// The leftovers that are kept.
    pub leftovers: &'a Leftovers,
    /// Links whose devices stay as they are.
    frozen: BTreeSet<LinkId>,
    /// Devices for which it is decided what is done with them, by number.
    claimed: BTreeSet<usize>,
    deletions: Vec<Step>,
    moves: Vec<Step>,
    pub creations: Vec<Step>,
    pub configuration: Vec<Step>,
    pub commits: Vec<Step>,
    conflicts: Vec<Conflict>,
    /// What the devices leave that are replaced.
    pub remembered: Vec<Leftover>,
}

impl<'a> Planner<'a> {
    /// The state in which it is decided which devices stay and whose they are. Returns the devices
    /// of each object, too.
    pub fn new(
        wanted: &'a [Wanted],
        observed: &'a [Observed],
        leftovers: &'a Leftovers,
    ) -> (Self, Vec<Assigned>) {
        let index = Index::new(observed);
        let conflicts = conflicts(&index, wanted);
        let frozen = wanted.iter().filter_map(|object| match object {
            Wanted::Frozen(link) => Some(*link),
            _ => None,
        });
        let blocked = conflicts.iter().map(|conflict| conflict.link);
        let frozen: BTreeSet<LinkId> = frozen.chain(blocked).collect();
        let assigned = assign(&index, wanted, &frozen);
        let staying = staying(&index, wanted, &frozen);
        let claimed = assigned
            .iter()
            .flatten()
            .flatten()
            .copied()
            .chain(staying)
            .collect();
        let planner = Self {
            index,
            leftovers,
            frozen,
            claimed,
            deletions: Vec::new(),
            moves: Vec::new(),
            creations: Vec::new(),
            configuration: Vec::new(),
            commits: Vec::new(),
            conflicts,
            remembered: Vec::new(),
        };
        (planner, assigned)
    }

    /// The plan for these objects.
    pub fn finish(self, wanted: &[Wanted], scope: PlanScope<'_>) -> Plan {
        let leftovers = self.leftover_changes(wanted, scope);
        let phases = [
            self.deletions,
            self.moves,
            order::creations(self.creations),
            self.configuration,
            self.commits,
        ];
        Plan {
            steps: phases.into_iter().flatten().collect(),
            conflicts: self.conflicts,
            leftovers,
        }
    }

    /// Whether all devices of a link stay as they are.
    pub fn is_frozen(&self, link: LinkId) -> bool {
        self.frozen.contains(&link)
    }

    /// The devices that may be this end and are no object's.
    pub fn unclaimed(&self, end: &WantedEnd) -> Vec<usize> {
        let candidates = self.index.candidates(end);
        candidates
            .filter(|number| !self.claimed.contains(number))
            .collect()
    }

    pub fn delete(&mut self, number: usize) {
        if self.claimed.insert(number) {
            let device = &self.index.observed[number];
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

    /// Deletes what is ours in the scope and not wanted.
    pub fn delete_unclaimed(&mut self, scope: PlanScope<'_>) {
        for (number, device) in self.index.observed.iter().enumerate() {
            if device.is_ours() && !self.claimed.contains(&number) && scope.covers(device) {
                self.delete(number);
            }
        }
    }

    /// Moves a device to where an end is wanted. What is ours there and no object's makes room.
    pub fn relocate(&mut self, number: usize, end: &WantedEnd) {
        let there = self.index.number_at(end);
        if let Some(there) = there.filter(|there| self.index.observed[*there].is_ours()) {
            self.delete(there);
        }
        let operation = Operation::Move {
            from: self.index.observed[number].at(),
            to: end.at(),
            alias: Alias {
                sandbox: None,
                config: Alias::UNFINISHED,
                ..end.alias.clone()
            },
        };
        self.moves.push(step(end, operation));
    }
}

/// The devices that stay, although they are no object's.
fn staying(index: &Index<'_>, wanted: &[Wanted], frozen: &BTreeSet<LinkId>) -> Vec<usize> {
    let is_frozen = |device: &Observed| {
        let said = device.says();
        said.is_some_and(|alias| frozen.contains(&alias.link))
    };
    let kept: BTreeMap<LinkId, &Wanted> = wanted
        .iter()
        .filter(|object| object.keeps())
        .map(|object| (object.link(), object))
        .collect();
    let is_kept = |device: &Observed| {
        let alias = device.alias.as_ref();
        alias.is_some_and(|alias| {
            let object = kept.get(&alias.link);
            object.is_some_and(|object| object.keeps_joined(alias))
        })
    };
    // A tunnel whose pod has gone, and with it the veth that the tunnel was joined to.
    let is_orphan = |device: &Observed| {
        let alias = device.alias.as_ref();
        let tunnel = alias.filter(|alias| alias.part == Part::Tunnel);
        tunnel.is_some_and(|alias| !index.has_node_end_of(alias))
    };
    let stays = |device: &Observed| is_kept(device) || is_frozen(device) && !is_orphan(device);
    let numbers = 0..index.observed.len();
    numbers
        .filter(|number| stays(&index.observed[*number]))
        .collect()
}

/// A step for an end's link.
pub(super) fn step(end: &WantedEnd, operation: Operation) -> Step {
    Step {
        link: end.alias.link,
        operation,
    }
}

/// The devices that are not ours where ends are to be made. A link is made whole or not at all: of
/// a link with a conflict all devices stay as they are.
fn conflicts(index: &Index<'_>, wanted: &[Wanted]) -> Vec<Conflict> {
    let conflict = |object: &Wanted, end: &WantedEnd| {
        let device = index.foreign_at(end)?;
        let is_its_tunnel = matches!(
            object,
            Wanted::Vxlan { end, tunnel, .. } if vxlan::fits(device, end, tunnel)
        );
        (!is_its_tunnel).then(|| Conflict {
            link: object.link(),
            at: device.at(),
        })
    };
    wanted
        .iter()
        .flat_map(|object| {
            let ends = object.made_ends();
            ends.filter_map(move |end| conflict(object, end))
        })
        .collect()
}
