//! Why the kernel does not have a link as it is wanted.

use std::collections::BTreeMap;

use ratchet_kernel::KernelError;
use ratchet_model::{
    LinkId, Reason, SandboxId, Vni,
    device::{At, Netns, Operation, Step},
    planner::Plan,
};

/// Why a link could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkFailure {
    pub reason: Box<Reason>,
    /// The sandbox on whose side it happened, if it was on one's.
    pub sandbox: Option<SandboxId>,
    /// The VNI for which the kernel has another device.
    pub taken_vni: Option<Vni>,
}

impl LinkFailure {
    /// The kernel could not be looked at.
    pub fn unseen(error: &KernelError) -> Self {
        Self {
            reason: Box::new(error.reason()),
            sandbox: None,
            taken_vni: None,
        }
    }

    fn at(reason: Reason, at: &At) -> Self {
        let sandbox = match &at.netns {
            Netns::Node => None,
            Netns::Sandbox(id) => Some(id.clone()),
        };
        Self {
            reason: Box::new(reason),
            sandbox,
            taken_vni: None,
        }
    }

    fn of_step(step: &Step, error: &KernelError) -> Self {
        let failure = match device_of(step) {
            Some(at) => Self::at(error.reason(), at),
            None => Self::unseen(error),
        };
        let taken_vni = match error {
            KernelError::VniTaken { vni, .. } => Some(*vni),
            _ => None,
        };
        Self {
            taken_vni,
            ..failure
        }
    }
}

/// What went wrong, by link: the first error of each.
pub(super) fn failures(
    plan: &Plan,
    results: &[Result<(), KernelError>],
) -> BTreeMap<LinkId, LinkFailure> {
    let mut failures = BTreeMap::new();
    for conflict in &plan.conflicts {
        let reason = Reason::InterfaceExists {
            interface: conflict.at.name.clone(),
            netns: conflict.at.netns.to_string(),
        };
        failures
            .entry(conflict.link)
            .or_insert(LinkFailure::at(reason, &conflict.at));
    }
    for (step, result) in plan.steps.iter().zip(results) {
        if let Err(error) = result
            && !matches!(error, KernelError::Skipped)
        {
            failures
                .entry(step.link)
                .or_insert_with(|| LinkFailure::of_step(step, error));
        }
    }
    failures
}

/// The device that a step is about; none for a pair, which is about two.
fn device_of(step: &Step) -> Option<&At> {
    match &step.operation {
        Operation::CreateVeth { .. } => None,
        operation => operation.devices().next_back(),
    }
}

#[cfg(test)]
mod tests {
    use ratchet_model::planner::Conflict;

    use super::*;

    #[test]
    fn the_first_error_of_a_link_counts_and_steps_that_were_skipped_do_not() {
        let link: LinkId = "00000000000000aa".parse().unwrap();
        let other: LinkId = "00000000000000bb".parse().unwrap();
        let at = |netns, name: &str| At {
            netns,
            name: name.to_owned(),
        };
        let sandbox: SandboxId = "s1".parse().unwrap();
        let in_pod = at(Netns::Sandbox(sandbox.clone()), "eth1");
        let step = |operation| Step { link, operation };
        let plan = Plan {
            steps: vec![
                step(Operation::SetUp(in_pod.clone(), true)),
                step(Operation::Delete(at(Netns::Node, "rta1"))),
                step(Operation::Delete(in_pod.clone())),
            ],
            conflicts: vec![Conflict {
                link: other,
                at: in_pod,
            }],
            ..Plan::default()
        };
        let error = KernelError::Unregistered(sandbox.clone());
        let results = [Ok(()), Err(error.clone()), Err(KernelError::Skipped)];
        let failures = failures(&plan, &results);
        assert_eq!(failures[&link], LinkFailure::unseen(&error));
        let conflict = &failures[&other];
        assert_eq!(conflict.sandbox.as_ref(), Some(&sandbox));
        let reason = &conflict.reason;
        assert!(reason.is_conflict(), "{reason:?}");
        assert_eq!(reason.code(), "interface_exists");
    }
}
