//! Two pods that say the same name (`ratchet.pod_name`): it belongs to the one that lives with it.
//! The other one's links wait, and it changes nothing of the first one's.
//! docs/decisions/0039-a-name-belongs-to-the-pod-that-lives.md says why.

use ratchet_model::{
    DeclaredEnd, DeclaredLink, Mac, NodeName, PodKey, PodRecord, Reason, SandboxId, link::End,
};
use ratchet_protocol::{EndReport, LinkReport, LinkState, ReasonReport};

use super::Engine;
use crate::{retry::Tried, state::SandboxState};

impl Engine {
    /// Decides which pods of this node have a name and which wait for it: the name belongs to the
    /// pod that lives with it by the store, and if there is none, to the first one here.
    pub(super) fn settle_name(&mut self, pod: &PodKey) -> Tried {
        let node = self.node.name()?.clone();
        let staying = || self.sandboxes.of(pod).filter(|state| !state.leaving);
        let said = self.session.known().record(pod);
        let holder = said.and_then(PodRecord::holder);
        let holder = holder.map(|(owner, node)| (owner.to_owned(), node.clone()));
        let first = staying().min_by_key(|state| (state.held_by.is_some(), state.created));
        let first = first.map(|state| (state.kubernetes.1.clone(), node));
        let is_unknown = said.is_some_and(|said| said.location.is_some() && said.owner.is_none());
        let Some(holder) = holder.or(first.filter(|_| !is_unknown)) else {
            return Ok(());
        };
        let change = |state: &SandboxState| {
            let held_by = Some(&holder).filter(|(owner, _)| *owner != state.kubernetes.1);
            (state.held_by.as_ref() != held_by).then(|| (state.id.clone(), held_by.cloned()))
        };
        let changes: Vec<_> = staying().filter_map(change).collect();
        for (id, held_by) in changes {
            self.hold(&id, held_by)?;
        }
        Ok(())
    }

    /// Notes which other pod has the name of a sandbox's pod, or that none has.
    pub(super) fn hold(&mut self, id: &SandboxId, by: Option<(String, NodeName)>) -> Tried {
        let Some(state) = self.sandboxes.get(id).cloned() else {
            return Ok(());
        };
        let state = SandboxState {
            held_by: by,
            ..state
        };
        self.warn_of_holder(&state);
        self.sandboxes.save_or_retry(state)
    }

    /// Tells of a sandbox whose pod's name another pod has.
    pub(super) fn warn_of_holder(&mut self, state: &SandboxState) {
        let Some(reason) = reason(state) else { return };
        let (pod, kubernetes) = (&state.pod, &state.kubernetes);
        tracing::warn!(%pod, name = kubernetes.1, %reason, "the pod's links wait");
        let (text, now) = (reason.to_string(), self.clock.now());
        self.events.warn(kubernetes, &reason, &text, now);
    }
}

/// Why a sandbox has no links, if another pod has its name.
pub(super) fn reason(state: &SandboxState) -> Option<Reason> {
    let (owner, node) = state.held_by.clone()?;
    let pod = state.pod.clone();
    Some(Reason::NameHeld { pod, owner, node })
}

/// The links that a sandbox's pod declares, if another pod has its name.
pub(super) fn report(state: &SandboxState) -> Vec<LinkReport> {
    let Some(reason) = reason(state) else {
        return Vec::new();
    };
    let report_end = |link: &DeclaredLink, which: End, end: &DeclaredEnd| EndReport {
        pod: end.pod.clone(),
        interface: end.interface.clone(),
        addresses: end.addresses.clone().unwrap_or_default(),
        mac: end.mac.unwrap_or_else(|| Mac::derive(link.id(), which)),
        node: None,
    };
    let report = |link: &DeclaredLink| {
        let ends = link.ends();
        LinkReport {
            id: link.id(),
            a: report_end(link, End::A, ends[0]),
            z: report_end(link, End::Z, ends[1]),
            kind: None,
            vni: None,
            mtu: None,
            state: LinkState::Pending,
            reason: Some(reason.to_string()),
            reason_details: Some(ReasonReport::from(&reason)),
            warnings: Vec::new(),
            warning_details: Vec::new(),
            declared_by: vec![state.pod.clone()],
        }
    };
    state.links.iter().map(report).collect()
}
