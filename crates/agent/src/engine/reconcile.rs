//! Reconcile: the one call that everything ends in.
//!
//! From facts and sandboxes to wanted devices, from these and the observed ones to a plan, and the plan carried out. All
//! decisions are the model's; here they are only brought together with what was read.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Instant,
};

use ratchet_kernel::{KernelError, Look};
use ratchet_model::{
    LinkId, NodeName, PodKey, SandboxId,
    device::{Alias, At, Netns, Observed, Operation, Step, Wanted, WantedEnd},
    link::End,
    planner::{self, Plan, Scope},
    resolve::{Link, resolve},
    wiring::{self, Node, Obstacle, Place, VniState, Wiring},
};
use ratchet_store::{Change, Interest, Publish, Published, VniClaim, VniGrant};

use super::{Engine, LinkFailure, Tracked, sandboxes};

/// How much a reconcile looks at.
pub(super) enum Extent {
    /// All links, and whatever else of ours is found.
    Everything,
    /// The links of these pods.
    Pods(BTreeSet<PodKey>),
}

impl Engine {
    /// Reads what the store says about this node's pods (some of them, or all), puts right what it should say, and tells the
    /// watch what to listen for. Gives whether it worked.
    pub(super) fn refresh_facts(&mut self, pods: Option<&BTreeSet<PodKey>>) -> bool {
        let own = match pods {
            Some(pods) => pods.iter().filter(|pod| self.sandboxes.has(pod)).cloned().collect(),
            None => self.sandboxes.pods(),
        };
        let everything = pods.is_none();
        if own.is_empty() && !everything {
            let gone: Vec<PodKey> = pods.into_iter().flatten().cloned().collect();
            self.forget_pods(&gone);
            return true;
        }
        let store = match self.store() {
            Ok(store) => store,
            Err(failure) => {
                tracing::warn!(%failure, "the store cannot be used");
                return false;
            }
        };
        match self.runtime.block_on(store.read(&own)) {
            Ok(facts) => {
                let sandboxes = &self.sandboxes;
                let lives_here = |pod: &PodKey| sandboxes.current(pod).is_some();
                self.known.merge(&own, facts, |pod| sandboxes.has(pod), lives_here);
                self.informed |= everything;
                self.store_trouble = None;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the store");
                self.store_failed(&error);
                return false;
            }
        }
        let published = own.iter().fold(true, |done, pod| done & self.uphold_record(pod));
        self.tell_interest();
        published
    }

    /// Makes the store say of a pod what is so here; or learns that the pod lives elsewhere by now.
    fn uphold_record(&mut self, pod: &PodKey) -> bool {
        let Ok(effective) = self.effective().cloned() else { return false };
        let living: Vec<_> = self.sandboxes.of(pod).filter(|state| !state.leaving).cloned().collect();
        let Some(latest) = living.iter().max_by_key(|state| (state.created, state.id.clone())) else { return true };
        let ours = sandboxes::record(latest, &effective);
        let said = self.known.record(pod);
        if said == Some(&ours) {
            self.sandboxes.supersede(&latest.id, false);
            return true;
        }
        let elsewhere = said.is_some_and(|said| said.created > ours.created && said.sandbox() != Some(&latest.id));
        let published = if elsewhere {
            Ok(Published::Superseded)
        } else {
            let Ok(store) = self.store() else { return false };
            self.runtime.block_on(store.publish(&ours, Publish::Again))
        };
        match published {
            Ok(Published::Stored { created }) => {
                self.sandboxes.supersede(&latest.id, false);
                self.known.set(pod, Some(ratchet_model::PodRecord { created, ..ours }));
                true
            }
            Ok(Published::Superseded) => {
                tracing::warn!(%pod, sandbox = %latest.id, "the pod has a later sandbox on another node; this one is left alone");
                for state in &living {
                    self.sandboxes.supersede(&state.id, true);
                }
                true
            }
            Err(error) => {
                tracing::warn!(%pod, %error, "cannot publish the pod's location");
                self.store_failed(&error);
                false
            }
        }
    }

    /// Pods that have no sandbox here any more are of interest only as far as they are neighbours.
    pub(super) fn forget_pods(&mut self, pods: &[PodKey]) {
        for pod in pods {
            let around: Vec<PodKey> = self.known.neighbours(pod).into_iter().chain([pod.clone()]).collect();
            for other in around {
                let concerns =
                    self.sandboxes.has(&other) || self.known.neighbours(&other).iter().any(|n| self.sandboxes.has(n));
                if !concerns {
                    self.known.set(&other, None);
                }
            }
        }
        self.tell_interest();
    }

    fn tell_interest(&self) {
        let own = self.sandboxes.pods();
        let peers = own.iter().flat_map(|pod| self.known.neighbours(pod)).filter(|pod| !own.contains(pod)).collect();
        let interest = Interest { own, peers };
        self.interest.send_if_modified(|current| {
            let changed = *current != interest;
            *current = interest.clone();
            changed
        });
    }

