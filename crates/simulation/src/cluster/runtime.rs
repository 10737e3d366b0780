//! The container runtime and the Kubernetes API: what calls the agents.

use std::path::PathBuf;

use ratchet_model::SandboxId;
use tokio::sync::oneshot::error::TryRecvError;

use super::{Cluster, Sandbox, State};
use crate::{
    agent::Target,
    declaration::{Declaration, Form, pod_name},
    network::{NodeNumber, PodNumber},
    oracle::link_id,
};

impl Cluster {
    /// Makes a sandbox and asks for its ADD.
    pub(super) fn add(
        &mut self,
        pod: PodNumber,
        node: NodeNumber,
        declaration: &Declaration,
        is_expected: bool,
    ) {
        self.start(node, None);
        let id: SandboxId = format!("s{}", self.sandboxes.len())
            .parse()
            .expect("letters and digits make an id");
        let path = PathBuf::from(format!("/run/netns/{id}"));
        let netns = self.network.lock().add_sandbox(node, pod, &path);
        self.allow(pod, declaration);
        let texts = declaration.texts();
        let Some(agent) = &self.nodes[node].agent else {
            self.network.lock().remove_namespace(netns);
            return;
        };
        let target = Target {
            id: &id,
            netns: &path,
        };
        if is_expected {
            drop(agent.attach(&target, &pod_name(pod), &texts, true));
        }
        let answered = agent.attach(&target, &pod_name(pod), &texts, false);
        if is_expected {
            agent.unexpect(&id);
        }
        self.sandboxes.push(Sandbox {
            id,
            pod,
            node,
            netns,
            path,
            state: State::Adding(answered),
            declaration: declaration.clone(),
            order: u64::MAX,
            has_changed: false,
            is_unknown: false,
        });
    }

    /// Frames may go between the ends of what a pod declares.
    fn allow(&self, pod: PodNumber, declaration: &Declaration) {
        let mut network = self.network.lock();
        for link in &declaration.links {
            let mut ends = link.ends(pod);
            ends.sort();
            if let Some(id) = link_id(&ends) {
                network.wires.allow(ends, id);
            }
        }
    }

    /// Asks for the DEL of a sandbox, whose ADD must have been answered.
    pub(super) fn del(&mut self, at: usize) {
        let node = self.sandboxes[at].node;
        self.start(node, None);
        let sandbox = &self.sandboxes[at];
        let netns = self.has_netns(sandbox).then_some(sandbox.path.as_path());
        let state = match &self.nodes[node].agent {
            Some(agent) => State::Leaving(agent.detach(&sandbox.id, netns)),
            None => State::Failed,
        };
        self.sandboxes[at].state = state;
    }

    /// Takes the answers that have come.
    pub(super) fn take_answers(&mut self) {
        let mut ended = Vec::new();
        for sandbox in &mut self.sandboxes {
            let is_adding = matches!(sandbox.state, State::Adding(_));
            let (answered, done) = match &mut sandbox.state {
                State::Adding(answered) => (answered, State::Attached),
                State::Leaving(answered) => (answered, State::Gone),
                _ => continue,
            };
            sandbox.state = match answered.try_recv() {
                Err(TryRecvError::Empty) => continue,
                Ok(Ok(_)) => done,
                Ok(Err(_)) | Err(TryRecvError::Closed) => State::Failed,
            };
            if is_adding {
                self.answered += 1;
                sandbox.order = self.answered;
            }
            if matches!(sandbox.state, State::Gone) {
                ended.push(sandbox.netns);
            }
        }
        let mut network = self.network.lock();
        ended
            .into_iter()
            .for_each(|netns| network.remove_namespace(netns));
    }

    /// What is written on a running pod changes.
    pub(super) fn change(&mut self, pod: PodNumber, declaration: &Declaration) {
        let Some(at) = self.newest_at(pod) else {
            return;
        };
        if !matches!(self.sandboxes[at].state, State::Attached) {
            return;
        }
        if declaration.form != Form::Broken {
            self.allow(pod, declaration);
            self.sandboxes[at].declaration = declaration.clone();
            self.sandboxes[at].has_changed = true;
        }
        let sandbox = &self.sandboxes[at];
        let node = &self.nodes[sandbox.node];
        if let Some(agent) = node.agent.as_ref().filter(|_| node.hears) {
            agent.hear(&pod_name(pod), &declaration.texts());
        }
    }

    /// The API, if there is one, tells a node's agent of all pods that run there.
    pub(super) fn tell_of_pods(&self, node: NodeNumber) {
        let of = &self.nodes[node];
        let Some(agent) = of.agent.as_ref().filter(|_| of.hears) else {
            return;
        };
        for sandbox in &self.sandboxes {
            let is_newest = self
                .newest(sandbox.pod)
                .is_some_and(|newest| newest.id == sandbox.id);
            let is_told = self.kubernetes || sandbox.has_changed;
            let is_attached = matches!(sandbox.state, State::Attached);
            if sandbox.node == node && is_told && is_newest && is_attached {
                agent.hear(&pod_name(sandbox.pod), &sandbox.declaration.texts());
            }
        }
    }
}
