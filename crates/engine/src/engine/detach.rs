//! Detach and collect: a sandbox goes.
//!
//! All of it can be repeated at any point, and all of it succeeds when there is nothing left to do.

use std::collections::BTreeSet;

use ratchet_kernel::Look;
use ratchet_model::{
    LinkId, SandboxId,
    device::{LinkKind, Netns, Operation, Step},
    planner::MOVE_LIMIT,
};
use ratchet_protocol::{Collect, Detach, Failure, FailureKind, Reply};

use super::{Answer, Engine};
use crate::{
    retry::{self, Retry, Tried},
    sandboxes::{self, enter},
    state::SandboxState,
    wires::{Scope, Tracked},
};

impl Engine {
    /// Whether to wait a moment for the detaches of the pods at the other ends: when a topology
    /// goes they all come at once, and links that both ends leave are deleted once, instead of
    /// first being taken from the one and then from the other.
    pub(super) fn is_worth_waiting_for_more(&self, detach: &Detach) -> bool {
        let Some(state) = self.sandboxes.get(&detach.attachment.container_id) else {
            return false;
        };
        let is_veth = |tracked: &&Tracked| tracked.wiring.kind() == Some(LinkKind::Veth);
        self.wires.of(&state.pod).filter(is_veth).count() > MOVE_LIMIT
    }

    /// Detaches that came while something else was done: what leaves, leaves in one go.
    pub(super) fn detach_all(&mut self, all: Vec<(Detach, Answer<Reply>)>) {
        let (mut leaving, mut answers) = (BTreeSet::new(), Vec::new());
        for (detach, answer) in all {
            // The client may have gone meanwhile.
            match self.release(&detach) {
                Ok(id) => {
                    leaving.extend(id);
                    answers.push(answer);
                }
                Err(failure) => drop(answer.send(Err(failure))),
            }
        }
        self.undo(&leaving);
        answers
            .into_iter()
            .for_each(|answer| drop(answer.send(Ok(Reply::Done))));
    }

    /// Takes an attachment from its sandbox; returns the sandbox if that was its last and it is to
    /// leave.
    fn release(&mut self, detach: &Detach) -> Result<Option<SandboxId>, Failure> {
        let attachment = &detach.attachment;
        let id = &attachment.container_id;
        let Some(state) = self.sandboxes.get(id) else {
            self.sweep(detach);
            return Ok(None);
        };
        let key = (attachment.network.clone(), attachment.interface.clone());
        let mut rest = state.attachments.clone();
        rest.remove(&key);
        if rest.is_empty() || state.leaving {
            return Ok(Some(id.clone()));
        }
        if state.attachments.contains(&key) {
            let state = SandboxState {
                attachments: rest,
                ..state.clone()
            };
            self.sandboxes.save(state).map_err(|e| {
                Failure::new(
                    FailureKind::Io,
                    format!("cannot write the state of sandbox {id}: {e}"),
                )
            })?;
        }
        Ok(None)
    }

    pub(super) fn collect(&mut self, collect: &Collect) -> Result<Reply, Failure> {
        let stale: Vec<(SandboxId, String)> = self
            .sandboxes
            .all()
            .flat_map(|state| {
                state
                    .attachments
                    .iter()
                    .map(|(network, interface)| (&state.id, network, interface))
            })
            .filter(|(_, network, _)| **network == collect.network)
            .filter(|(id, _, interface)| {
                !collect
                    .valid
                    .iter()
                    .any(|(i, n)| i == id.as_str() && n == *interface)
            })
            .map(|(id, _, interface)| (id.clone(), interface.clone()))
            .collect();
        let (mut leaving, mut failures) = (BTreeSet::new(), Vec::new());
        for (container_id, interface) in stale {
            tracing::info!(
                sandbox = %container_id, interface,
                "the runtime no longer knows this attachment; undoing it"
            );
            let network = collect.network.clone();
            let attachment = ratchet_protocol::Attachment {
                network,
                container_id,
                interface,
            };
            match self.release(&Detach {
                attachment,
                netns: None,
            }) {
                Ok(id) => leaving.extend(id),
                Err(failure) => failures.push(failure),
            }
        }
        self.undo(&leaving);
        failures.pop().map_or(Ok(Reply::Done), Err)
    }

