//! Deletes devices, many in one go.
//!
//! A deletion costs an RCU barrier, some 24 ms, whether of one device or of a thousand. So the
//! doomed devices of a namespace are put into a group, and the group is deleted; where all of ours
//! go, as when a pod ends, they are in one already.

use std::collections::{BTreeMap, HashSet};

use nix::errno::Errno;
use ratchet_model::{
    device::{Alias, At, GROUP_DOOMED, GROUP_OURS, Netns, Observed, Operation},
    names::LinkId,
};

use super::{Phase, Run, describe};
use crate::{
    error::KernelError,
    observe::MANY,
    reply, request,
    socket::{Channel, Failure},
};

/// A device that is there, with the step that deletes it.
struct Doomed {
    position: usize,
    index: u32,
    group: u32,
}

impl<'a> Run<'a> {
    pub(super) fn delete(&mut self) {
        let mut places: BTreeMap<&'a Netns, Vec<(usize, &'a At)>> = BTreeMap::new();
        for position in self.take(Phase::Delete) {
            if let Operation::Delete(at) = self.operation(position) {
                places.entry(&at.netns).or_default().push((position, at));
            }
        }
        let mut doomed: Vec<(&Netns, Vec<Doomed>)> = places
            .into_iter()
            .map(|(netns, wanted)| (netns, self.doom(wanted)))
            .collect();
        // The largest first: peers of its veths die with them, and nothing is left to wait for
        // elsewhere.
        doomed.sort_by_key(|(_, devices)| std::cmp::Reverse(devices.len()));
        for (netns, devices) in doomed {
            self.delete_in(netns, devices);
        }
    }

    /// Looks up what is to be deleted. What is gone already is settled; so is what is not
    /// Ratchet's: whatever a plan says, a stranger's device is not deleted.
    fn doom(&mut self, wanted: Vec<(usize, &'a At)>) -> Vec<Doomed> {
        let ats: Vec<At> = wanted.iter().map(|(_, at)| (*at).clone()).collect();
        let found = match self.kernel.find(&ats) {
            Ok(found) => found,
            Err(error) => {
                // A namespace that is gone took its devices along.
                let outcome = if error.is_netns_gone() {
                    Ok(())
                } else {
                    Err(error)
                };
                wanted
                    .into_iter()
                    .for_each(|(position, _)| self.settle(position, outcome.clone()));
                return Vec::new();
            }
        };
        let mut doomed = Vec::new();
        for ((position, at), device) in wanted.into_iter().zip(found) {
            match device {
                None => self.settle(position, Ok(())),
                Some(device) if !self.may_go(position, &device) => {
                    let doing = describe::doing(self.operation(position));
                    let at = at.clone();
                    self.settle(position, Err(KernelError::Foreign { doing, at }));
                }
                Some(device) => doomed.push(Doomed {
                    position,
                    index: device.index,
                    group: device.group,
                }),
            }
        }
        doomed
    }

    /// Whether a device may be deleted by a step: it is ours still, and of no other link than it
    /// was when the plan was made.
    fn may_go(&self, position: usize, device: &Observed) -> bool {
        let link = self.steps[position].link;
        let other = |alias: &Alias| link != LinkId::UNKNOWN && alias.link != link;
        device.is_ours() && !device.alias.as_ref().is_some_and(other)
    }

    fn delete_in(&mut self, netns: &Netns, devices: Vec<Doomed>) {
        match self
            .kernel
            .talk(netns, |channel| delete(channel, netns, &devices))
        {
            Ok(answers) => {
                for (device, answer) in devices.into_iter().zip(answers) {
                    let outcome = answer.map_err(|failure| {
                        describe::explain(self.operation(device.position), failure)
                    });
                    self.settle(device.position, outcome);
                }
            }
            Err(error) => devices
                .into_iter()
                .for_each(|device| self.settle(device.position, Err(error.clone()))),
        }
    }
}

/// Deletes devices. One that is gone is fine: it may have been the peer of another.
fn delete(channel: &mut Channel, netns: &Netns, devices: &[Doomed]) -> Vec<Result<(), Failure>> {
    let gone_is_fine = |answer: Result<(), Failure>| match answer {
        Err(failure) if failure.errno == Errno::ENODEV => Ok(()),
        answer => answer,
    };
    if let [device] = devices {
        return vec![gone_is_fine(
            channel.once(request::delete_link(device.index)),
        )];
    }
    let group = if is_all_of_ours(channel, netns, devices) {
        GROUP_OURS
    } else {
        GROUP_DOOMED
    };
    let outside = devices.iter().filter(|device| device.group != group);
    let mut put = channel
        .batch(
            outside
                .map(|device| request::set_group(device.index, group))
                .collect(),
        )
        .into_iter();
    let mut answers: Vec<_> = devices
        .iter()
        .map(|device| {
            if device.group == group {
                Ok(())
            } else {
                put.next().unwrap_or(Ok(()))
            }
        })
        .collect();
    if answers.iter().any(Result::is_ok) {
        let mut all = gone_is_fine(channel.once(request::delete_group(group)));
        if all.is_err() && expel(channel, netns, devices, group) {
            all = gone_is_fine(channel.once(request::delete_group(group)));
        }
        answers
            .iter_mut()
            .filter(|answer| answer.is_ok())
            .for_each(|answer| answer.clone_from(&all));
    }
    answers.into_iter().map(gone_is_fine).collect()
}

/// Takes all other devices of a namespace out of a group: its pod's root may have put one into it
/// that cannot be deleted, such as `lo`, and then the kernel deletes none. Returns whether there
/// were any.
fn expel(channel: &mut Channel, netns: &Netns, devices: &[Doomed], group: u32) -> bool {
    let others = others_in(channel, netns, devices, group).unwrap_or_default();
    let requests: Vec<_> = others
        .into_iter()
        .map(|index| request::set_group(index, 0))
        .collect();
    !requests.is_empty() && channel.batch(requests).iter().all(Result::is_ok)
}

/// Whether no other device of the namespace is in the group that ours are born into. Only found out
/// where it is worth a dump: to put a device into another group takes ten times as long as to see
/// it in one.
fn is_all_of_ours(channel: &mut Channel, netns: &Netns, devices: &[Doomed]) -> bool {
    if devices.len() <= MANY {
        return false;
    }
    others_in(channel, netns, devices, GROUP_OURS).is_ok_and(|others| others.is_empty())
}

/// The indexes of the other devices of a namespace that are in a group.
fn others_in(
    channel: &mut Channel,
    netns: &Netns,
    devices: &[Doomed],
    group: u32,
) -> Result<Vec<u32>, Failure> {
    let doomed: HashSet<u32> = devices.iter().map(|device| device.index).collect();
    channel.dump(request::dump_links(), |payload| {
        let device = reply::link(netns, payload)?;
        (device.group == group && !doomed.contains(&device.index)).then_some(device.index)
    })
}