    /// The store has news.
    pub(super) fn changed(&mut self, change: Change) {
        let pods = match change {
            Change::All => return self.look_at_everything(),
            Change::Pods(pods) => pods,
        };
        let concerned: BTreeSet<PodKey> = pods
            .iter()
            .flat_map(|pod| self.known.neighbours(pod).into_iter().chain([pod.clone()]))
            .filter(|pod| self.sandboxes.has(pod))
            .collect();
        if concerned.is_empty() {
            return;
        }
        let read = self.refresh_facts(Some(&concerned));
        if !(read & self.reconcile(&Extent::Pods(concerned))) {
            self.look_again_soon();
        }
        self.tell();
    }

    /// Makes the kernel match what is known. Gives whether all of it worked.
    pub(super) fn reconcile(&mut self, extent: &Extent) -> bool {
        if !self.informed && matches!(extent, Extent::Everything) {
            // Not knowing what is wanted, everything there stays.
            return false;
        }
        let Ok(effective) = self.effective().cloned() else { return false };
        let candidates = self.candidates(extent);
        let vnis_claimed = self.claim_vnis(&candidates);

        let mut ended: BTreeSet<LinkId> =
            self.links.iter().filter(|(_, tracked)| extent.covers(&tracked.link)).map(|(id, _)| *id).collect();
        let mut fresh: Vec<(Link, [Option<NodeName>; 2], Wiring)> = Vec::new();
        for link in candidates {
            let places = self.places(&link);
            let vni = self.vni_state(&link);
            let wiring = wiring::direct(&link, &places, vni, &effective.node);
            let nodes = places_nodes(&places, &effective.node);
            if wiring.wanted.is_some() {
                ended.remove(&link.id);
                let unchanged = self.links.get_mut(&link.id).is_some_and(|tracked| {
                    let unchanged = tracked.wiring == wiring && tracked.failure.is_none();
                    // What is only reported may change without any work.
                    tracked.link.clone_from(&link);
                    tracked.nodes.clone_from(&nodes);
                    unchanged
                });
                if unchanged && matches!(extent, Extent::Pods(_)) {
                    continue;
                }
                fresh.push((link, nodes, wiring));
            }
        }
        let worked = self.carry_out(extent, &mut fresh, &ended);
        self.known.forget_vnis(&ended);
        for id in &ended {
            self.links.remove(id);
        }
        worked & vnis_claimed
    }

    /// The links to look at, as they are declared.
    fn candidates(&self, extent: &Extent) -> Vec<Link> {
        let links = match extent {
            Extent::Everything => resolve(self.known.all()),
            Extent::Pods(pods) => resolve(&self.known.around(pods)),
        };
        links.into_iter().filter(|link| extent.covers(link)).collect()
    }

    fn places(&self, link: &Link) -> [Place; 2] {
        End::BOTH.map(|end| self.place(&link.endpoint(end).pod))
    }

    fn place(&self, pod: &PodKey) -> Place {
        if let Some(state) = self.sandboxes.current(pod) {
            return Place::Here(state.id.clone());
        }
        let Some(record) = self.known.record(pod) else { return Place::Unknown };
        let Some(location) = &record.location else { return Place::Gone };
        if self.sandboxes.get(&location.sandbox).is_some() {
            // It is on its way out; the store will hear of it.
            return Place::Gone;
        }
        let here = self.effective.as_ref().is_ok_and(|effective| effective.node.name == location.node);
        if here {
            Place::Lost(location.sandbox.clone())
        } else {
            Place::There { node: location.node.clone(), vtep: location.vtep, mtu: location.mtu }
        }
    }

    fn vni_state(&self, link: &Link) -> VniState {
        match (self.known.vni(link.id), self.taken_vnis.get(&link.id)) {
            (Some(vni), _) => VniState::Granted(vni),
            (None, Some((vni, owner))) => VniState::TakenBy(*vni, *owner),
            (None, None) => VniState::None,
        }
    }

    /// Sees to it that every link between two nodes has a VNI.
    fn claim_vnis(&mut self, links: &[Link]) -> bool {
        let claims: Vec<VniClaim> = links
            .iter()
            .filter(|link| self.known.vni(link.id).is_none() && wiring::needs_vni(link, &self.places(link)))
            .map(|link| VniClaim { link: link.id, fixed: link.vni.or(self.known.former_vni(link.id)) })
            .collect();
        self.claim(claims, links)
    }

