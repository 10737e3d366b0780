//! The state of a plan that is being made.

use std::collections::BTreeSet;

use super::{
    index::Index,
    moves, order,
    plan::{Conflict, Plan, PlanScope},
};
use crate::{
    device::{Alias, Netns, Observed, Operation, Step, Wanted, WantedEnd},
    leftover::Leftover,
    link::End,
    names::LinkId,
};

pub(super) struct Planner<'a> {
    pub index: Index<'a>,
    over_limit: BTreeSet<&'a Netns>,
    /// Devices for which it is decided what is done with them, by number.
    claimed: BTreeSet<usize>,
    deletions: Vec<Step>,
    moves: Vec<Step>,
    pub creations: Vec<Step>,
    pub configuration: Vec<Step>,
    pub commits: Vec<Step>,
    conflicts: Vec<Conflict>,
    pub replaced: Vec<Leftover>,
}

impl<'a> Planner<'a> {
    pub fn new(wanted: &'a [Wanted], observed: &'a [Observed]) -> Self {
        let index = Index::new(observed);
        Self {
            over_limit: moves::sandboxes_over_limit(&index, wanted),
            index,
            claimed: BTreeSet::new(),
            deletions: Vec::new(),
            moves: Vec::new(),
            creations: Vec::new(),
            configuration: Vec::new(),
            commits: Vec::new(),
            conflicts: Vec::new(),
            replaced: Vec::new(),
        }
    }

    pub fn finish(self) -> Plan {
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
            replaced: self.replaced,
        }
    }

    /// A device stays.
    pub fn claim(&mut self, number: usize) -> &'a Observed {
        self.claimed.insert(number);
        &self.index.observed[number]
    }

    /// All devices of a link stay as they are.
    pub fn freeze(&mut self, link: LinkId) {
        for end in End::BOTH {
            self.claimed.extend(self.index.of_end(link, end));
        }
    }

    /// Freezes the link of some ends and returns true if a device that is not ours is where one of
    /// them is wanted.
    pub fn is_blocked(&mut self, link: LinkId, ends: &[&WantedEnd]) -> bool {
        let before = self.conflicts.len();
        let foreign = ends.iter().filter_map(|end| self.index.foreign_at(end));
        self.conflicts
            .extend(foreign.map(|at| Conflict { link, at }));
        let is_blocked = self.conflicts.len() > before;
        if is_blocked {
            self.freeze(link);
        }
        is_blocked
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

    /// Whether a device has to be moved and must not be, because its sandbox has too many that do.
    pub fn exceeds_limit(&self, number: usize, end: &WantedEnd) -> bool {
        let from = &self.index.observed[number].netns;
        self.index.must_move(number, end)
            && self
                .over_limit
                .contains(moves::counted_side(from, &end.netns))
    }

    /// Moves a device to where an end is wanted.
    pub fn relocate(&mut self, number: usize, end: &WantedEnd) {
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

/// A step for an end's link.
pub(super) fn step(end: &WantedEnd, operation: Operation) -> Step {
    Step {
        link: end.alias.link,
        operation,
    }
}
