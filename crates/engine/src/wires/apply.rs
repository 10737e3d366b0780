//! The kernel's part of a reconcile: look, plan, execute, and note what came of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Instant,
};

use ratchet_kernel::KernelError;
use ratchet_model::{
    LinkId, Reason, SandboxId, Vni,
    device::{Netns, Observed, Operation, Step, Wanted},
    planner::{self, Plan, PlanScope},
    resolve::Link,
};

use super::{
    Wires,
    failure::{LinkFailure, failures},
    look::{self, Task},
    scope::Scope,
    settled::{Settled, deleted_vnis, settled},
    tracked::{Fresh, Tracked},
};
use crate::{
    kernel::Kernel,
    retry::{Retry, Tried},
    sandboxes::Sandboxes,
};

/// What to apply.
pub(crate) struct Request<'a> {
    /// What all of it is about.
    pub scope: &'a Scope,
    /// Links with what is wanted of them, as far as that must be looked at.
    pub fresh: Vec<Fresh>,
    /// Links that were dealt with before and are wanted no longer.
    pub ended: &'a BTreeSet<LinkId>,
    /// What else stays as it is in the scope's namespaces.
    pub kept: Vec<Wanted>,
}

/// What came of it.
pub(crate) struct Applied {
    /// What came of the links, of which each may have to be tried again. The outer error: the
    /// kernel could not be looked at.
    pub tried: Tried<Tried>,
    /// What users of a link's pods have to fix.
    pub warnings: Vec<(Link, Box<Reason>)>,
    /// Links with which all went well.
    pub settled: Vec<Settled>,
    /// Links whose VNI another device of this node has.
    pub taken: Vec<(Link, Vni)>,
    /// Whether links turned out to be wired in another way than was asked for. Nothing was done for
    /// them, and is to be done now.
    pub is_otherwise: bool,
}

impl Applied {
    fn new(tried: Tried<Tried>, warnings: Vec<(Link, Box<Reason>)>) -> Self {
        Self {
            tried,
            warnings,
            settled: Vec::new(),
            taken: Vec::new(),
            is_otherwise: false,
        }
    }
}

/// A plan and what came of it.
struct Done {
    plan: Plan,
    /// One a step.
    results: Vec<Result<(), KernelError>>,
    /// The leaving sandboxes of which nothing is left.
    swept: BTreeSet<SandboxId>,
    /// The VNIs of the tunnels that were deleted for certain, by link.
    deleted: BTreeMap<LinkId, BTreeSet<Vni>>,
    /// The links for which nothing was done, because they are wired in another way.
    otherwise: BTreeSet<LinkId>,
}

impl Wires {
    /// Makes the kernel have what is wanted, and notes what came of it.
    pub fn apply(
        &mut self,
        kernel: &mut dyn Kernel,
        sandboxes: &Sandboxes,
        mut request: Request<'_>,
        now: Instant,
    ) -> Applied {
        let (scope, ended) = (request.scope, request.ended);
        let is_empty = request.fresh.is_empty() && ended.is_empty();
        if is_empty && scope.namespaces(sandboxes).is_empty() {
            return Applied::new(Ok(Ok(())), Vec::new());
        }
        let done = self.look_and_execute(kernel, sandboxes, &request);
        let applied = match done {
            Ok(done) => {
                let is_done = |fresh: &Fresh| !done.otherwise.contains(&fresh.link.id);
                request.fresh.retain(is_done);
                self.take_results(sandboxes, request.fresh, ended, done, now)
            }
            Err(error) => self.take_blindness(request.fresh, error, now),
        };
        for id in ended {
            self.links.remove(*id);
            self.wired_otherwise.remove(id);
        }
        applied
    }

