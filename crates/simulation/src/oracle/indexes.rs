//! When everything has settled: each end has the index that it had when everything had settled the
//! last time, whatever its peer did meanwhile (docs/decisions/0008).
//!
//! That is not promised, and the end's index forgotten here, when
//! * the link has ended meanwhile,
//! * something else than the agent has deleted a device of the link, or taken the place of one,
//! * the node's disk was full or its state lost: what a device leaves is on disk,
//! * an agent starts with a store that has the end's pod and has lost who declares the link
//!   (docs/decisions/0019).

use std::collections::BTreeMap;

use super::expected::{Ends, Link, describe, key, link_id};
use crate::{
    history::{Kind, Wrong},
    network::{Inner, NetnsId, NodeNumber, PodNumber},
    store::Contents,
};

/// The indexes of all ends of links that were up: by the namespace and by the link, and its end.
#[derive(Debug, Default)]
pub struct Indexes(BTreeMap<(NetnsId, Ends, usize), u32>);

impl Indexes {
    /// Compares the indexes of a link's ends with what they were, and notes them.
    ///
    /// # Errors
    /// Which end has lost its index.
    pub fn check(&mut self, network: &Inner, link: &Link<'_>) -> Result<(), Wrong> {
        for (number, (end, sandbox)) in link.ends.iter().zip(link.sandboxes).enumerate() {
            let found = network.find(sandbox.netns, &end.interface);
            let Some(device) = found.and_then(|id| network.device(id)) else {
                continue;
            };
            let key = (sandbox.netns, link.ends.clone(), number);
            let before = self.0.insert(key, device.index);
            if let Some(before) = before.filter(|before| *before != device.index) {
                let text = format!(
                    "{} is {}, whose index was {before}",
                    describe(link.ends),
                    network.describe(device)
                );
                return Err(Wrong::new(Kind::IndexLost, text));
            }
        }
        Ok(())
    }

    /// Nothing is promised any more about the links for which this holds.
    pub fn forget_links(&mut self, is_forgotten: impl Fn(&Ends) -> bool) {
        self.0.retain(|(_, ends, _), _| !is_forgotten(ends));
    }

    /// Nothing is promised any more about the links of a pod.
    pub fn forget_pod(&mut self, pod: PodNumber) {
        self.forget_links(|ends| ends.iter().any(|end| end.pod == pod));
    }

    /// The agent of a node starts. Nothing is promised any more about the links that it cannot
    /// tell from links that have ended: the store has this end's pod, and no declaration.
    pub fn forget_undeclared(&mut self, node: NodeNumber, network: &Inner, contents: &Contents) {
        self.0.retain(|(netns, ends, number), _| {
            let is_here = network
                .namespace(*netns)
                .is_some_and(|namespace| namespace.node == node);
            let own = contents.records.get(&key(ends[*number].pod));
            let has_own = own.is_some_and(|record| record.location.is_some());
            if !(is_here && has_own) {
                return true;
            }
            let id = link_id(ends);
            let mut declared = contents.records.values().flat_map(|record| &record.links);
            declared.any(|link| Some(link.id()) == id)
        });
    }

    /// Nothing is promised any more about the ends in namespaces for which this holds.
    pub fn forget_namespaces(&mut self, is_forgotten: impl Fn(NetnsId) -> bool) {
        self.0.retain(|(netns, ..), _| !is_forgotten(*netns));
    }
}
