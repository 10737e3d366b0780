//! What the store is asked and told of nodes.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ratchet_model::{NodeName, PodRecord};
use ratchet_store::{NodeRemoval, RemovalReason, Underlay};

use super::{Session, connection::Size};
use crate::{retry::Tried, sandboxes::Sandboxes};

impl Session {
    /// Tells the store that this node is alive for as long as it has sandboxes, and that it has
    /// nothing to lose when it has none. Others wait `timeout` for a sign of life (none: for ever).
    /// A store that declares is told where the node's tunnels end, with and without sandboxes.
    pub fn register_node(
        &mut self,
        node: &NodeName,
        timeout: Option<Duration>,
        underlay: Option<Underlay>,
        sandboxes: &Sandboxes,
    ) -> Tried {
        let needed = !sandboxes.is_empty();
        if !needed && self.presence.is_deregistered() && !self.declares() {
            return Ok(());
        }
        let told = self.call(Size::Links(0), async |store| {
            if let Some(underlay) = underlay.filter(|_| store.declares()) {
                store.publish_underlay(node, underlay).await?;
            }
            match needed {
                true => store.register_node(node, timeout).await,
                false => store.deregister_node(node).await,
            }
        });
        self.presence.set_registered(told.is_ok().then_some(needed));
        told
    }

    /// Whether the store knows that this node is alive.
    pub fn is_registered(&self) -> bool {
        self.presence.is_registered()
    }

    /// When to look for lost nodes next.
    pub fn next_check(&self) -> Instant {
        self.presence.next_check()
    }

    /// Whether to look for lost nodes now; only once a period, see [`Presence::take_check`].
    pub fn take_check(&mut self, timeout: Option<Duration>) -> bool {
        let due = self.presence.take_check(self.clock.now(), timeout);
        due && self.connection.is_open() && self.offline().is_none()
    }

    /// The nodes that have not been heard of for longer than they allowed.
    pub fn lost_nodes(&mut self) -> Tried<BTreeSet<NodeName>> {
        self.call(Size::Links(0), async |store| store.lost_nodes().await)
    }

    /// Removes the pods of a node that is gone for good.
    pub fn remove_node(&mut self, node: &NodeName, reason: RemovalReason) -> Tried<NodeRemoval> {
        self.call(Size::AllRecords, async |store| {
            store.remove_node(node, reason).await
        })
    }

    /// The records of all pods that are said to be on a node.
    pub fn located_on(&mut self, node: &NodeName) -> Tried<Vec<PodRecord>> {
        self.call(Size::AllRecords, async |store| store.located_on(node).await)
    }
}