    fn look_and_execute(
        &mut self,
        kernel: &mut dyn Kernel,
        sandboxes: &Sandboxes,
        request: &Request<'_>,
    ) -> Result<Done, KernelError> {
        let fresh = request.fresh.iter();
        let mut wanted: Vec<Wanted> = fresh
            .flat_map(|fresh| fresh.wiring.wanted.iter().cloned())
            .chain(request.kept.iter().cloned())
            .collect();
        if let Scope::Node(strays) = request.scope {
            wanted.extend(self.held_besides(strays));
        }
        // Of a link that stays and has other pods now, what its former ones have goes.
        let fresh = request.fresh.iter().map(|fresh| &fresh.link);
        let replaced = fresh.filter_map(|link| self.links.replaced(link));
        let ended = request.ended.iter().filter_map(|id| self.links.get(*id));
        let ended = ended.map(|tracked| &tracked.link);
        let looked_for = look::Request {
            scope: request.scope,
            fresh: &request.fresh,
            ended: ended.chain(replaced).collect(),
            ended_ids: request.ended,
            wanted,
        };
        let mut task = look::look(kernel, sandboxes, looked_for, self.leftovers.kept())?;
        let built = planner::built(&task.wanted, &task.observed);
        let otherwise = self.note_built(&request.fresh, &task.wanted, &built);
        for object in &mut task.wanted {
            if otherwise.contains(&object.link()) {
                *object = Wanted::Frozen(object.link());
            }
        }
        let vnis = self.vnis_before(request);
        let done = self.plan_and_execute(kernel, sandboxes, task, &vnis)?;
        Ok(Done { otherwise, ..done })
    }

    /// The VNIs that these links had when they were last dealt with.
    fn vnis_before(&self, request: &Request<'_>) -> BTreeSet<Vni> {
        let fresh = request.fresh.iter().map(|fresh| fresh.link.id);
        fresh
            .chain(request.ended.iter().copied())
            .filter_map(|link| self.links.get(link)?.wiring.vni())
            .collect()
    }

