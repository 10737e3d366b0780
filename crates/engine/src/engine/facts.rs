//! What the store says of this node's pods: read, corrected where it is this node's to say, and
//! listened for.
//!
//! What follows from new facts is for [`Engine::reconcile`].

use std::collections::{BTreeMap, BTreeSet};

use ratchet_kernel::Look;
use ratchet_model::{
    PodKey, PodRecord, Vni,
    device::{Kind, Netns, Observed},
};
use ratchet_store::{Change, Publish, Published};

use super::Engine;
use crate::{
    retry::{self, Retry, Tried},
    sandboxes,
    state::SandboxState,
    wires::Scope,
};

impl Engine {
    /// Reads what the store says about these pods, as far as they are this node's, corrects what
    /// it should say, and tells the watch what to listen for. With no pods it only probes the
    /// store.
    pub(super) fn refresh_facts(&mut self, pods: &BTreeSet<PodKey>) -> Tried {
        let is_own = |pod: &&PodKey| self.sandboxes.has(pod);
        let own: BTreeSet<PodKey> = pods.iter().filter(is_own).cloned().collect();
        if own.is_empty() && !pods.is_empty() {
            self.session.forget_pods(pods, &self.sandboxes);
            return Ok(());
        }
        let mut around = self.session.known().with_neighbours(&own);
        self.read_facts(&own)?;
        if own.iter().any(|pod| self.counts_as_gone(pod)) {
            // Others have taken this node for dead, or the store has forgotten it: that it lives is
            // said first.
            self.register_node()?;
            self.session.doubt_held();
        }
        let published = retry::all(own.iter().map(|pod| self.correct_record(pod)));
        around.extend(self.session.known().with_neighbours(&own));
        self.session.update_interest(&around, &self.sandboxes);
        published
    }

    /// Whether a pod that lives here has gone, as far as the store says.
    fn counts_as_gone(&self, pod: &PodKey) -> bool {
        let said = self.session.known().record(pod);
        self.sandboxes.current(pod).is_some() && said.is_none_or(|said| !said.lives())
    }

    /// Reads what the store says about pods of this node, and nothing more.
    pub(super) fn read_facts(&mut self, own: &BTreeSet<PodKey>) -> Tried {
        let news = self.session.read(own, &self.sandboxes)?;
        for declaration in news.declared.into_iter().flat_map(BTreeMap::into_values) {
            self.take_declaration(declaration)?;
        }
        self.restore_from_devices(&news.forgotten)
    }

    /// The store does not say of these pods that they are here, and they were before this agent
    /// was: looks at what they have.
    fn restore_from_devices(&mut self, forgotten: &BTreeSet<PodKey>) -> Tried {
        if forgotten.is_empty() {
            return Ok(());
        }
        let devices = self.devices_of(forgotten)?;
        let found = devices.into_iter().filter_map(|device| {
            let alias = device.alias?;
            let vni = match device.kind {
                Kind::Vxlan { vni, .. } => Vni::try_from(vni).ok(),
                _ => None,
            };
            Some((alias.link, alias.sandbox?, vni))
        });
        self.session.restore(found.collect());
        Ok(())
    }

    /// If more links are declared than there may be devices: counts those that an agent before this
    /// one has made, so that no link that waited takes their place.
    pub(super) fn count_devices(&mut self) -> Tried {
        let pods = self.sandboxes.pods();
        let known = self.session.known();
        let at_most: usize = pods.iter().map(|pod| known.links_with(pod)).sum();
        if at_most <= self.node.max_devices() {
            return Ok(());
        }
        let devices = self.devices_of(&pods)?;
        let links = devices.into_iter().filter_map(|device| device.alias);
        self.wires.set_found(links.map(|alias| alias.link));
        Ok(())
    }

    /// The devices in the sandboxes of these pods.
    fn devices_of(&mut self, pods: &BTreeSet<PodKey>) -> Tried<Vec<Observed>> {
        let current = pods.iter().filter_map(|pod| self.sandboxes.current(pod));
        let namespaces: Vec<Netns> = current
            .map(|state| Netns::Sandbox(state.id.clone()))
            .collect();
        let entered = self.sandboxes.enter(&mut *self.kernel, namespaces.iter())?;
        let looks = entered
            .into_iter()
            .map(|netns| (netns, Look::All))
            .collect();
        Ok(self.kernel.observe(&looks, &|_| false)?)
    }

