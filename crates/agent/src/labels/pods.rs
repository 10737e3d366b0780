//! What is known of the node's pods. No I/O.

use std::collections::BTreeMap;

use ratchet_kubernetes::PodFacts;
use ratchet_protocol::Pod;

/// A pod's namespace and name.
pub(super) type Key = (String, String);

fn key(facts: &PodFacts) -> Key {
    (facts.namespace.clone(), facts.name.clone())
}

/// The node's pods as the API last described them.
#[derive(Debug, Default)]
pub(super) struct Pods(BTreeMap<Key, PodFacts>);

impl Pods {
    pub fn get(&self, key: &Key) -> Option<&PodFacts> {
        self.0.get(key)
    }

    /// The pod of a call, unless the known facts may be another pod's with the same name: a pod
    /// that was deleted and created again has another uid. (The mirror of a static pod always has
    /// another uid.)
    pub fn current(&self, pod: &Pod) -> Option<&PodFacts> {
        let facts = self.0.get(&(pod.namespace.clone(), pod.name.clone()))?;
        let is_same = pod.uid.as_ref().is_none_or(|uid| *uid == facts.uid);
        is_same.then_some(facts)
    }

    /// Replaces all by a new list.
    pub fn replace(&mut self, all: &[PodFacts]) {
        self.0 = all
            .iter()
            .map(|facts| (key(facts), facts.clone()))
            .collect();
    }

    pub fn insert(&mut self, facts: PodFacts) {
        self.0.insert(key(&facts), facts);
    }

    /// Adds the answer to a request. If the watch has reported the pod since the request was sent,
    /// when `before` was known, its report is as new or newer and stays.
    pub fn fetched(&mut self, key: &Key, before: Option<&PodFacts>, facts: PodFacts) {
        if self.0.get(key).is_none_or(|now| Some(now) == before) {
            self.0.insert(key.clone(), facts);
        }
    }

    pub fn remove(&mut self, key: &Key) -> Option<PodFacts> {
        self.0.remove(key)
    }
}
