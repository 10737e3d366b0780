//! A link whose other pod is gone.

use super::state::{Planner, step};
use crate::device::{Operation, WantedEnd};

impl Planner<'_> {
    pub fn hold(&mut self, survivor: &WantedEnd, parked: &WantedEnd) {
        let observed = self.index.observed;
        let is_complete_there = |number: &usize| {
            let device = &observed[*number];
            device.alias.is_some() && device.is_at(&survivor.netns, &survivor.name)
        };
        let Some(number) = self.index.candidates(survivor).find(is_complete_there) else {
            return;
        };
        let other = self
            .index
            .candidates(parked)
            .find(|other| self.index.are_peers(number, *other));
        // Only a veth has another end. If that was not observed, it is in a namespace that this
        // plan is not about.
        let Some(other) = other else {
            self.claim(number);
            return;
        };
        if self.index.must_move(other, parked) {
            if self.index.at(parked).is_some() || self.exceeds_limit(other, parked) {
                // Both ends go. The survivor's is created again when its peer is back.
                return;
            }
            self.relocate(other, parked);
        } else if observed[other].alias.as_ref() != Some(&parked.alias) {
            let operation = Operation::Commit(parked.at(), parked.alias.clone());
            self.commits.push(step(parked, operation));
        }
        self.claim(number);
        self.claim(other);
    }
}
