//! The addresses of new devices are announced a second and a third time.
//!
//! See [`Operation::AnnounceAddress`] for whom. It is done once routers have had time to hear of
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

use crate::{kernel::Kernel, sandboxes::Sandboxes};

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

    /// Announces what is due.
    pub fn announce(&mut self, kernel: &mut dyn Kernel, sandboxes: &Sandboxes, now: Instant) {
        let due = self.take_due(now);
        if due.is_empty() {
            return;
        }
        let mut names: BTreeMap<Netns, BTreeSet<String>> = BTreeMap::new();
        for (at, _) in &due {
            let names = names.entry(at.netns.clone()).or_default();
            names.insert(at.name.clone());
        }
        let entered = sandboxes.enter(kernel, names.keys()).unwrap_or_default();
        let looks = names
            .into_iter()
            .filter(|(netns, _)| entered.contains(netns))
            .map(|(netns, names)| (netns, Look::Names(names)))
            .collect();
        let observed = kernel.observe(&looks, &|_| true).unwrap_or_default();
        let there = observed.iter().flat_map(|device| {
            let addresses = device.addresses.iter();
            addresses.map(|found| (device.at(), found.address))
        });
        let steps: Vec<Step> = there
            .filter(|found| due.contains(found))
            .map(|(at, address)| Step {
                link: LinkId::UNKNOWN,
                operation: Operation::AnnounceAddress(at, address),
            })
            .collect();
        let errors = kernel.execute(&steps).into_iter().filter_map(Result::err);
        for error in errors {
            tracing::debug!(%error, "cannot announce an address");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_added_is_due_twice() {
        let at = At {
            netns: Netns::Sandbox("s1".parse().unwrap()),
            name: "eth1".into(),
        };
        let address: IpNet = "10.0.0.1/24".parse().unwrap();
        let step = |operation| Step {
            link: LinkId::UNKNOWN,
            operation,
        };
        let steps = [
            step(Operation::AddAddress(at.clone(), address)),
            step(Operation::AddAddress(
                at.clone(),
                "10.0.0.2/24".parse().unwrap(),
            )),
            step(Operation::SetUp(at.clone(), true)),
        ];
        let (mut announcements, now) = (Announcements::default(), Instant::now());
        let results = [Ok(()), Err(KernelError::Skipped), Ok(())];
        announcements.note(&steps, &results, now);
        assert_eq!(announcements.due(), Some(now + DELAYS[0]));
        assert_eq!(announcements.take_due(now), BTreeSet::new());
        for delay in DELAYS {
            let due = announcements.take_due(now + delay);
            assert_eq!(due, [(at.clone(), address)].into());
        }
        assert_eq!(announcements.due(), None);
    }
}
