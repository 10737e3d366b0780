//! Which nodes are alive: registers this node, and removes the pods of nodes that are gone for
//! good.
//!
//! Only what the store says of nodes is dealt with here; what follows for links comes as a change
//! of facts, as always.

use ratchet_protocol::{Failure, FailureKind, ForgetNode, Forgotten, Reply};
use ratchet_store::{NodeRemoval, RemovalReason, Underlay};

use super::Engine;
use crate::retry::Tried;

impl Engine {
    /// Tells the store that this node is alive for as long as it has sandboxes, and that it has
    /// nothing to lose when it has none.
    pub(super) fn register_node(&mut self) -> Tried {
        let node = self.node.wiring()?;
        let underlay = node.vtep.map(|vtep| Underlay {
            vtep: vtep.address,
            mtu: node.mtu,
        });
        let timeout = self.node.timeout();
        self.session
            .register_node(&node.name, timeout, underlay, &self.sandboxes)
    }

    /// Looks for nodes that are gone for good, when it is time for that. Every agent does: the
    /// first one removes their pods.
    pub(super) fn check_lost_nodes(&mut self) {
        if !self.session.take_check(self.node.timeout()) {
            return;
        }
        let removed = self.remove_lost_nodes();
        if let Err(retry) = removed {
            super::log_retry(&retry);
        }
    }

    fn remove_lost_nodes(&mut self) -> Tried {
        let own = self.node.name()?.clone();
        for node in self.session.lost_nodes()? {
            if node == own {
                continue;
            }
            if let NodeRemoval::Done(pods) = self.session.remove_node(&node, RemovalReason::Lost)? {
                let pods: Vec<String> = pods.iter().map(ToString::to_string).collect();
                tracing::warn!(
                    %node, ?pods,
                    "the node has not been heard of for its node_timeout: its pods have gone"
                );
            }
        }
        Ok(())
    }

    /// A user says that a node is gone for good.
    pub(super) fn forget_node(&mut self, forget: &ForgetNode) -> Result<Reply, Failure> {
        let node = &forget.node;
        let refuse = |text: String| Err(Failure::new(FailureKind::Invalid, text));
        if self.node.name()? == node {
            return refuse(format!(
                "node {node} is this one, and its agent runs: its pods go when the runtime deletes \
                 them"
            ));
        }
        if self.node.settings().store_declares() {
            return refuse(format!(
                "store kubernetes has nothing to forget: Kubernetes deletes the pods of a node \
                 that is gone, and the controller then ends their links and frees their VNIs. \
                 Delete the node's objects: kubectl delete node {node}; kubectl delete \
                 nodeunderlay {node}"
            ));
        }
        let reason = RemovalReason::Forgotten {
            even_if_alive: forget.force,
        };
        match self.session.remove_node(node, reason)? {
            NodeRemoval::Done(pods) => {
                tracing::warn!(
                    %node, ?pods, forget.force,
                    "the node was said to be gone for good: its pods have gone"
                );
                Ok(Reply::Forgotten(Forgotten { pods }))
            }
            NodeRemoval::Alive => refuse(format!(
                "node {node} lives: its agent has been heard of within its node_timeout. Stop that \
                 agent and wait so long, or use --force if the node is gone for good"
            )),
            NodeRemoval::Unsure => refuse(format!(
                "store {} cannot tell whether node {node} lives; use --force if it is gone for \
                 good",
                self.session.describe()
            )),
        }
    }
}