    /// What links have in the node's namespace that are none of these.
    fn held_besides<'a>(
        &'a self,
        strays: &'a BTreeSet<LinkId>,
    ) -> impl Iterator<Item = Wanted> + 'a {
        self.links
            .all()
            .filter(|tracked| !strays.contains(&tracked.link.id))
            .filter(|tracked| tracked.wiring.wanted.iter().any(Wanted::is_on_node))
            .map(|tracked| Wanted::Frozen(tracked.link.id))
    }

    fn plan_and_execute(
        &mut self,
        kernel: &mut dyn Kernel,
        sandboxes: &Sandboxes,
        task: Task,
        vnis_before: &BTreeSet<Vni>,
    ) -> Result<Done, KernelError> {
        let Task {
            wanted,
            links,
            namespaces,
            looks,
            mut observed,
        } = task;
        let plan_scope = PlanScope {
            links: &links,
            namespaces: &namespaces,
        };
        let mut plan = planner::plan(&wanted, &observed, self.leftovers.kept(), plan_scope);
        if !plan.leftovers.remembered.is_empty() {
            // What users added to the devices that are to be replaced must be seen, settled or not,
            // and survive this process.
            observed = kernel.observe(&looks, &|_| true)?;
            plan = planner::plan(&wanted, &observed, self.leftovers.kept(), plan_scope);
            self.leftovers.remember(&plan.leftovers);
        }
        self.guard.before(kernel, &observed, &mut plan.steps);
        for step in &plan.steps {
            tracing::debug!(link = %step.link, operation = ?step.operation, "step");
        }
        let results = kernel.execute(&plan.steps);
        let is_done = |step: usize| results[step].is_ok();
        self.guard.after(
            kernel,
            (&observed[..], &plan.steps[..]),
            is_done,
            vnis_before,
        );
        let looked_through = namespaces.iter().filter_map(|netns| match netns {
            Netns::Sandbox(id) if sandboxes.is_leaving(id) => Some(id),
            _ => None,
        });
        let swept = looked_through
            .filter(|id| is_swept(id, &observed, &plan.steps, &results))
            .cloned()
            .collect();
        let deleted = deleted_vnis(sandboxes, &observed, &plan.steps, &results);
        Ok(Done {
            plan,
            results,
            swept,
            deleted,
            otherwise: BTreeSet::new(),
        })
    }

    fn take_results(
        &mut self,
        sandboxes: &Sandboxes,
        fresh: Vec<Fresh>,
        ended: &BTreeSet<LinkId>,
        done: Done,
        now: Instant,
    ) -> Applied {
        let failures = failures(&done.plan, &done.results);
        let settled = settled((&fresh, ended), &done.deleted, &failures);
        let vni_of = |fresh: &Fresh| {
            let failure = failures.get(&fresh.link.id)?;
            Some((fresh.link.clone(), failure.taken_vni?))
        };
        let taken = fresh.iter().filter_map(vni_of).collect();
        self.swept.extend(done.swept);
        self.announcements
            .note(&done.plan.steps, &done.results, now);
        self.leftovers.finish(
            &done.plan.leftovers,
            |link| failures.contains_key(&link),
            |left| sandboxes.get(&left.sandbox).is_some(),
        );
        let tried = match failures.values().next() {
            Some(failure) => Err(Retry::Kernel(failure.reason.to_string())),
            None => Ok(()),
        };
        Applied {
            settled,
            taken,
            is_otherwise: !done.otherwise.is_empty(),
            ..Applied::new(Ok(tried), self.note_all(fresh, &failures, now))
        }
    }

    /// The kernel could not be looked at: what is there is as it was, and what is new is not there
    /// yet.
    fn take_blindness(
        &mut self,
        mut fresh: Vec<Fresh>,
        error: KernelError,
        now: Instant,
    ) -> Applied {
        tracing::error!(%error, "cannot see what is in the kernel");
        fresh.retain(|fresh| {
            let before = self.links.get(fresh.link.id);
            before.is_none_or(|before| before.wiring != fresh.wiring)
        });
        let failure = LinkFailure::unseen(&error);
        let failures = fresh
            .iter()
            .map(|fresh| (fresh.link.id, failure.clone()))
            .collect();
        Applied::new(Err(error.into()), self.note_all(fresh, &failures, now))
    }

    /// Notes what came of links. Returns what users have to fix.
    fn note_all(
        &mut self,
        fresh: Vec<Fresh>,
        failures: &BTreeMap<LinkId, LinkFailure>,
        now: Instant,
    ) -> Vec<(Link, Box<Reason>)> {
        let mut warnings = Vec::new();
        for fresh in fresh {
            let failure = failures.get(&fresh.link.id).cloned();
            let before = self.links.get(fresh.link.id);
            if is_news(before, &fresh, failure.as_ref()) {
                let warning = log(&fresh, failure.as_ref());
                warnings.extend(warning.map(|reason| (fresh.link.clone(), reason)));
            }
            let same = before.filter(|before| before.wiring.obstacle == fresh.wiring.obstacle);
            let (since, told) = same.map_or((now, false), |before| (before.since, before.told));
            self.links.insert(Tracked {
                link: fresh.link,
                wiring: fresh.wiring,
                failure,
                since,
                told,
                nodes: fresh.nodes,
                devices: 0,
            });
        }
        warnings
    }
}

fn is_news(before: Option<&Tracked>, fresh: &Fresh, failure: Option<&LinkFailure>) -> bool {
    !before.is_some_and(|before| {
        before.wiring == fresh.wiring
            && before.failure.as_ref() == failure
            && before.link == fresh.link
    })
}

/// Logs what came of a link. Returns what users have to fix, if anything.
fn log(fresh: &Fresh, failure: Option<&LinkFailure>) -> Option<Box<Reason>> {
    let (link, name) = (&fresh.link, super::name(&fresh.link));
    for warning in &link.warnings {
        tracing::warn!(link = %link.id, name, %warning, "link");
    }
    let failed = failure.map(|failure| &failure.reason);
    match failed.or(fresh.wiring.obstacle.as_ref()) {
        Some(reason) if reason.is_waiting() => {
            tracing::info!(link = %link.id, name, %reason, "link is pending");
            None
        }
        Some(reason) => {
            tracing::error!(link = %link.id, name, %reason, "link cannot be made");
            Some(reason.clone())
        }
        None => {
            tracing::info!(link = %link.id, name, "link is up");
            None
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
        .filter(|(_, result)| result.is_ok());
    let taken: HashSet<&str> = done
        .filter_map(|(step, _)| match &step.operation {
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

#[cfg(test)]
mod tests;
