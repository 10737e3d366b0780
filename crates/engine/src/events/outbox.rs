//! At most one event a minute a pod, however often what is wrong with it changes: the author of one
//! pod must not be able to fill the API server with events, or those of another pod with noise.
//!
//! The first one is posted at once. What comes within the minute after it is posted together.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ratchet_model::Reason;

use super::Events;

/// The time between two events of a pod.
const PAUSE: Duration = Duration::from_secs(60);

/// So many texts wait for a pod's next event; of the others only their number is told.
const KEPT: usize = 4;

/// A pod as Kubernetes names it: namespace and name.
type Key = (String, String);

/// Where events wait for their time.
pub(crate) struct Outbox {
    events: Box<dyn Events>,
    /// By pod that had an event within the last minute.
    pods: BTreeMap<Key, Waiting>,
}

/// What is yet to be told of a pod.
struct Waiting {
    /// When its next event may be posted.
    next: Instant,
    texts: Vec<(Reason, String)>,
    more: usize,
}

impl Outbox {
    /// An empty one.
    pub fn new(events: Box<dyn Events>) -> Self {
        Self {
            events,
            pods: BTreeMap::new(),
        }
    }

    /// Whether a warning reaches its user now.
    pub fn is_online(&self) -> bool {
        self.events.is_online()
    }

    /// Warns of a pod now, or as soon as it may have an event again.
    pub fn warn(&mut self, pod: &Key, reason: &Reason, text: &str, now: Instant) {
        self.post_due(now);
        match self.pods.get_mut(pod) {
            Some(waiting) => waiting.add(reason, text),
            None => self.post(pod, reason, text, now),
        }
    }

    /// When the next one is to be posted.
    pub fn due(&self) -> Option<Instant> {
        let waiting = self.pods.values().filter(|pod| !pod.texts.is_empty());
        waiting.map(|pod| pod.next).min()
    }

    /// Posts what has waited for long enough.
    pub fn post_due(&mut self, now: Instant) {
        let due = self.pods.extract_if(.., |_, waiting| waiting.next <= now);
        for (pod, waiting) in due.collect::<Vec<_>>() {
            let mut texts: Vec<&str> = waiting.texts.iter().map(|(_, text)| &**text).collect();
            let more = format!("and {} more", waiting.more);
            texts.extend((waiting.more > 0).then_some(&*more));
            let Some((reason, _)) = waiting.texts.first() else {
                continue;
            };
            self.post(&pod, reason, &texts.join("; "), now);
        }
    }

    fn post(&mut self, pod: &Key, reason: &Reason, text: &str, now: Instant) {
        let (namespace, name) = pod;
        self.events.warn(namespace, name, reason, text);
        let waiting = Waiting {
            next: now + PAUSE,
            texts: Vec::new(),
            more: 0,
        };
        self.pods.insert(pod.clone(), waiting);
    }
}

impl Waiting {
    fn add(&mut self, reason: &Reason, text: &str) {
        if self.texts.iter().any(|(_, waits)| waits == text) {
            return;
        }
        if self.texts.len() < KEPT {
            self.texts.push((reason.clone(), text.to_owned()));
        } else {
            self.more += 1;
        }
    }
}

#[cfg(test)]
mod tests;
