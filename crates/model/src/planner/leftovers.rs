//! What becomes of leftovers.

use std::collections::BTreeSet;

use super::{plan::PlanScope, state::Planner};
use crate::{
    device::Wanted,
    leftover::{Leftover, LeftoverChanges, LeftoverKey},
    names::LinkId,
};

impl Planner<'_> {
    /// Says what becomes of the leftovers that are kept, and of those that the plan makes.
    pub fn leftover_changes(&self, wanted: &[Wanted], scope: PlanScope<'_>) -> LeftoverChanges {
        let made = self.remembered.iter().map(Leftover::key);
        let keys: BTreeSet<LeftoverKey> = self.leftovers.keys().cloned().chain(made).collect();
        let mut changes = LeftoverChanges {
            remembered: self.remembered.clone(),
            ..LeftoverChanges::default()
        };
        if keys.is_empty() {
            return changes;
        }
        let (made, waiting): (Vec<&Wanted>, Vec<&Wanted>) = wanted
            .iter()
            .partition(|object| object.makes() && !self.is_frozen(object.link()));
        let [made, waiting] = [made, waiting].map(|objects| {
            let links = objects.into_iter().map(Wanted::link);
            links.collect::<BTreeSet<LinkId>>()
        });
        for key in keys {
            let link = key.link;
            if waiting.contains(&link) {
                continue;
            }
            if made.contains(&link) {
                changes.used.insert(key);
            } else if scope.links.contains(&link) {
                changes.dropped.insert(key);
            }
        }
        changes
    }
}
