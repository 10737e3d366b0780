//! Announcements: the addresses of new devices are told a second and a third time.
//!
//! See [`Operation::AnnounceAddress`] for whom. It is done once routers have had time to learn of
//! the device, and only for addresses that are there still.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use ratchet_kernel::{KernelError, Look};
use ratchet_model::{
    LinkId,
    device::{At, Netns, Operation, Step},
};

use super::Engine;

/// How long after a device was made: soon for an idle machine, and later for a busy one.
const DELAYS: [Duration; 2] = [Duration::from_millis(150), Duration::from_secs(2)];

/// Addresses to be announced, by when.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// One queue a delay, so that each is in the order of time.
    queues: [VecDeque<Due>; DELAYS.len()],
}

/// What is due, and when.
type Due = (Instant, Vec<(At, IpNet)>);

impl Announcements {
    /// Takes note of the addresses that a plan has added.
    pub fn note(&mut self, steps: &[Step], results: &[Result<(), KernelError>], now: Instant) {
        let added = steps
            .iter()
            .zip(results)
            .filter(|(_, result)| result.is_ok())
            .filter_map(|(step, _)| match &step.operation {
                Operation::AddAddress(at, address) => Some((at.clone(), *address)),
                _ => None,
            });
        let added: Vec<(At, IpNet)> = added.collect();
        if added.is_empty() {
            return;
        }
        for (queue, delay) in self.queues.iter_mut().zip(DELAYS) {
            queue.push_back((now + delay, added.clone()));
        }
    }

    /// When the next ones are due.
    pub fn due(&self) -> Option<Instant> {
        self.queues
            .iter()
            .filter_map(|queue| queue.front())
            .map(|(due, _)| *due)
            .min()
    }

    fn take_due(&mut self, now: Instant) -> BTreeSet<(At, IpNet)> {
        let mut taken = BTreeSet::new();
        for queue in &mut self.queues {
            while let Some((_, addresses)) = queue.pop_front_if(|(due, _)| *due <= now) {
                taken.extend(addresses);
            }
        }
        taken
    }
}

impl Engine {
    /// Announces what is due.
    pub(super) fn announce(&mut self) {
        let due = self.announcements.take_due(self.clock.now());
        if due.is_empty() {
            return;
        }
        let mut looks: BTreeMap<Netns, BTreeSet<String>> = BTreeMap::new();
        for (at, _) in &due {
            looks
                .entry(at.netns.clone())
                .or_default()
                .insert(at.name.clone());
        }
        let opened = self.open_namespaces(looks.keys()).unwrap_or_default();
        let looks = looks
            .into_iter()
            .filter(|(netns, _)| opened.contains(netns));
        let looks = looks
            .map(|(netns, names)| (netns, Look::Names(names)))
            .collect();
        let observed = self.kernel.observe(&looks, &|_| true).unwrap_or_default();
        let there = observed.iter().flat_map(|device| {
            device
                .addresses
                .iter()
                .map(|found| (device.at(), found.address))
        });
        let steps: Vec<Step> = there
            .filter(|found| due.contains(found))
            .map(|(at, address)| Step {
                link: LinkId::UNKNOWN,
                operation: Operation::AnnounceAddress(at, address),
            })
            .collect();
        for error in self
            .kernel
            .execute(&steps)
            .into_iter()
            .filter_map(Result::err)
        {
            tracing::debug!(%error, "cannot announce an address");
        }
    }
}
