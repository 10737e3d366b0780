//! A link whose other pod is gone.

use super::{
    assign::Assigned,
    state::{Planner, step},
};
use crate::device::{Operation, WantedEnd};

impl Planner<'_> {
    /// Parks the other end of a survivor. Without devices there is nothing to do: if the other end
    /// cannot be parked both go, and the survivor's is created again when its peer is back.
    pub fn hold(&mut self, parked: &WantedEnd, devices: Assigned) {
        let [_, Some(other)] = devices else {
            return;
        };
        if self.index.must_move(other, parked) {
            self.relocate(other, parked);
        } else if self.index.observed[other].alias.as_ref() != Some(&parked.alias) {
            let operation = Operation::Commit(parked.at(), parked.alias.clone());
            self.commits.push(step(parked, operation));
        }
    }
}
