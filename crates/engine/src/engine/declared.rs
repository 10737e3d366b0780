//! Running pods: their links follow their declarations, and their users hear of what is wrong.

use std::time::{Duration, Instant};

use ratchet_model::{
    DeclaredLink, PodKey, Reason,
    declaration::{Accept, Declaration},
    resolve::Link,
};

use super::{Engine, command::Declared};
use crate::{
    retry::Tried,
    sandboxes,
    state::SandboxState,
    wires::{self, Scope},
};

/// How long a link may wait for its peer before that is worth an event.
const LONG: Duration = Duration::from_secs(60);

impl Engine {
    /// The labels or annotations of a running pod may have changed: its links follow.
    pub(super) fn declared(&mut self, declared: &Declared) {
        let of_pod =
            |state: &&SandboxState| !state.leaving && state.kubernetes == declared.kubernetes;
        let Some(state) = self
            .sandboxes
            .all()
            .filter(of_pod)
            .max_by_key(|state| state.created)
            .cloned()
        else {
            self.unwritten.remove(&declared.kubernetes);
            return;
        };
        let Some((links, accept)) = self.declaration_of(&state, declared) else {
            return;
        };
        // Only now: one that is wrong leaves the one before it, which may not be written down yet.
        self.unwritten.remove(&declared.kubernetes);
        let now = self.clock.unix_nanos();
        let Some(next) = sandboxes::redeclared(&state, links, accept, now) else {
            return;
        };
        let count = next.links.len();
        tracing::info!(pod = %state.pod, links = count, "the pod's declaration has changed");
        let (pod, id) = (state.pod.clone(), state.id.clone());
        let has_other_terms = next.accept != state.accept;
        if let Err(error) = self.sandboxes.save(next) {
            tracing::error!(
                sandbox = %id, %error,
                "cannot write the state of the sandbox; its links stay until that works"
            );
            let key = declared.kubernetes.clone();
            self.unwritten.insert(key, declared.clone());
            return self.schedule.retry(self.clock.now());
        }
        if has_other_terms {
            // At once, however long the store takes.
            self.sandboxes.set_unsaid(&pod);
            let reconciled = self.reconcile(&Scope::Links([pod.clone()].into()));
            self.expect_retry(reconciled);
        }
        self.refresh_and_reconcile([pod].into());
        self.tell();
    }

    /// The store says what a pod of this node declares; what follows for links is up to the caller.
    pub(super) fn take_declaration(&mut self, declaration: Declaration) -> Tried {
        let Declaration { pod, links, accept } = declaration;
        let now = self.clock.unix_nanos();
        let state = self.sandboxes.current(&pod);
        let next = state.and_then(|state| sandboxes::redeclared(state, links, accept, now));
        let Some(next) = next else {
            return Ok(());
        };
        tracing::info!(%pod, links = next.links.len(), "the pod's Links have changed");
        self.sandboxes.save_or_retry(next)
    }

    /// The links that a running pod declares now, and what it accepts. None if that cannot count:
    /// its user is told.
    fn declaration_of(
        &mut self,
        state: &SandboxState,
        declared: &Declared,
    ) -> Option<(Vec<DeclaredLink>, Option<Accept>)> {
        let read = if state.use_labels {
            &declared.with_labels
        } else {
            &declared.annotations_only
        };
        match read {
            Ok(Some(declaration)) if declaration.pod == state.pod => {
                let links = self.links_or_those_before(state, &declaration.links);
                Some((links, declaration.accept.clone()))
            }
            Ok(None) => Some((Vec::new(), None)),
            Ok(Some(declaration)) => {
                let reason = Reason::PodRenamed {
                    from: state.pod.clone(),
                    to: declaration.pod.clone(),
                };
                self.warn(&state.kubernetes, &reason, &reason.to_string());
                None
            }
            Err(error) => {
                tracing::warn!(
                    pod = %state.pod, %error,
                    "the pod's declaration has changed and is wrong; its links stay"
                );
                self.warn(&state.kubernetes, &error.reason, &error.to_string());
                None
            }
        }
    }

    /// The links that a running pod declares now, or those that it has if a VNI among them cannot
    /// be declared: its user is told.
    fn links_or_those_before(
        &mut self,
        state: &SandboxState,
        links: &[DeclaredLink],
    ) -> Vec<DeclaredLink> {
        match self.refuse_vnis(&state.pod, &state.links, links) {
            None => links.to_vec(),
            Some((reason, text)) => {
                tracing::warn!("{text}; the links that the pod has stay");
                self.warn(&state.kubernetes, &reason, &text);
                state.links.clone()
            }
        }
    }

    /// What is wrong with VNIs in a declaration, if anything is. Those that the sandbox declared
    /// before it may go on to declare.
    pub(super) fn refuse_vnis(
        &self,
        pod: &PodKey,
        before: &[DeclaredLink],
        after: &[DeclaredLink],
    ) -> Option<(Reason, String)> {
        let had = |link: &DeclaredLink| {
            let mut before = before.iter();
            before.any(|had| had.id() == link.id() && had.vni == link.vni)
        };
        let mut new = after.iter().filter(|link| !had(link));
        new.find_map(|link| {
            let reason = self.node.refuse_vni(link.vni?)?;
            let text = format!("pod {pod}: link {}: {reason}", link.local.interface);
            Some((reason, text))
        })
    }

    /// Tries once more what could not be written down. The API does not tell of it again.
    pub(super) fn declare_again(&mut self) {
        for declared in std::mem::take(&mut self.unwritten).into_values() {
            self.declared(&declared);
        }
    }

    /// Tells the users of a link's pods on this node what they have to fix.
    pub(super) fn warn_pods(&mut self, link: &Link, reason: &Reason) {
        let text = format!("link {}: {reason}", wires::name(link));
        for pod in link.audience() {
            self.warn_pod(pod, reason, &text);
        }
    }

    fn warn_pod(&mut self, pod: &PodKey, reason: &Reason, text: &str) {
        let current = self.sandboxes.current(pod);
        if let Some(kubernetes) = current.map(|state| state.kubernetes.clone()) {
            self.warn(&kubernetes, reason, text);
        }
    }

    fn warn(&mut self, kubernetes: &(String, String), reason: &Reason, text: &str) {
        let now = self.clock.now();
        self.events.warn(kubernetes, reason, text, now);
    }

    /// When a link will have waited for long without a warning; `None` while no warning would
    /// reach its user.
    pub(super) fn next_warning(&self) -> Option<Instant> {
        if !self.events.is_online() {
            return None;
        }
        self.wires.waiting_since().map(|since| since + LONG)
    }

    /// Warns, once, of links that have waited for their peer for long.
    pub(super) fn warn_of_what_takes_long(&mut self) {
        while self
            .next_warning()
            .is_some_and(|due| due <= self.clock.now())
            && let Some((link, reason)) = self.wires.take_longest_waiting()
        {
            self.warn_pods(&link, &reason);
        }
    }
}

#[cfg(test)]
mod tests;
