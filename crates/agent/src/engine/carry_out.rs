//! The kernel's part of a reconcile: look, plan, execute, and note what came of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Instant,
};

use ratchet_kernel::{KernelError, Look};
use ratchet_model::{
    LinkId, NodeName, SandboxId,
    device::{Alias, At, Netns, Observed, Operation, Step, Wanted, WantedEnd},
    link::End,
    planner::{self, Plan, Scope},
    resolve::Link,
    wiring::{self, Obstacle, Wiring},
};

use super::{Engine, LinkFailure, Tracked, reconcile::Extent, sandboxes};
use crate::state::SandboxState;

/// A plan and what came of it.
struct Done {
    plan: Plan,
    /// One a step.
    results: Vec<Result<(), KernelError>>,
    /// The leaving sandboxes of which nothing is left.
    swept: BTreeSet<SandboxId>,
}

impl Engine {
    /// Observes, plans, executes, and notes what came of it.
    pub(super) fn carry_out(
        &mut self,
        extent: &Extent,
        fresh: &mut Vec<(Link, [Option<NodeName>; 2], Wiring)>,
        ended: &BTreeSet<LinkId>,
    ) -> bool {
        let mut wanted: Vec<Wanted> = fresh.iter().filter_map(|(_, _, wiring)| wiring.wanted.clone()).collect();
        if matches!(extent, Extent::Everything) {
            wanted.extend(self.recollection.wanted());
        }
        let links: BTreeSet<LinkId> = wanted.iter().map(Wanted::link).chain(ended.iter().copied()).collect();
        let leaving: BTreeSet<SandboxId> = self.leaving_of(extent);
        if links.is_empty() && leaving.is_empty() && matches!(extent, Extent::Pods(_)) {
            return true;
        }
        let looks = match extent {
            Extent::Everything => self.look_everywhere(),
            Extent::Pods(_) => self.look_at(fresh, ended, &leaving),
        };
        let opened = self.open_namespaces(looks.keys());
        let looks: BTreeMap<Netns, Look> =
            looks.into_iter().filter(|(netns, _)| *netns == Netns::Node || opened.contains(netns)).collect();
        let Done { plan, results, swept } = match self.plan_and_execute(extent, &wanted, &looks, links, &leaving) {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "cannot see what is in the kernel");
                return false;
            }
        };
        self.swept.extend(swept);
        self.announcements.note(&plan.steps, &results);
        let failures = failures(&plan, &results);
        let worked = failures.is_empty();
        for (link, nodes, wiring) in fresh.drain(..) {
            let failure = failures.get(&link.id).cloned();
            self.log_outcome(&link, &wiring, failure.as_ref());
            let before = self.links.get(link.id).filter(|before| before.wiring.obstacle == wiring.obstacle);
            let (since, told) = before.map_or_else(|| (Instant::now(), false), |before| (before.since, before.told));
            self.links.insert(Tracked { link, wiring, failure, since, told, nodes });
        }
        worked
    }

    /// Observes, plans and executes.
    fn plan_and_execute(
        &self,
        extent: &Extent,
        wanted: &[Wanted],
        looks: &BTreeMap<Netns, Look>,
        mut links: BTreeSet<LinkId>,
        leaving: &BTreeSet<SandboxId>,
    ) -> Result<Done, KernelError> {
        let settled = settled(wanted);
        let is_leaving = |netns: &Netns| matches!(netns, Netns::Sandbox(id) if leaving.contains(id));
        // What a device has matters where the device is to stay and is not known to be as wanted.
        let matters =
            |d: &Observed| !is_leaving(&d.netns) && !d.alias.as_ref().is_some_and(|alias| settled.contains(alias));
        let mut observed = self.kernel.observe(looks, matters)?;
        let plan = |observed: &[Observed], links: &mut BTreeSet<LinkId>| {
            // Whatever a leaving sandbox still has goes, whether its link is known or not.
            links.extend(observed.iter().filter_map(|d| d.alias.as_ref()).filter_map(|alias| {
                alias.sandbox.as_ref().is_some_and(|id| leaving.contains(id)).then_some(alias.link)
            }));
            let scope = match extent {
                Extent::Everything => Scope::All,
                Extent::Pods(_) => Scope::Links(links),
            };
            planner::plan(wanted, observed, scope)
        };
        let mut planned = plan(&observed, &mut links);
        if planned.replaces {
            // What users added to the devices that are to be replaced must be seen, settled or not.
            observed = self.kernel.observe(looks, |_| true)?;
            planned = plan(&observed, &mut links);
        }
        for step in &planned.steps {
            tracing::debug!(link = %step.link, operation = ?step.operation, "step");
        }
        let results = self.kernel.execute(&planned.steps);
        let swept = leaving
            .iter()
            .filter(|id| looks.contains_key(&Netns::Sandbox((*id).clone())))
            .filter(|id| is_swept(id, &observed, &planned.steps, &results))
            .cloned()
            .collect();
        Ok(Done { plan: planned, results, swept })
    }

    /// The sandboxes that are leaving and within the extent.
    fn leaving_of(&self, extent: &Extent) -> BTreeSet<SandboxId> {
        let ids = |state: &SandboxState| state.leaving.then(|| state.id.clone());
        match extent {
            Extent::Everything => self.sandboxes.all().filter_map(ids).collect(),
            Extent::Pods(pods) => pods.iter().flat_map(|pod| self.sandboxes.of(pod)).filter_map(ids).collect(),
        }
    }

    fn look_everywhere(&self) -> BTreeMap<Netns, Look> {
        let sandboxes = self.sandboxes.all().map(|state| (Netns::Sandbox(state.id.clone()), Look::All));
        sandboxes.chain([(Netns::Node, Look::All)]).collect()
    }

    /// Where devices of these links can be: at their places in all sandboxes of their pods, or parked.
    fn look_at(
        &self,
        fresh: &[(Link, [Option<NodeName>; 2], Wiring)],
        ended: &BTreeSet<LinkId>,
        leaving: &BTreeSet<SandboxId>,
    ) -> BTreeMap<Netns, Look> {
        let mut names: BTreeMap<Netns, BTreeSet<String>> = BTreeMap::new();
        let ended = ended.iter().filter_map(|id| self.links.get(*id)).map(|tracked| &tracked.link);
        for link in fresh.iter().map(|(link, _, _)| link).chain(ended) {
            for end in End::BOTH {
                let endpoint = link.endpoint(end);
                names.entry(Netns::Node).or_default().insert(wiring::parked_name(link.id, end));
                for state in self.sandboxes.of(&endpoint.pod) {
                    let netns = Netns::Sandbox(state.id.clone());
                    names.entry(netns).or_default().insert(endpoint.interface.to_string());
                }
            }
        }
        let mut looks: BTreeMap<Netns, Look> =
            names.into_iter().map(|(netns, names)| (netns, Look::Names(names))).collect();
        looks.extend(leaving.iter().map(|id| (Netns::Sandbox(id.clone()), Look::All)));
        looks
    }

    /// Opens the namespaces of sandboxes until the command is dealt with; one that is gone is left out, which is as good as empty.
    pub(super) fn open_namespaces<'n>(&mut self, netns: impl Iterator<Item = &'n Netns>) -> BTreeSet<Netns> {
        let mut opened = BTreeSet::new();
        for netns in netns {
            let Netns::Sandbox(id) = netns else { continue };
            let Some(state) = self.sandboxes.get(id) else { continue };
            match sandboxes::open_netns(state) {
                Ok(handle) => {
                    self.kernel.register(id.clone(), handle);
                    opened.insert(netns.clone());
                }
                Err(error) => tracing::debug!(sandbox = %id, %error, "cannot enter"),
            }
        }
        opened
    }

    fn log_outcome(&self, link: &Link, wiring: &Wiring, failure: Option<&LinkFailure>) {
        let before = self.links.get(link.id);
        if before.is_some_and(|t| t.wiring == *wiring && t.failure.as_ref() == failure && t.link == *link) {
            return;
        }
        let name = super::report::name(link);
        for warning in &link.warnings {
            tracing::warn!(link = %link.id, name, warning, "link");
        }
        match (failure, &wiring.obstacle) {
            (Some(failure), _) => {
                tracing::error!(link = %link.id, name, reason = failure.text, "link cannot be made");
                self.warn_pods(link, &failure.text);
            }
            (None, Some(Obstacle::Error(reason))) => {
                tracing::error!(link = %link.id, name, reason, "link cannot be made");
                self.warn_pods(link, reason);
            }
            (None, Some(Obstacle::Waiting(reason) | Obstacle::Unheard(reason))) => {
                tracing::info!(link = %link.id, name, reason, "link is pending")
            }
            (None, None) => tracing::info!(link = %link.id, name, "link is up"),
        }
    }
}

