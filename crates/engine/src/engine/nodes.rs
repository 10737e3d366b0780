//! Which nodes are alive: registers this node, and removes the pods of nodes that are gone for
//! good.
//!
//! Only what the store says of nodes is dealt with here; what follows for links comes as a change
//! of facts, as always.

use std::time::{Duration, Instant};

use ratchet_protocol::{Failure, FailureKind, ForgetNode, Forgotten, Reply};
use ratchet_store::NodeRemoval;

use super::{Engine, PERIOD};

/// What is known of nodes.
pub(super) struct Nodes {
    /// Whether the store has been told that this node lives (or has nothing that could be lost with
    /// it); none: neither.
    registered: Option<bool>,
    next_check: Instant,
}

impl Nodes {
    /// Of a store that has just been opened.
    pub fn new(now: Instant) -> Self {
        Self {
            registered: None,
            next_check: now,
        }
    }

    pub fn next_check(&self) -> Instant {
        self.next_check
    }

    /// Whether the store knows that this node lives.
    pub fn is_registered(&self) -> bool {
        self.registered == Some(true)
    }
}

impl Engine {
    /// Lets the store know that this node lives for as long as it has sandboxes, and forget that
    /// when it has none.
    pub(super) fn register_node(&mut self) -> Result<(), Failure> {
        let is_needed = !self.sandboxes.is_empty();
        if !is_needed && self.nodes.registered == Some(false) {
            return Ok(());
        }
        let effective = self.effective()?.clone();
        let store = self.store()?;
        let told = match is_needed {
            true => self
                .runtime
                .block_on(store.register_node(&effective.node.name, effective.node_timeout())),
            false => self
                .runtime
                .block_on(store.deregister_node(&effective.node.name)),
        };
        told.map_err(|error| self.store_failed(&error))?;
        self.nodes.registered = Some(is_needed);
        Ok(())
    }

    /// Looks for nodes that are gone for good, when it is time for that. Every agent does: whoever
    /// is first, does it.
    pub(super) fn check_lost_nodes(&mut self) {
        if self.nodes.next_check > self.clock.now() {
            return;
        }
        let Ok(effective) = self.effective().cloned() else {
            return self.postpone_check(PERIOD);
        };
        self.postpone_check(
            effective
                .node_timeout()
                .map_or(PERIOD, |timeout| timeout.min(PERIOD)),
        );
        if self.offline.is_some() {
            return;
        }
        let Some(store) = self.store.clone() else {
            return;
        };
        let lost = match self.runtime.block_on(store.lost_nodes()) {
            Ok(lost) => lost,
            Err(error) => return drop(self.store_failed(&error)),
        };
        for node in lost.into_iter().filter(|node| *node != effective.node.name) {
            match self.runtime.block_on(store.remove_node(&node, false)) {
                Ok(NodeRemoval::Done(pods)) => {
                    let pods: Vec<String> = pods.iter().map(ToString::to_string).collect();
                    tracing::warn!(%node, ?pods, "the node has not been heard of for its \
                                                  node_timeout: its pods have gone");
                }
                Ok(NodeRemoval::Alive | NodeRemoval::Unsure) => {}
                Err(error) => return drop(self.store_failed(&error)),
            }
        }
    }

    fn postpone_check(&mut self, period: Duration) {
        self.nodes.next_check = self.clock.now() + period;
    }

    /// Somebody says that a node is gone for good.
    pub(super) fn forget_node(&mut self, forget: &ForgetNode) -> Result<Reply, Failure> {
        let node = &forget.node;
        let refuse = |text: String| Err(Failure::new(FailureKind::Invalid, text));
        if self.effective()?.node.name == *node {
            return refuse(format!(
                "node {node} is this one, and its agent runs: its pods go when the runtime deletes \
                 them"
            ));
        }
        let store = self.store()?;
        match self
            .runtime
            .block_on(store.remove_node(node, forget.force))
            .map_err(|error| self.store_failed(&error))?
        {
            NodeRemoval::Done(pods) => {
                tracing::warn!(%node, ?pods, forget.force, "the node was said to be gone for good: \
                                                            its pods have gone");
                Ok(Reply::Forgotten(Forgotten { pods }))
            }
            NodeRemoval::Alive => refuse(format!(
                "node {node} lives: its agent has been heard of within its node_timeout. Stop that \
                 agent and wait so long, or use --force if the node is gone for good"
            )),
            NodeRemoval::Unsure => refuse(format!(
                "store {} cannot tell whether node {node} lives; use --force if it is gone for \
                 good",
                store.describe()
            )),
        }
    }
}
