//! What the devices of stitched links in the node's namespace are joined to, and whether they are
//! up.
//!
//! Unlike a device in a pod, only agents change these. So what they are joined to and whether they
//! are up is compared with what was observed at each plan, and not taken from their aliases.

use std::collections::BTreeSet;

use super::{
    assign::Assigned,
    state::{Planner, step},
};
use crate::device::{At, Joint, Netns, Operation, Wanted, WantedEnd};

impl Planner<'_> {
    /// Joins the devices of all objects. A device is joined before it is set up: until then the
    /// node's stack would have what it receives.
    pub fn join(&mut self, wanted: &[Wanted], assigned: &[Assigned]) {
        let staying: BTreeSet<usize> = assigned.iter().flatten().flatten().copied().collect();
        let dark = self.dark(wanted);
        for (object, devices) in wanted.iter().zip(assigned) {
            if self.is_frozen(object.link()) {
                continue;
            }
            match object {
                Wanted::Stub { node, joint, .. } => {
                    let to = match joint {
                        Joint::To(name) => Some(name.as_str()),
                        Joint::Cut => None,
                        Joint::Keep => continue,
                    };
                    let is_dark = to.is_some_and(|name| dark.contains(name));
                    self.join_one(node, devices[1], (to, node.up && !is_dark), &staying);
                }
                Wanted::Vxlan {
                    end,
                    joined: Some(name),
                    ..
                } => self.join_one(end, devices[0], (Some(name), end.up), &staying),
                _ => {}
            }
        }
    }

    /// The node ends whose pods have set their own ends down: they are up and have no carrier. Then
    /// the other pod is to have none either. A node end that is down says nothing of its pod, so it
    /// is set up again where that may be known. One whose pod's end this plan sets up is not dark.
    fn dark<'w>(&self, wanted: &'w [Wanted]) -> BTreeSet<&'w str> {
        let steps = self.configuration.iter();
        let set_up: BTreeSet<&At> = steps
            .filter_map(|step| match &step.operation {
                Operation::SetUp(at, true) => Some(at),
                _ => None,
            })
            .collect();
        let mut dark = BTreeSet::new();
        for object in wanted {
            let Wanted::Stub { pod, node, .. } = object else {
                continue;
            };
            let device = self.index.at(node);
            let is_dark = device.is_some_and(|device| device.up && !device.carrier);
            if is_dark && !set_up.contains(&pod.at()) {
                dark.insert(node.name.as_str());
            }
        }
        dark
    }

    fn join_one(
        &mut self,
        end: &WantedEnd,
        device: Option<usize>,
        (to, is_up): (Option<&str>, bool),
        staying: &BTreeSet<usize>,
    ) {
        let device = device.map(|number| &self.index.observed[number]);
        if let Some(name) = to {
            let target = self.index.number_of(&Netns::Node, name);
            let target = target.filter(|number| staying.contains(number));
            let target = target.map(|number| self.index.observed[number].index);
            let joined = device.and_then(|device| device.joined);
            if target.is_none() || joined != target {
                let operation = Operation::Join {
                    from: end.at(),
                    to: At {
                        netns: Netns::Node,
                        name: name.to_owned(),
                    },
                };
                self.configuration.push(step(end, operation));
            }
        }
        if device.is_some_and(|device| device.up) != is_up {
            let operation = Operation::SetUp(end.at(), is_up);
            self.configuration.push(step(end, operation));
        }
    }
}
