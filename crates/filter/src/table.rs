//! The passages of a table, and what a change of them means for its elements.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{device::Passage, link::Vni};

use crate::elements::{Element, Set, elements};

/// The passages of a table. Those of one VNI are together, so that a change costs the same however
/// many others there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    by_vni: BTreeMap<Vni, BTreeSet<Passage>>,
}

/// A change of elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Those to be added.
    pub added: BTreeSet<Element>,
    /// Those to be removed.
    pub removed: BTreeSet<Element>,
}

impl Change {
    /// The change from some elements to others.
    pub fn between(before: &BTreeSet<Element>, after: &BTreeSet<Element>) -> Self {
        Self {
            added: after.difference(before).cloned().collect(),
            removed: before.difference(after).cloned().collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

impl Table {
    pub fn new(passages: impl IntoIterator<Item = Passage>) -> Self {
        let mut table = Self::default();
        for passage in passages {
            table.insert(passage);
        }
        table
    }

    pub fn is_empty(&self) -> bool {
        self.by_vni.is_empty()
    }

    pub fn passages(&self) -> impl Iterator<Item = Passage> {
        self.by_vni.values().flatten().copied()
    }

    pub fn elements(&self) -> BTreeSet<Element> {
        self.by_vni.values().flatten().flat_map(elements).collect()
    }

    /// Adds and removes passages.
    pub fn change(&mut self, permit: &[Passage], forbid: &[Passage]) -> Change {
        let touched: BTreeSet<Vni> = permit
            .iter()
            .chain(forbid)
            .map(|passage| passage.vni)
            .collect();
        let before = self.elements_of(&touched);
        for passage in forbid {
            self.remove(passage);
        }
        for passage in permit {
            self.insert(*passage);
        }
        let mut change = Change::between(&before, &self.elements_of(&touched));
        // Other VNIs may need the port as well.
        change
            .removed
            .retain(|(set, key)| *set != Set::Ports || !self.has_port(key));
        change
    }

    fn insert(&mut self, passage: Passage) {
        self.by_vni.entry(passage.vni).or_default().insert(passage);
    }

    fn remove(&mut self, passage: &Passage) {
        if let Some(passages) = self.by_vni.get_mut(&passage.vni) {
            passages.remove(passage);
            if passages.is_empty() {
                self.by_vni.remove(&passage.vni);
            }
        }
    }

    fn elements_of(&self, vnis: &BTreeSet<Vni>) -> BTreeSet<Element> {
        let passages = vnis.iter().filter_map(|vni| self.by_vni.get(vni));
        passages.flatten().flat_map(elements).collect()
    }

    fn has_port(&self, key: &[u8]) -> bool {
        let mut passages = self.by_vni.values().flatten();
        passages.any(|passage| passage.port.to_be_bytes() == key)
    }
}

#[cfg(test)]
mod tests;
