//! What the kernel still knows when an agent starts and the store has forgotten.
//!
//! An agent that runs on believes for a while what a store has lost (`known`). One that was
//! restarted meanwhile has no facts to believe. But where the store has forgotten a pod of this
//! node, it has forgotten who declares links with it, too: the devices in the pod's sandbox stay
//! for as long, and say which VNIs their links had.

use std::{collections::BTreeMap, time::Instant};

use ratchet_model::{LinkId, SandboxId, device::Wanted};

use super::known::MEMORY;

/// Links of which nothing is known but their devices.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// The sandbox that a device was found in.
    links: BTreeMap<LinkId, SandboxId>,
    since: Option<Instant>,
}

impl Restored {
    /// Adds links whose devices were found. They are believed from now on.
    pub fn add(&mut self, links: impl IntoIterator<Item = (LinkId, SandboxId)>, now: Instant) {
        self.links.extend(links);
        self.since = Some(now);
    }

    /// Forgets what is known by now, what has been waited for too long, and what is in other
    /// sandboxes than these.
    pub fn forget(
        &mut self,
        known: impl Iterator<Item = LinkId>,
        is_current: impl Fn(&SandboxId) -> bool,
        now: Instant,
    ) {
        if self
            .since
            .is_some_and(|since| now.duration_since(since) > MEMORY)
        {
            self.links.clear();
        }
        for link in known {
            self.links.remove(&link);
        }
        self.links.retain(|_, sandbox| is_current(sandbox));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether it is one of these.
    pub fn has(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// What is left of these links stays as it is.
    pub fn wanted(&self) -> impl Iterator<Item = Wanted> {
        self.links.keys().copied().map(Wanted::Frozen)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_restored_link_is_believed_until_it_is_declared_its_sandbox_leaves_or_time_is_up() {
        let now = Instant::now();
        let ids: [LinkId; 3] = [1, 2, 3].map(|n| format!("{n:016x}").parse().unwrap());
        let [stays, leaves]: [SandboxId; 2] = ["s1", "s2"].map(|id| id.parse().unwrap());
        let mut restored = Restored::default();
        let found = ids
            .into_iter()
            .zip([&stays, &stays, &leaves].map(Clone::clone));
        restored.add(found, now);
        restored.forget([ids[0]].into_iter(), |id| *id == stays, now);
        assert_eq!(ids.map(|id| restored.has(id)), [false, true, false]);
        assert_eq!(
            restored.wanted().collect::<Vec<_>>(),
            [Wanted::Frozen(ids[1])]
        );
        let late = now + MEMORY + Duration::from_secs(1);
        restored.forget(std::iter::empty(), |_| true, late);
        assert_eq!(restored.len(), 0);
    }
}