/// The aliases of devices that need nothing more.
fn settled(wanted: &[Wanted]) -> HashSet<Alias> {
    fn ends(wanted: &Wanted) -> Vec<&WantedEnd> {
        match wanted {
            Wanted::Veth { a, z } => vec![a, z],
            Wanted::Vxlan { end, .. } => vec![end],
            Wanted::Hold { survivor, parked } => vec![survivor, parked],
            Wanted::Frozen(_) => vec![],
        }
    }
    wanted.iter().flat_map(ends).map(|end| end.alias.clone()).collect()
}

/// Whether everything of ours that was seen in a sandbox, all of which was looked at, has been taken out of it.
fn is_swept(id: &SandboxId, observed: &[Observed], steps: &[Step], results: &[Result<(), KernelError>]) -> bool {
    let done = steps.iter().zip(results).filter(|(_, result)| result.is_ok()).map(|(step, _)| &step.operation);
    let taken: HashSet<&str> = done
        .filter_map(|operation| match operation {
            Operation::Delete(at) | Operation::Move { from: at, .. } => Some(at),
            _ => None,
        })
        .filter(|at| matches!(&at.netns, Netns::Sandbox(of) if of == id))
        .map(|at| at.name.as_str())
        .collect();
    observed
        .iter()
        .filter(|device| matches!(&device.netns, Netns::Sandbox(of) if of == id))
        .all(|device| !device.is_ours() || taken.contains(device.name.as_str()))
}

