//! The container runtime and the Kubernetes API: what calls the agents.

use std::{collections::BTreeSet, path::PathBuf};

use ratchet_model::SandboxId;
use ratchet_protocol::Failure;
use tokio::sync::oneshot::error::TryRecvError;

use super::{Cluster, Sandbox, State};
use crate::{
    agent::{Answered, Target},
    declaration::{Declaration, Form},
    network::{NodeNumber, PodNumber},
    oracle::{
        adds,
        expected::{Ends, link_id},
    },
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
        self.forget_ended(pod, declaration);
        self.supersede(pod, node);
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
            drop(agent.attach(&target, pod, &texts, true));
        }
        let answered = agent.attach(&target, pod, &texts, false);
        if is_expected {
            agent.unexpect(&id);
        }
        self.sandboxes.push(Sandbox {
            id,
            pod,
            node,
            netns,
            path,
            state: State::Adding,
            added: Some(answered),
            declaration: declaration.clone(),
            order: u64::MAX,
            has_changed: false,
            is_unsure: false,
            is_unknown: false,
        });
    }

    /// The earlier sandboxes of a pod give up what they have. Those of the node may get the new
    /// one's declaration, if they outlive it: in Kubernetes it is the same.
    fn supersede(&mut self, pod: PodNumber, node: NodeNumber) {
        let mut earlier = BTreeSet::new();
        for sandbox in self.sandboxes.iter_mut().filter(|s| s.pod == pod) {
            earlier.insert(sandbox.netns);
            sandbox.is_unsure |= sandbox.node == node;
        }
        self.indexes
            .forget_namespaces(|netns| earlier.contains(&netns));
    }

    /// Frames may go between the ends of what a pod declares of its namespace.
    fn allow(&self, pod: PodNumber, declaration: &Declaration) {
        let mut frames = self.frames.lock();
        let links = declaration.links.iter();
        for link in links.filter(|link| !link.is_foreign(pod)) {
            let ends = link.ends_in_order(pod);
            if let Some(id) = link_id(&ends) {
                frames.allow(ends, id);
            }
        }
    }

    /// The links that a pod has declared and does not declare any more may end, were it only until
    /// what their other pods declare is heard of. Of those that another link of its declaration
    /// shares an interface with, one or the other has it now.
    fn forget_ended(&mut self, pod: PodNumber, declaration: &Declaration) {
        let declares = |declaration: &Declaration, ends: &Ends| {
            let mut links = declaration.links.iter();
            links.any(|link| link.ends_in_order(pod) == *ends)
        };
        let takes = |ends: &Ends| {
            let links = declaration.links.iter();
            let own = links.filter(|link| !link.is_foreign(pod));
            let mut others = own.map(|link| link.ends_in_order(pod));
            others.any(|other| other != *ends && other.iter().any(|end| ends.contains(end)))
        };
        let sandboxes = &self.sandboxes;
        self.indexes.forget_links(|ends| {
            let mut own = sandboxes.iter().filter(|sandbox| sandbox.pod == pod);
            takes(ends)
                || !declares(declaration, ends)
                    && own.any(|sandbox| declares(&sandbox.declaration, ends))
        });
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

    /// Asks for the DEL of a pod's newest sandbox while its ADD is under way.
    pub(super) fn abort(&mut self, pod: PodNumber) {
        let is_adding =
            |sandbox: &Sandbox| sandbox.pod == pod && matches!(sandbox.state, State::Adding);
        if let Some(at) = self.sandboxes.iter().rposition(is_adding) {
            self.del(at);
        }
    }

    /// Takes the answers that have come.
    pub(super) fn take_answers(&mut self) {
        let mut ended = Vec::new();
        let mut failed = BTreeSet::new();
        for sandbox in &mut self.sandboxes {
            if let Some(result) = sandbox.added.as_mut().and_then(answer) {
                sandbox.added = None;
                self.answered += 1;
                sandbox.order = self.answered;
                failed.extend(result.is_err().then_some(sandbox.pod));
                let is_forger = self.frames.lock().forgers.contains(&sandbox.pod);
                if let Err(Some(failure)) = &result
                    && !is_forger
                {
                    let judged = adds::check(&self.network.lock(), sandbox, failure);
                    self.wrong_add = self.wrong_add.take().or(judged.err());
                }
                if matches!(sandbox.state, State::Adding) {
                    sandbox.state = if result.is_ok() {
                        State::Attached
                    } else {
                        State::Failed
                    };
                }
            }
            let State::Leaving(answered) = &mut sandbox.state else {
                continue;
            };
            match answer(answered) {
                Some(Ok(())) => {
                    sandbox.state = State::Gone;
                    ended.push((sandbox.pod, sandbox.netns));
                }
                Some(Err(_)) => sandbox.state = State::Failed,
                None => {}
            }
        }
        let adding = self.sandboxes.iter_mut().filter(|s| s.added.is_some());
        for sandbox in adding.filter(|sandbox| failed.contains(&sandbox.pod)) {
            sandbox.is_unsure = true;
        }
        let mut network = self.network.lock();
        for (pod, netns) in ended {
            network.remove_namespace(netns);
            // The API tells of the newest one only.
            let of_pod = self.sandboxes.iter_mut().filter(|s| s.pod == pod);
            of_pod.for_each(|sandbox| sandbox.is_unsure |= sandbox.has_changed);
        }
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
            self.forget_ended(pod, declaration);
            self.sandboxes[at].declaration = declaration.clone();
            self.sandboxes[at].has_changed = true;
        }
        let sandbox = &self.sandboxes[at];
        let node = &self.nodes[sandbox.node];
        if let Some(agent) = node.agent.as_ref().filter(|_| node.hears) {
            agent.hear(pod, &declaration.texts());
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
                agent.hear(sandbox.pod, &sandbox.declaration.texts());
            }
        }
    }
}

/// Whether a call has succeeded and why not, if it was answered or will never be.
fn answer(answered: &mut Answered) -> Option<Result<(), Option<Failure>>> {
    match answered.try_recv() {
        Err(TryRecvError::Empty) => None,
        Ok(Ok(_)) => Some(Ok(())),
        Ok(Err(failure)) => Some(Err(Some(failure))),
        Err(TryRecvError::Closed) => Some(Err(None)),
    }
}
