//! Joins devices in the node's namespace.

use ratchet_model::device::{At, Netns, Operation};

use super::{Phase, Run, configure::Indexes, describe};
use crate::{error::KernelError, request};

/// A step of the phase, with the indexes of its devices.
struct Joint {
    position: usize,
    from: u32,
    to: u32,
}

impl<'a> Run<'a> {
    pub(super) fn join(&mut self, indexes: &Indexes<'a>) {
        let mut joints = Vec::new();
        for position in self.take(Phase::Join) {
            let Operation::Join { from, to } = self.operation(position) else {
                continue;
            };
            let found = [from, to].map(|at| index(indexes, at, self.operation(position)));
            match found {
                [Ok(from), Ok(to)] => joints.push(Joint { position, from, to }),
                [Err(error), _] | [_, Err(error)] => self.settle(position, Err(error)),
            }
        }
        if joints.is_empty() {
            return;
        }
        let joints = self.prepare(joints);
        let requests = joints
            .iter()
            .map(|joint| (joint.position, request::join(joint.from, joint.to)))
            .collect();
        for (position, failure) in self.send([(&Netns::Node, requests)].into()) {
            self.refuse(position, failure);
        }
    }

    /// Gives the devices what a joint hangs on. Returns those joints that can be made.
    fn prepare(&mut self, joints: Vec<Joint>) -> Vec<Joint> {
        let requests = joints
            .iter()
            .map(|joint| request::prepare_joint(joint.from));
        let requests = requests.collect();
        let answers = self
            .kernel
            .talk(&Netns::Node, |channel| channel.batch(requests));
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                for joint in joints {
                    self.settle(joint.position, Err(error.clone()));
                }
                return Vec::new();
            }
        };
        let mut ready = Vec::new();
        for (joint, answer) in joints.into_iter().zip(answers) {
            match answer {
                Ok(()) => ready.push(joint),
                Err(failure) => self.refuse(joint.position, failure),
            }
        }
        ready
    }
}

fn index(indexes: &Indexes<'_>, at: &At, operation: &Operation) -> Result<u32, KernelError> {
    let missing = || KernelError::NoDevice {
        doing: describe::doing(operation),
        at: at.clone(),
    };
    let found = indexes.get(at).cloned().unwrap_or(Ok(None))?;
    found.ok_or_else(missing)
}