/// What went wrong, by link: the first error of each.
fn failures(plan: &Plan, results: &[Result<(), KernelError>]) -> BTreeMap<LinkId, LinkFailure> {
    let mut failures = BTreeMap::new();
    for conflict in &plan.conflicts {
        let text = format!(
            "interface {} exists in {} and was not made by Ratchet; it stays untouched: remove or rename it, or give the link another interface",
            conflict.at.name, conflict.at.netns
        );
        failures.entry(conflict.link).or_insert(failure(text, &conflict.at, true));
    }
    for (step, result) in plan.steps.iter().zip(results) {
        if let Err(error) = result
            && !matches!(error, KernelError::Skipped)
        {
            failures.entry(step.link).or_insert_with(|| match place_of(step) {
                Some(at) => failure(error.to_string(), at, false),
                None => LinkFailure { text: error.to_string(), sandbox: None, conflict: false },
            });
        }
    }
    failures
}

fn failure(text: String, at: &At, conflict: bool) -> LinkFailure {
    let sandbox = match &at.netns {
        Netns::Node => None,
        Netns::Sandbox(id) => Some(id.clone()),
    };
    LinkFailure { text, sandbox, conflict }
}

/// The device that a step is about; none for a pair, which is about two.
fn place_of(step: &Step) -> Option<&At> {
    match &step.operation {
        Operation::CreateVeth { .. } => None,
        operation => operation.devices().next_back(),
    }
}
