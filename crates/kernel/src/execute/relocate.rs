//! Moves devices between namespaces and renames them.
//!
//! One by one and in the order given: a name that one move frees may be where the next one goes,
//! and a move costs an RCU grace period, so that there is nothing to gain from sending many at
//! once.

use ratchet_model::device::{Alias, At, Netns, Observed, Operation};

use super::{Phase, Run, describe};
use crate::{
    error::KernelError,
    request,
    socket::{Failure, Request},
};

impl Run<'_> {
    pub(super) fn relocate(&mut self) {
        for position in self.take(Phase::Move) {
            let operation = self.operation(position);
            if let Operation::Move { from, to, alias } = operation {
                let outcome = self.relocate_one(operation, from, to, alias);
                self.settle(position, outcome);
            }
        }
    }

    fn relocate_one(
        &self,
        operation: &Operation,
        from: &At,
        to: &At,
        alias: &Alias,
    ) -> Result<(), KernelError> {
        let device = self.movable(operation, from, to, alias)?;
        let elsewhere = from.netns != to.netns;
        let target = if elsewhere {
            Some(self.kernel.space(&to.netns)?.handle.raw_fd())
        } else {
            None
        };
        // The device keeps its index where that is free, and mostly it is.
        let signed = |index| self.kernel.sign(alias, &to.netns, index);
        let mut requests = Vec::new();
        // A move sets it down by itself (net/core/dev.c, `__dev_change_net_namespace`), a renaming
        // does not.
        if device.up && !elsewhere {
            requests.push(request::set_up(&from.name, false));
        }
        requests.push(request::move_link(
            device.index,
            target,
            &to.name,
            Some(signed(device.index)?),
        ));
        self.request_all(operation, &from.netns, requests)?;
        let mut found = self.kernel.find(std::slice::from_ref(to))?;
        match found.pop().flatten() {
            Some(there) if there.index != device.index => {
                let alias = request::set_alias(there.index, signed(there.index)?);
                self.request_all(operation, &to.netns, vec![alias])
            }
            _ => Ok(()),
        }
    }

    /// The device that is to be moved, if it proves to be that end and nothing is in its way.
    fn movable(
        &self,
        operation: &Operation,
        from: &At,
        to: &At,
        alias: &Alias,
    ) -> Result<Observed, KernelError> {
        let doing = || describe::doing(operation);
        let mut found = self.kernel.find(&[from.clone(), to.clone()])?.into_iter();
        let Some(device) = found.next().flatten() else {
            return Err(KernelError::NoDevice {
                doing: doing(),
                at: from.clone(),
            });
        };
        let is_that_end = |found: &Alias| (found.link, found.end) == (alias.link, alias.end);
        if !device.alias.as_ref().is_some_and(is_that_end) {
            return Err(KernelError::Foreign {
                doing: doing(),
                at: from.clone(),
            });
        }
        // The kernel moves first and renames then, so that a clash would leave the device there
        // under its old name. Look before.
        if found.next().flatten().is_some() && from != to {
            return Err(KernelError::NameTaken {
                doing: doing(),
                name: to.name.clone(),
                netns: to.netns.clone(),
            });
        }
        Ok(device)
    }

    fn request_all(
        &self,
        operation: &Operation,
        netns: &Netns,
        requests: Vec<Request>,
    ) -> Result<(), KernelError> {
        let answers = self.kernel.talk(netns, |channel| channel.batch(requests))?;
        answers
            .into_iter()
            .collect::<Result<(), Failure>>()
            .map_err(|failure| describe::explain(operation, failure))
    }
}
