//! Publishes without an answer, which may still land: they were abandoned, or the connection broke.
//!
//! What harm is in that? The other calls may land at any time: a removal names the sandbox that
//! it is about, a claim gives a link the VNI that it has, and whether the node is registered is
//! told again by each resync. Two publishes do not disturb each other either, since the store
//! orders them by `created`. But a publish that lands after the removal of its sandbox would bring
//! back a pod that has gone, for good. So the removal of such a sandbox is made twice: once, and
//! again when nothing that was sent before the first one can still be on its way. Until then the
//! sandbox is not forgotten, on disk either.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ratchet_model::SandboxId;

/// How long after a store has answered a call that was made before may still land. etcd gives up
/// after 5 s and two election timeouts (etcd, `server/config/config.go`, `ReqTimeout`), 7 s with
/// its defaults; SQLite's calls are done in the order in which they were made.
pub(crate) const SETTLED: Duration = Duration::from_secs(10);

/// A sandbox whose publish had no answer.
#[derive(Debug, Default)]
struct Doubt {
    /// When its removal was answered first.
    removed: Option<Instant>,
    /// Whether it was said that the second removal is due.
    told: bool,
}

impl Doubt {
    fn due(&self) -> Option<Instant> {
        self.removed.map(|removed| removed + SETTLED)
    }
}

/// The sandboxes concerned.
#[derive(Debug, Default)]
pub(super) struct Doubts(BTreeMap<SandboxId, Doubt>);

impl Doubts {
    /// A publish of this sandbox had no answer.
    pub fn add(&mut self, sandbox: SandboxId) {
        self.0.insert(sandbox, Doubt::default());
    }

    /// The store has removed the sandbox. Returns whether it will stay removed.
    pub fn is_settled(&mut self, sandbox: &SandboxId, now: Instant) -> bool {
        let Some(doubt) = self.0.get_mut(sandbox) else {
            return true;
        };
        doubt.removed.get_or_insert(now);
        let settled = doubt.due().is_some_and(|due| due <= now);
        if settled {
            self.0.remove(sandbox);
        }
        settled
    }

    /// When a sandbox is to be removed for the second time.
    pub fn next_due(&self) -> Option<Instant> {
        let waiting = self.0.values().filter(|doubt| !doubt.told);
        waiting.filter_map(Doubt::due).min()
    }

    /// Whether that is now. Said once for each sandbox: a removal that fails is tried again like
    /// any other.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let mut any = false;
        for doubt in self.0.values_mut() {
            if !doubt.told && doubt.due().is_some_and(|due| due <= now) {
                doubt.told = true;
                any = true;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_whose_publish_was_abandoned_is_removed_twice() {
        let [doubtful, other]: [SandboxId; 2] = ["s1", "s2"].map(|id| id.parse().unwrap());
        let (mut doubts, now) = (Doubts::default(), Instant::now());
        doubts.add(doubtful.clone());
        assert!(doubts.is_settled(&other, now));
        assert!(!doubts.is_settled(&doubtful, now));
        assert!(!doubts.is_settled(&doubtful, now + SETTLED / 2));
        doubts.add(doubtful.clone());
        assert!(
            !doubts.is_settled(&doubtful, now + SETTLED),
            "abandoned again"
        );
        assert!(doubts.is_settled(&doubtful, now + SETTLED * 2));
        assert!(doubts.is_settled(&doubtful, now + SETTLED * 2));
    }

    #[test]
    fn the_second_removal_is_due_once() {
        let sandbox: SandboxId = "s1".parse().unwrap();
        let (mut doubts, now) = (Doubts::default(), Instant::now());
        doubts.add(sandbox.clone());
        assert_eq!(
            doubts.next_due(),
            None,
            "the first removal was not answered yet"
        );
        assert!(!doubts.is_settled(&sandbox, now));
        assert_eq!(doubts.next_due(), Some(now + SETTLED));
        assert!(!doubts.take_due(now));
        assert!(doubts.take_due(now + SETTLED));
        assert_eq!(doubts.next_due(), None);
        assert!(!doubts.take_due(now + SETTLED));
        assert!(doubts.is_settled(&sandbox, now + SETTLED));
    }
}