    fn claim(&mut self, claims: Vec<VniClaim>, links: &[Link]) -> bool {
        if claims.is_empty() {
            return true;
        }
        let mut without_former = Vec::new();
        let Ok(store) = self.store() else { return false };
        match self.runtime.block_on(store.claim_vnis(&claims)) {
            Ok(grants) => {
                for (link, grant) in grants {
                    self.taken_vnis.remove(&link);
                    match grant {
                        VniGrant::Granted(vni) => self.known.set_vni(link, vni),
                        VniGrant::TakenBy(_) if links.iter().any(|l| l.id == link && l.vni.is_none()) => {
                            self.known.forget_former_vni(link);
                            without_former.push(VniClaim { link, fixed: None });
                        }
                        VniGrant::TakenBy(owner) => {
                            let fixed = claims.iter().find(|claim| claim.link == link).and_then(|claim| claim.fixed);
                            self.taken_vnis.extend(fixed.map(|vni| (link, (vni, owner))));
                        }
                        VniGrant::Exhausted => tracing::error!(%link, "all VNIs are taken"),
                    }
                }
                self.claim(without_former, links)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot claim VNIs");
                self.store_failed(&error);
                false
            }
        }
    }

    /// Observes, plans, executes, and notes what came of it.
    fn carry_out(
        &mut self,
        extent: &Extent,
        fresh: &mut Vec<(Link, [Option<NodeName>; 2], Wiring)>,
        ended: &BTreeSet<LinkId>,
    ) -> bool {
        let wanted: Vec<Wanted> = fresh.iter().filter_map(|(_, _, wiring)| wiring.wanted.clone()).collect();
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
        let outcome = self.plan_and_execute(extent, &wanted, &looks, links, &leaving);
        for netns in &opened {
            if let Netns::Sandbox(id) = netns {
                self.kernel.forget(id);
            }
        }
        let (plan, results) = match outcome {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "cannot see what is in the kernel");
                return false;
            }
        };
        self.announcements.note(&plan.steps, &results);
        let failures = failures(&plan, &results);
        let worked = failures.is_empty();
        for (link, nodes, wiring) in fresh.drain(..) {
            let failure = failures.get(&link.id).cloned();
            self.log_outcome(&link, &wiring, failure.as_ref());
            let before = self.links.get(&link.id).filter(|before| before.wiring.obstacle == wiring.obstacle);
            let since = before.map_or_else(Instant::now, |before| before.since);
            self.links.insert(link.id, Tracked { link, wiring, failure, since, nodes });
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
    ) -> Result<(Plan, Vec<Result<(), KernelError>>), KernelError> {
        let mut observed = self.kernel.observe(looks, &settled(wanted))?;
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
            observed = self.kernel.observe(looks, &HashSet::new())?;
            planned = plan(&observed, &mut links);
        }
        for step in &planned.steps {
            tracing::debug!(link = %step.link, operation = ?step.operation, "step");
        }
        let results = self.kernel.execute(&planned.steps);
        Ok((planned, results))
    }

    /// The sandboxes that are leaving and within the extent.
    fn leaving_of(&self, extent: &Extent) -> BTreeSet<SandboxId> {
        self.sandboxes
            .all()
            .filter(|state| state.leaving)
            .filter(|state| match extent {
                Extent::Everything => true,
                Extent::Pods(pods) => pods.contains(&state.pod),
            })
            .map(|state| state.id.clone())
            .collect()
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
        let ended = ended.iter().filter_map(|id| self.links.get(id)).map(|tracked| &tracked.link);
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

    /// Opens the namespaces of sandboxes for as long as the work takes; one that is gone is left out, which is as good as empty.
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
        let before = self.links.get(&link.id);
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

impl Extent {
    fn covers(&self, link: &Link) -> bool {
        match self {
            Extent::Everything => true,
            Extent::Pods(pods) => pods.contains(&link.a.pod) || pods.contains(&link.z.pod),
        }
    }
}

fn places_nodes(places: &[Place; 2], node: &Node) -> [Option<NodeName>; 2] {
    [&places[0], &places[1]].map(|place| match place {
        Place::Here(_) | Place::Lost(_) => Some(node.name.clone()),
        Place::There { node, .. } => Some(node.clone()),
        Place::Gone | Place::Unknown => None,
    })
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
        Operation::CreateVxlan { birth, .. } => Some(&birth.at),
        Operation::Delete(at)
        | Operation::Move { to: at, .. }
        | Operation::Retarget { at, .. }
        | Operation::SetMac(at, _)
        | Operation::SetMtu(at, _)
        | Operation::SetUp(at, _)
        | Operation::AddAddress(at, _)
        | Operation::RemoveAddress(at, _)
        | Operation::AddRoute(at, _)
        | Operation::RemoveRoute(at, _)
        | Operation::RestoreAddress(at, _)
        | Operation::AnnounceAddress(at, _)
        | Operation::RestoreRoute(at, _)
        | Operation::Begin(at, _)
        | Operation::Commit(at, _) => Some(at),
    }
}
