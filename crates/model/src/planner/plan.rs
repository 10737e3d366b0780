//! What a plan is about, and what it says.

use std::collections::BTreeSet;

use crate::{
    device::{At, Netns, Observed, Step},
    leftover::LeftoverChanges,
    names::LinkId,
};

/// What a plan is about: all that is ours within it and not wanted is deleted. What is outside of
/// it stays.
#[derive(Debug, Clone, Copy)]
pub struct PlanScope<'a> {
    /// The devices of these links, wherever they are.
    pub links: &'a BTreeSet<LinkId>,
    /// All devices in these namespaces, whether their links are known or not.
    pub namespaces: &'a BTreeSet<Netns>,
}

impl PlanScope<'_> {
    /// Whether a device is in the scope.
    pub(super) fn covers(self, device: &Observed) -> bool {
        self.namespaces.contains(&device.netns)
            || device
                .says()
                .is_some_and(|alias| self.links.contains(&alias.link))
    }
}

/// A device that is not ours is where one of a link is wanted.
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
    /// The steps, in phases: deletions, moves, creations, configuration, commits.
    pub steps: Vec<Step>,
    /// Links that cannot be wired because a device that is not ours is in their way.
    pub conflicts: Vec<Conflict>,
    /// What is to be done with leftovers.
    pub leftovers: LeftoverChanges,
}
