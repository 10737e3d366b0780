//! A device that is created, perhaps in the place of another one.

use super::state::Planner;
use crate::{
    device::{Netns, NewDevice, Observed, WantedEnd},
    leftover::Leftover,
};

impl Planner<'_> {
    /// Deletes the devices of an end that do not fit. Returns what they leave, or what a device
    /// that is gone already has left.
    pub fn replace(&mut self, end: &WantedEnd) -> Option<Leftover> {
        let kept = self.leftovers.of(end);
        let mut leftover = kept.cloned();
        for number in self.unclaimed(end) {
            let device = &self.index.observed[number];
            if device.is_at(&end.netns, &end.name) && (device.says().is_some() || kept.is_some()) {
                leftover = leftover_of(device, end, kept);
            }
            self.delete(number);
        }
        self.remembered.extend(leftover.clone());
        leftover
    }

    /// The device to be created for an end. It gets the index of the one that it replaces.
    pub fn new_device(&self, end: &WantedEnd, leftover: Option<&Leftover>) -> NewDevice {
        let replaced = || self.index.at(end).map(|device| device.index);
        NewDevice {
            at: end.at(),
            mac: end.mac,
            mtu: end.mtu,
            index: leftover.map(|leftover| leftover.index).or_else(replaced),
        }
    }
}

/// What a device that is where an end is wanted leaves. An unfinished one also leaves what it
/// should have got from the one before it. A parked one leaves nothing.
fn leftover_of(device: &Observed, end: &WantedEnd, kept: Option<&Leftover>) -> Option<Leftover> {
    let Netns::Sandbox(sandbox) = &end.netns else {
        return None;
    };
    let addresses = device.addresses.iter().filter(|found| !found.ours);
    let routes = device.routes.iter().filter(|found| !found.ours);
    let mut leftover = Leftover {
        link: end.alias.link,
        end: end.alias.end,
        sandbox: sandbox.clone(),
        index: device.index,
        addresses: addresses.map(|found| found.address).collect(),
        routes: routes.map(|found| found.route.clone()).collect(),
    };
    if let Some(before) = kept.filter(|_| device.says().is_none()) {
        for address in &before.addresses {
            if !leftover.addresses.contains(address) {
                leftover.addresses.push(*address);
            }
        }
        for route in &before.routes {
            if !leftover.routes.contains(route) {
                leftover.routes.push(route.clone());
            }
        }
    }
    Some(leftover)
}
