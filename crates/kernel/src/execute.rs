//! Executes a plan: phase by phase, and within a phase with as many requests in one go as the
//! kernel takes.
//!
//! It decides nothing. A step that fails keeps the later steps for the same link and device from
//! being tried, above all the commit; every other link goes on.

mod configure;
mod create;
mod delete;
mod describe;
mod join;
mod relocate;

use std::collections::{BTreeMap, HashSet};

use nix::errno::Errno;
use ratchet_model::{
    device::{At, Netns, Operation, Step},
    names::LinkId,
};

use crate::{
    error::KernelError,
    kernel::Kernel,
    socket::{Failure, Request},
};

/// What became of a step.
pub type Outcome = Result<(), KernelError>;

/// The order in which the kinds of operations are done, from first to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Delete,
    Move,
    Create,
    Begin,
    Device,
    Address,
    /// Before the devices are up: until then the node's stack would have what they receive.
    Join,
    /// After the addresses: on a device that is up each one costs five times as much, and a daemon
    /// in the pod that waits for the interface finds it complete.
    Up,
    Route,
    Commit,
}

impl Phase {
    fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Delete(_) => Self::Delete,
            Operation::Move { .. } => Self::Move,
            Operation::CreateVeth { .. }
            | Operation::CreateVxlan { .. }
            | Operation::Retarget { .. } => Self::Create,
            Operation::SetMac(..)
            | Operation::SetMtu(..)
            | Operation::SetUp(_, false)
            | Operation::Silence(_) => Self::Device,
            Operation::Join { .. } => Self::Join,
            Operation::SetUp(_, true) => Self::Up,
            Operation::AddAddress(..)
            | Operation::RestoreAddress(..)
            | Operation::AnnounceAddress(..)
            | Operation::RemoveAddress(..) => Self::Address,
            Operation::AddRoute(..) | Operation::RestoreRoute(..) | Operation::RemoveRoute(..) => {
                Self::Route
            }
            Operation::Begin(..) => Self::Begin,
            Operation::Commit(..) => Self::Commit,
        }
    }
}

/// Whether the kernel's refusal means that what was to be achieved is so already.
fn achieved(operation: &Operation, errno: Errno) -> bool {
    match operation {
        Operation::AddAddress(..)
        | Operation::RestoreAddress(..)
        | Operation::AddRoute(..)
        | Operation::RestoreRoute(..) => errno == Errno::EEXIST,
        Operation::RemoveAddress(..) => errno == Errno::EADDRNOTAVAIL,
        // Without IPv6 there is nothing to be silenced.
        Operation::Silence(_) => errno == Errno::EAFNOSUPPORT,
        // ENETUNREACH: IPv4 with no table at all.
        Operation::RemoveRoute(..) => {
            matches!(errno, Errno::ESRCH | Errno::ENOENT | Errno::ENETUNREACH)
        }
        _ => false,
    }
}

/// Requests by the namespace over whose socket they go, each with the position of its step.
type Jobs<'a> = BTreeMap<&'a Netns, Vec<(usize, Request)>>;

/// A plan that is being executed.
struct Run<'a> {
    kernel: &'a Kernel,
    steps: &'a [Step],
    outcomes: Vec<Option<Outcome>>,
    /// The devices for which a step failed.
    broken: HashSet<(LinkId, &'a At)>,
}

impl Kernel {
    /// Executes steps, phase by phase: deletions, moves, creations, configuration, commits. Within
    /// a phase their order is kept for one namespace. Returns one outcome a step, in the order of
    /// the steps.
    pub fn execute(&self, steps: &[Step]) -> Vec<Outcome> {
        let mut run = Run {
            kernel: self,
            steps,
            outcomes: vec![None; steps.len()],
            broken: HashSet::new(),
        };
        run.delete();
        run.relocate();
        run.create();
        run.configure();
        run.outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Err(KernelError::Skipped)))
            .collect()
    }
}

impl<'a> Run<'a> {
    /// The steps of a phase; those for a device for which something failed are settled as skipped.
    fn take(&mut self, phase: Phase) -> Vec<usize> {
        let steps = self.steps;
        let mut taken = Vec::new();
        for (position, step) in steps
            .iter()
            .enumerate()
            .filter(|(_, step)| Phase::of(&step.operation) == phase)
        {
            if step
                .operation
                .devices()
                .any(|at| self.broken.contains(&(step.link, at)))
            {
                self.settle(position, Err(KernelError::Skipped));
            } else {
                taken.push(position);
            }
        }
        taken
    }

    fn operation(&self, position: usize) -> &'a Operation {
        &self.steps[position].operation
    }

    /// Notes what became of a step.
    fn settle(&mut self, position: usize, outcome: Outcome) {
        let step = &self.steps[position];
        if outcome.is_err() {
            self.broken
                .extend(step.operation.devices().map(|at| (step.link, at)));
        }
        self.outcomes[position] = Some(outcome);
    }

    /// Notes the kernel's refusal of a step.
    fn refuse(&mut self, position: usize, failure: Failure) {
        let error = describe::explain(self.operation(position), failure);
        self.settle(position, Err(error));
    }

    /// Sends requests, settles the steps that were done, and returns the refused ones.
    fn send(&mut self, jobs: Jobs<'a>) -> Vec<(usize, Failure)> {
        let mut failures = Vec::new();
        for (netns, jobs) in jobs {
            let (positions, requests): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
            match self.kernel.talk(netns, |channel| channel.batch(requests)) {
                Ok(answers) => {
                    for (position, answer) in positions.into_iter().zip(answers) {
                        match answer {
                            Err(failure) if !achieved(self.operation(position), failure.errno) => {
                                failures.push((position, failure));
                            }
                            _ => self.settle(position, Ok(())),
                        }
                    }
                }
                Err(error) => {
                    for position in positions {
                        self.settle(position, Err(error.clone()));
                    }
                }
            }
        }
        failures
    }
}