    /// Makes the store say of a pod what is so here; or finds out that the pod has a later sandbox
    /// elsewhere.
    pub(super) fn correct_record(&mut self, pod: &PodKey) -> Tried {
        let node = self.node.wiring()?;
        self.settle_name(pod)?;
        let living: Vec<_> = self
            .sandboxes
            .of(pod)
            .filter(|state| !state.leaving && state.held_by.is_none())
            .cloned()
            .collect();
        let latest = living.iter().max_by_key(|state| (state.created, &state.id));
        let Some(latest) = latest else {
            return Ok(());
        };
        let mut ours = sandboxes::record(latest, &node, self.node.terms());
        let said = self.session.known().record(pod);
        if let Some(said) = said.filter(|said| said.sandbox() == Some(&latest.id)) {
            ours.created = ours.created.max(said.created);
        }
        if said == Some(&ours) && ours.location.is_some() {
            self.sandboxes.supersede(&latest.id, false);
            self.sandboxes.set_said(pod);
            return Ok(());
        }
        let is_elsewhere = said.is_some_and(|said| {
            let sandbox = said.sandbox();
            sandbox.is_some_and(|id| (said.created, id) > (ours.created, &latest.id))
        });
        let published = if is_elsewhere {
            Published::Superseded
        } else if ours.location.is_none() {
            // What it declares counts on this node all the same.
            self.session.set_record(ours);
            return Err(self.no_underlay());
        } else {
            self.session.publish(&ours, Publish::Again)?
        };
        match published {
            Published::Stored { created } => {
                self.sandboxes.supersede(&latest.id, false);
                self.sandboxes.set_said(pod);
                self.session.set_record(PodRecord { created, ..ours });
            }
            Published::Held { owner, node } => {
                for state in living {
                    self.hold(&state.id, Some((owner.clone(), node.clone())))?;
                }
            }
            Published::Superseded => self.leave_alone(&living),
        }
        Ok(())
    }

    /// The pod of these sandboxes has a later one on another node.
    fn leave_alone(&mut self, sandboxes: &[SandboxState]) {
        for state in sandboxes {
            tracing::warn!(
                pod = %state.pod, sandbox = %state.id,
                "the pod has a later sandbox on another node; this one is left alone"
            );
            self.sandboxes.supersede(&state.id, true);
        }
    }

    /// Why a location cannot be published.
    pub(super) fn no_underlay(&self) -> Retry {
        let starting = || {
            ratchet_protocol::Failure::new(
                ratchet_protocol::FailureKind::TryLater,
                "this node's underlay is not known yet",
            )
        };
        Retry::Node(self.node.failure().unwrap_or_else(starting))
    }

    /// Until the store has been read, what is known of this node's own pods is what is on disk:
    /// enough to tell which of their links are with each other, so that a DEL leaves the survivors
    /// theirs although the store is offline.
    pub(super) fn remember_own_pods(&mut self) {
        let Ok(node) = self.node.wiring() else {
            return;
        };
        if self.session.is_informed() {
            return;
        }
        for pod in self.sandboxes.pods() {
            if let Some(state) = self.sandboxes.current(&pod)
                && self.session.known().record(&pod).is_none()
            {
                let terms = self.node.terms();
                let record = sandboxes::record(state, &node, terms);
                self.session.set_record(record);
            }
        }
    }

    /// The store has news.
    pub(super) fn take_news(&mut self) {
        let pods = match self.session.take_news() {
            None => return,
            Some(Change::All) => {
                self.session.all_changed();
                return self.begin_resync();
            }
            Some(Change::Pods(pods)) => pods,
        };
        let mut concerned = self.session.known().with_neighbours(&pods);
        concerned.retain(|pod| self.sandboxes.has(pod));
        if concerned.is_empty() {
            return;
        }
        self.refresh_and_reconcile(concerned);
        self.tell();
    }

    /// Reads the facts about pods and reconciles their links; what fails is tried again.
    pub(super) fn refresh_and_reconcile(&mut self, pods: BTreeSet<PodKey>) {
        let read = self.refresh_facts(&pods);
        let reconciled = self.reconcile(&Scope::Links(pods));
        self.expect_retry(read.and(reconciled));
    }
}
