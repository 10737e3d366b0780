//! A veth pair.

use super::{
    assign::Assigned,
    configure::Origin,
    state::{Planner, step},
};
use crate::device::{Operation, WantedEnd};

impl Planner<'_> {
    pub fn veth(&mut self, a: &WantedEnd, z: &WantedEnd, devices: Assigned) {
        let [Some(one), Some(other)] = devices else {
            return self.create_veth(a, z);
        };
        for (number, end) in [(one, a), (other, z)] {
            let device = &self.index.observed[number];
            let origin = if self.index.must_move(number, end) {
                self.relocate(number, end);
                Origin::Moved(device)
            } else {
                Origin::InPlace(device)
            };
            self.configure(end, origin);
        }
    }

    fn create_veth(&mut self, a: &WantedEnd, z: &WantedEnd) {
        let leftovers = [a, z].map(|end| self.replace(end));
        let operation = Operation::CreateVeth {
            a: self.new_device(a, leftovers[0].as_ref()),
            z: self.new_device(z, leftovers[1].as_ref()),
        };
        self.creations.push(step(a, operation));
        for (end, leftover) in [a, z].into_iter().zip(leftovers) {
            self.configure(end, Origin::Created(leftover));
        }
    }
}
