//! The kernel's part of a reconcile: look, plan, execute, and note what came of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ratchet_kernel::{KernelError, Look};
use ratchet_model::{
    LinkId, NodeName, PodKey, SandboxId,
    device::{Alias, At, Netns, Observed, Operation, Step, Wanted},
    link::End,
    planner::{self, Plan, PlanScope, WantedEnds},
    resolve::Link,
    wiring::{self, Obstacle, Wiring},
};

use super::{Engine, LinkFailure, Tracked, reconcile::Scope, sandboxes};
use crate::state::SandboxState;

/// What a plan is made from.
struct Task {
    wanted: Vec<Wanted>,
    links: BTreeSet<LinkId>,
    /// The namespaces in which nothing of ours stays that is not wanted.
    places: BTreeSet<Netns>,
    looks: BTreeMap<Netns, Look>,
    observed: Vec<Observed>,
}

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
    pub(super) fn apply(
        &mut self,
        scope: &Scope,
        fresh: &mut Vec<(Link, [Option<NodeName>; 2], Wiring)>,
        ended: &BTreeSet<LinkId>,
    ) -> bool {
        let places = self.places_of(scope);
        if fresh.is_empty() && ended.is_empty() && places.is_empty() {
            return true;
        }
        let Done {
            plan,
            results,
            swept,
        } = match self
            .look(scope, places, fresh, ended)
            .and_then(|task| self.plan_and_execute(task))
        {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "cannot see what is in the kernel");
                // What is there is as it was; what is new is not there yet.
                fresh.retain(|(link, _, wiring)| {
                    self.links
                        .get(link.id)
                        .is_none_or(|before| before.wiring != *wiring)
                });
                let failure = LinkFailure {
                    text: error.to_string(),
                    sandbox: None,
                    conflict: false,
                };
                for (link, nodes, wiring) in fresh.drain(..) {
                    self.note(link, nodes, wiring, Some(failure.clone()));
                }
                return false;
            }
        };
        self.swept.extend(swept);
        self.announcements
            .note(&plan.steps, &results, self.clock.now());
        let failures = failures(&plan, &results);
        let is_made = |id| {
            fresh
                .iter()
                .any(|(link, _, wiring)| link.id == id && wiring.kind().is_some())
        };
        let sandboxes = &self.sandboxes;
        self.leftovers.retain(|left| {
            let has_it = is_made(left.link) && !failures.contains_key(&left.link);
            !has_it && !ended.contains(&left.link) && sandboxes.get(&left.sandbox).is_some()
        });
        let worked = failures.is_empty();
        for (link, nodes, wiring) in fresh.drain(..) {
            let failure = failures.get(&link.id).cloned();
            self.note(link, nodes, wiring, failure);
        }
        worked
    }

    /// Notes what has become of a link.
    fn note(
        &mut self,
        link: Link,
        nodes: [Option<NodeName>; 2],
        wiring: Wiring,
        failure: Option<LinkFailure>,
    ) {
        self.log_outcome(&link, &wiring, failure.as_ref());
        let before = self
            .links
            .get(link.id)
            .filter(|before| before.wiring.obstacle == wiring.obstacle);
        let (since, told) = before.map_or_else(
            || (self.clock.now(), false),
            |before| (before.since, before.told),
        );
        self.links.insert(Tracked {
            link,
            wiring,
            failure,
            since,
            told,
            nodes,
        });
    }

    /// Looks at all that is in these places, and for the devices of the links wherever else they
    /// can be. Of a link that has all it needs in a portion's sandboxes the rest is left to the
    /// portion of its other pod.
    fn look(
        &mut self,
        scope: &Scope,
        mut places: BTreeSet<Netns>,
        fresh: &[(Link, [Option<NodeName>; 2], Wiring)],
        ended: &BTreeSet<LinkId>,
    ) -> Result<Task, KernelError> {
        let mut wanted: Vec<Wanted> = fresh
            .iter()
            .flat_map(|(_, _, wiring)| wiring.wanted.iter().cloned())
            .collect();
        wanted.extend(self.left_alone(scope));
        self.leftovers.hand_out(&mut wanted);
        let links = wanted
            .iter()
            .map(Wanted::link)
            .chain(ended.iter().copied())
            .collect();
        let opened = self.open_namespaces(places.iter())?;
        places.retain(|netns| *netns == Netns::Node || opened.contains(netns));
        let mut looks: BTreeMap<Netns, Look> = places
            .iter()
            .map(|netns| (netns.clone(), Look::All))
            .collect();
        let ends = WantedEnds::of(&wanted);
        let mut observed = self
            .kernel
            .observe(&looks, &|device| self.matters(device, &ends))?;

        let mut near: Vec<&Link> = fresh.iter().map(|(link, _, _)| link).collect();
        if matches!(scope, Scope::Sandboxes(_)) {
            let settled = planner::settled(&wanted, &observed, &places);
            near.retain(|link| !settled.contains(&link.id));
            for wanted in wanted
                .iter_mut()
                .filter(|wanted| settled.contains(&wanted.link()))
            {
                *wanted = Wanted::Frozen(wanted.link());
            }
        }
        near.extend(
            ended
                .iter()
                .filter_map(|id| self.links.get(*id))
                .map(|tracked| &tracked.link),
        );
        let mut more = self.look_at(&near);
        more.retain(|netns, _| !looks.contains_key(netns));
        let opened = self.open_namespaces(more.keys())?;
        more.retain(|netns, _| *netns == Netns::Node || opened.contains(netns));
        let ends = WantedEnds::of(&wanted);
        observed.extend(
            self.kernel
                .observe(&more, &|device| self.matters(device, &ends))?,
        );
        looks.extend(more);
        Ok(Task {
            wanted,
            links,
            places,
            looks,
            observed,
        })
    }

    /// Whether it matters what a device has: where it is to stay and is not known to be as wanted.
    fn matters(&self, device: &Observed, wanted: &WantedEnds<'_>) -> bool {
        let is_leaving = matches!(&device.netns, Netns::Sandbox(id) if self.is_leaving(id));
        !is_leaving && !wanted.has_complete(device)
    }

    /// Plans and executes.
    fn plan_and_execute(&mut self, task: Task) -> Result<Done, KernelError> {
        let Task {
            wanted,
            links,
            places,
            looks,
            mut observed,
        } = task;
        let plan_scope = PlanScope {
            links: &links,
            namespaces: &places,
        };
        let mut planned = planner::plan(&wanted, &observed, plan_scope);
        if !planned.replaced.is_empty() {
            // What users added to the devices that are to be replaced must be seen, settled or not,
            // and outlive us.
            observed = self.kernel.observe(&looks, &|_| true)?;
            planned = planner::plan(&wanted, &observed, plan_scope);
            self.leftovers.keep(&planned.replaced);
        }
        for step in &planned.steps {
            tracing::debug!(link = %step.link, operation = ?step.operation, "step");
        }
        let results = self.kernel.execute(&planned.steps);
        let looked_through = places.iter().filter_map(|netns| match netns {
            Netns::Sandbox(id) if self.is_leaving(id) => Some(id),
            _ => None,
        });
        let swept = looked_through
            .filter(|id| is_swept(id, &observed, &planned.steps, &results))
            .cloned()
            .collect();
        Ok(Done {
            plan: planned,
            results,
            swept,
        })
    }

    fn is_leaving(&self, id: &SandboxId) -> bool {
        self.sandboxes.get(id).is_some_and(|state| state.leaving)
    }

    /// The namespaces of which the scope is all that is there. Leaving sandboxes always are:
    /// whatever of ours they still have goes, whether its link is known or not.
    fn places_of(&self, scope: &Scope) -> BTreeSet<Netns> {
        let sandboxes_of = |pods: &BTreeSet<PodKey>, is_such: fn(&SandboxState) -> bool| {
            let states = pods
                .iter()
                .flat_map(|pod| self.sandboxes.of(pod))
                .filter(|state| is_such(state));
            states
                .map(|state| Netns::Sandbox(state.id.clone()))
                .collect()
        };
        match scope {
            Scope::Links(pods) => sandboxes_of(pods, |state| state.leaving),
            Scope::Sandboxes(pods) => sandboxes_of(pods, |_| true),
            Scope::Node(strays) if strays.is_empty() => BTreeSet::new(),
            Scope::Node(_) => [Netns::Node].into(),
        }
    }

    /// What is in the scope's namespaces without being about its links.
    fn left_alone(&self, scope: &Scope) -> Vec<Wanted> {
        match scope {
            Scope::Links(_) => Vec::new(),
            Scope::Sandboxes(_) => self.restored.wanted().collect(),
            Scope::Node(strays) => {
                let held = self
                    .links
                    .all()
                    .filter(|tracked| !strays.contains(&tracked.link.id));
                let held = held.filter(|tracked| tracked.wiring.parked().next().is_some());
                held.map(|tracked| Wanted::Frozen(tracked.link.id))
                    .chain(self.restored.wanted())
                    .collect()
            }
        }
    }

    /// The links of what is ours in the node's namespace and is no end that waits there for its
    /// pod.
    pub(super) fn strays(&self) -> Result<BTreeSet<LinkId>, KernelError> {
        let is_held = |device: &Observed, alias: &Alias| {
            let tracked = self.links.get(alias.link).into_iter();
            tracked
                .flat_map(|tracked| tracked.wiring.parked())
                .any(|parked| parked.alias == *alias && parked.name == device.name)
        };
        let devices = self
            .kernel
            .observe(&[(Netns::Node, Look::All)].into(), &|_| false)?;
        let strays = devices.iter().filter(|device| {
            device.is_ours()
                && !device
                    .alias
                    .as_ref()
                    .is_some_and(|alias| is_held(device, alias))
        });
        Ok(strays
            .map(|device| {
                device
                    .alias
                    .as_ref()
                    .map_or(LinkId::UNKNOWN, |alias| alias.link)
            })
            .collect())
    }

    /// Where devices of these links can be: at their places in all sandboxes of their pods, or
    /// parked.
    fn look_at(&self, links: &[&Link]) -> BTreeMap<Netns, Look> {
        let mut names: BTreeMap<Netns, BTreeSet<String>> = BTreeMap::new();
        for link in links {
            for end in End::BOTH {
                let endpoint = link.endpoint(end);
                names
                    .entry(Netns::Node)
                    .or_default()
                    .insert(wiring::parked_name(link.id, end));
                for state in self.sandboxes.of(&endpoint.pod) {
                    let netns = Netns::Sandbox(state.id.clone());
                    names
                        .entry(netns)
                        .or_default()
                        .insert(endpoint.interface.to_string());
                }
            }
        }
        names
            .into_iter()
            .map(|(netns, names)| (netns, Look::Names(names)))
            .collect()
    }

    /// Opens the namespaces of sandboxes until the command is dealt with; one that is gone is left
    /// out, which is as good as empty. One that cannot be opened for another reason may have
    /// anything in it.
    pub(super) fn open_namespaces<'n>(
        &mut self,
        netns: impl Iterator<Item = &'n Netns>,
    ) -> Result<BTreeSet<Netns>, KernelError> {
        let mut opened = BTreeSet::new();
        for netns in netns {
            let Netns::Sandbox(id) = netns else { continue };
            let Some(state) = self.sandboxes.get(id) else {
                continue;
            };
            match sandboxes::enter(&mut *self.kernel, state) {
                Ok(()) => drop(opened.insert(netns.clone())),
                Err(error) if error.is_netns_gone() => {
                    tracing::debug!(sandbox = %id, %error, "cannot enter")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(opened)
    }

    fn log_outcome(&self, link: &Link, wiring: &Wiring, failure: Option<&LinkFailure>) {
        let before = self.links.get(link.id);
        if before.is_some_and(|t| {
            t.wiring == *wiring && t.failure.as_ref() == failure && t.link == *link
        }) {
            return;
        }
        let name = super::report::name(link);
        for warning in &link.warnings {
            tracing::warn!(link = %link.id, name, warning, "link");
        }
        match (failure, &wiring.obstacle) {
            (Some(failure), _) => {
                tracing::error!(
                    link = %link.id, name, reason = failure.text,
                    "link cannot be made"
                );
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

/// Whether everything of ours that was seen in a sandbox, all of which was looked at, has been
/// taken out of it.
fn is_swept(
    id: &SandboxId,
    observed: &[Observed],
    steps: &[Step],
    results: &[Result<(), KernelError>],
) -> bool {
    let done = steps
        .iter()
        .zip(results)
        .filter(|(_, result)| result.is_ok())
        .map(|(step, _)| &step.operation);
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
            "interface {} exists in {} and was not made by Ratchet; it stays untouched: remove or \
             rename it, or give the link another interface",
            conflict.at.name, conflict.at.netns
        );
        failures
            .entry(conflict.link)
            .or_insert(failure(text, &conflict.at, true));
    }
    for (step, result) in plan.steps.iter().zip(results) {
        if let Err(error) = result
            && !matches!(error, KernelError::Skipped)
        {
            failures
                .entry(step.link)
                .or_insert_with(|| match place_of(step) {
                    Some(at) => failure(error.to_string(), at, false),
                    None => LinkFailure {
                        text: error.to_string(),
                        sandbox: None,
                        conflict: false,
                    },
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
    LinkFailure {
        text,
        sandbox,
        conflict,
    }
}

/// The device that a step is about; none for a pair, which is about two.
fn place_of(step: &Step) -> Option<&At> {
    match &step.operation {
        Operation::CreateVeth { .. } => None,
        operation => operation.devices().next_back(),
    }
}
