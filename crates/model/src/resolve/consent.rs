//! Whose word counts: a link needs the consent of both its pods.
//!
//! A pod consents to a link by declaring it, or by accepting what the other pod declares
//! ([`crate::declaration::Accept`]).

use std::collections::HashMap;

use super::concerned::{EndKey, end_keys};
use crate::{
    declaration::Accept,
    link::DeclaredLink,
    names::{InterfaceName, LinkId, PodKey},
    reason::Reason,
    record::PodRecord,
};

/// What pods accept.
pub(super) struct Consent<'r> {
    records: HashMap<&'r PodKey, &'r PodRecord>,
    default: Accept,
}

impl<'r> Consent<'r> {
    /// As these records say.
    pub fn of(records: &[&'r PodRecord]) -> Self {
        Self {
            records: records
                .iter()
                .map(|record| (&record.pod, *record))
                .collect(),
            default: Accept::default(),
        }
    }

    /// What is missing for a link that these pods declare.
    pub fn missing(&self, [a, z]: &[EndKey<'r>; 2], declarers: &[&PodKey]) -> Option<Reason> {
        let [a, z] = [a.0, z.0];
        if a == z {
            return None;
        }
        for (pod, declarer) in [(a, z), (z, a)] {
            if !declarers.contains(&pod) && !self.accepts(pod).includes(pod, declarer) {
                return Some(Reason::NoConsent {
                    pod: pod.clone(),
                    declarer: declarer.clone(),
                });
            }
        }
        let isolated = [a, z]
            .into_iter()
            .find(|pod| self.accepts(pod).is_isolated());
        isolated
            .filter(|_| a.namespace() != z.namespace())
            .map(|pod| Reason::NamespaceIsolated { pod: pod.clone() })
    }

    /// Whether nothing is missing for a link, with all pods that declare it.
    pub fn is_given(&self, link: &'r DeclaredLink) -> bool {
        let ends = end_keys(link);
        let declares = |pod: &&PodKey| {
            let record = self.records.get(*pod);
            record.is_some_and(|record| record.links.iter().any(|l| end_keys(l) == ends))
        };
        let accepting = [&link.local.pod];
        if self.missing(&ends, &accepting).is_none() {
            return true;
        }
        let pods = [ends[0].0, ends[1].0];
        let declarers: Vec<&PodKey> = pods.into_iter().filter(declares).collect();
        self.missing(&ends, &declarers).is_none()
    }

    /// A pod of which there is no record accepts what every pod does that says nothing.
    fn accepts(&self, pod: &PodKey) -> &Accept {
        let record = self.records.get(pod);
        record.map_or(&self.default, |record| &record.accept)
    }

    /// How many links with a pod only pods of other namespaces may declare.
    pub fn foreign_links(&self, pod: &PodKey) -> usize {
        let record = self.records.get(pod);
        record.map_or(usize::MAX, |record| record.foreign_links())
    }

    /// Whether a pod has given an interface to a link.
    pub fn has_given(&self, (pod, interface): EndKey<'_>, link: LinkId) -> bool {
        let record = self.records.get(pod);
        record.is_some_and(|record| record.given.get(interface) == Some(&link))
    }

    /// Whether an interface is that of one of the pod's networks, and no link's.
    pub fn is_reserved(&self, pod: &PodKey, interface: &InterfaceName) -> bool {
        let record = self.records.get(pod);
        record.is_some_and(|record| record.networks.contains(interface))
    }
}

#[cfg(test)]
mod tests;