    /// Undoes whole sandboxes: their links first, then what others know of them, then their state.
    pub(super) fn undo(&mut self, ids: &BTreeSet<SandboxId>) {
        let mut pods = BTreeSet::new();
        for id in ids {
            let Some(state) = self.sandboxes.get(id) else {
                continue;
            };
            tracing::info!(pod = %state.pod, sandbox = %id, "detaching");
            pods.insert(state.pod.clone());
            self.sandboxes.set_leaving(id);
        }
        if pods.is_empty() {
            return;
        }
        let reconciled = self.reconcile(&Scope::Links(pods));
        // With the store in trouble, a DEL does not wait for it once more: a resync tells it.
        let told = match self.session.trouble() {
            None => retry::all(ids.iter().map(|id| self.finish_removal(id))),
            Some(trouble) => Err(Retry::Store(Failure::because(
                FailureKind::TryLater,
                trouble,
            ))),
        };
        self.expect_retry(reconciled.and(told));
        self.tell();
    }

    /// Finishes the removal of all sandboxes that are leaving.
    pub(super) fn finish_removals(&mut self) -> Tried {
        let leaving = self.sandboxes.leaving();
        retry::all(leaving.iter().map(|id| self.finish_removal(id)))
    }

    /// Tells the store that a sandbox has gone, and forgets it. Only done when nothing of it is
    /// left in the kernel.
    fn finish_removal(&mut self, id: &SandboxId) -> Tried {
        let Some(state) = self.sandboxes.get(id).cloned() else {
            return Ok(());
        };
        if !self.wires.take_swept(id) && !self.is_swept(&state) {
            return Err(Retry::NotSwept(id.clone()));
        }
        self.session.remove_pod(&state.pod, id)?;
        self.sandboxes.forget(id);
        if !self.sandboxes.has(&state.pod) {
            self.session
                .forget_pods(&[state.pod].into(), &self.sandboxes);
        }
        if self.sandboxes.is_empty() {
            self.register_node()?;
        }
        Ok(())
    }

    /// Whether no device of ours is left in a leaving sandbox.
    fn is_swept(&mut self, state: &SandboxState) -> bool {
        if let Err(error) = enter(&mut *self.kernel, state) {
            return error.is_netns_gone();
        }
        let netns = Netns::Sandbox(state.id.clone());
        let left = self
            .kernel
            .observe(&[(netns, Look::All)].into(), &|_| false);
        left.map_or_else(
            |error| error.is_netns_gone(),
            |devices| !devices.iter().any(ratchet_model::device::Observed::is_ours),
        )
    }

    /// Undoes a sandbox of which there is no state (it was never attached, or the state is lost):
    /// devices in its namespace whose alias names it are deleted.
    fn sweep(&mut self, detach: &Detach) {
        let id = &detach.attachment.container_id;
        let Some(path) = detach.netns.as_ref() else {
            return;
        };
        let is_nodes = |identity| identity == self.kernel.node();
        if self.kernel.identify(path).map_or(true, is_nodes)
            || self.kernel.enter(id, path, None).is_err()
        {
            return;
        }
        let netns = Netns::Sandbox(id.clone());
        let devices = self
            .kernel
            .observe(&[(netns, Look::All)].into(), &|_| false)
            .unwrap_or_default();
        let steps: Vec<Step> = devices
            .iter()
            .filter(|device| {
                device
                    .alias
                    .as_ref()
                    .is_some_and(|alias| alias.sandbox.as_ref() == Some(id))
            })
            .map(|device| Step {
                link: LinkId::UNKNOWN,
                operation: Operation::Delete(device.at()),
            })
            .collect();
        if !steps.is_empty() {
            tracing::warn!(
                sandbox = %id, devices = steps.len(),
                "removing devices of a sandbox whose state is lost"
            );
            for error in self
                .kernel
                .execute(&steps)
                .into_iter()
                .filter_map(Result::err)
            {
                tracing::warn!(sandbox = %id, %error, "cannot remove a device");
            }
        }
    }

    /// Marks sandboxes as leaving whose namespace is gone, or that were made before the last boot.
    pub(super) fn drop_dead_sandboxes(&mut self) {
        let kernel = &*self.kernel;
        let dead: BTreeSet<SandboxId> = self
            .sandboxes
            .all()
            .filter(|state| !state.leaving)
            .filter(|state| {
                state.boot_id != self.boot_id || sandboxes::is_netns_gone(kernel, state)
            })
            .map(|state| state.id.clone())
            .collect();
        for id in dead {
            tracing::info!(sandbox = %id, "the sandbox's network namespace is gone; undoing what \
                                           is left of it");
            self.sandboxes.set_leaving(&id);
        }
    }
}

#[cfg(test)]
mod tests;
