//! RestoredLinks: what the kernel still knows when an agent starts and the store has forgotten.
//!
//! An agent that runs on believes for a while what a store has lost (`facts`). One that was
//! restarted meanwhile has no facts to believe. But where the store has forgotten a pod of this
//! node, it has forgotten who declares links with it, too: the devices in the pod's sandbox stay
//! for as long, and say which VNIs their links had.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use ratchet_kernel::Look;
use ratchet_model::{
    LinkId, PodKey, SandboxId, Vni,
    device::{Kind, Netns, Wanted},
};

use super::Engine;
use crate::facts::MEMORY;

/// Links of which nothing is known but their devices.
#[derive(Default)]
pub(super) struct RestoredLinks {
    /// The sandbox that a device was found in.
    links: BTreeMap<LinkId, SandboxId>,
    since: Option<Instant>,
}

impl RestoredLinks {
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

    /// Whether it is one of these.
    pub fn has(&self, link: LinkId) -> bool {
        self.links.contains_key(&link)
    }

    /// What is left of these links stays as it is.
    pub fn wanted(&self) -> impl Iterator<Item = Wanted> {
        self.links.keys().copied().map(Wanted::Frozen)
    }
}

impl Engine {
    /// The store does not say of these pods that they are here, and they were before this agent
    /// was: looks at what they have. Gives whether that worked.
    pub(super) fn restore_from_devices(&mut self, forgotten: &BTreeSet<PodKey>) -> bool {
        if forgotten.is_empty() {
            return true;
        }
        let current = forgotten
            .iter()
            .filter_map(|pod| self.sandboxes.current(pod));
        let places: Vec<Netns> = current
            .map(|state| Netns::Sandbox(state.id.clone()))
            .collect();
        let seen = self.open_namespaces(places.iter()).and_then(|opened| {
            let looks = opened.into_iter().map(|netns| (netns, Look::All)).collect();
            self.kernel.observe(&looks, &|_| false)
        });
        let devices = match seen {
            Ok(devices) => devices,
            Err(error) => {
                tracing::error!(%error, "cannot see what is in the kernel");
                return false;
            }
        };
        for device in devices {
            let Some(alias) = device.alias else { continue };
            let Some(sandbox) = alias.sandbox else {
                continue;
            };
            if let Kind::Vxlan { vni, .. } = device.kind
                && let Ok(vni) = Vni::try_from(vni)
            {
                self.known.restore_vni(alias.link, vni);
            }
            self.restored.links.insert(alias.link, sandbox);
        }
        self.restored.since = Some(self.clock.now());
        let links = self.restored.links.len();
        if links > 0 {
            tracing::warn!(
                links,
                "the store has forgotten pods of this node; what they have stays until it is \
                 declared again"
            );
        }
        true
    }
}
