//! The configuration of a device, up to its commit.

use super::state::{Planner, step};
use crate::{
    device::{Alias, At, Observed, ObservedAddress, ObservedRoute, Operation, Part, WantedEnd},
    leftover::Leftover,
};

/// Where the device of a wanted end comes from.
pub(super) enum Origin<'a> {
    /// It is there already.
    InPlace(&'a Observed),
    /// It is moved there, which takes its addresses and routes.
    Moved(&'a Observed),
    /// It is created, and gets what another one has left.
    Created(Option<Leftover>),
}

impl Planner<'_> {
    /// Gives a device all that is wanted of it and it does not have.
    pub fn configure(&mut self, end: &WantedEnd, origin: Origin<'_>) {
        let (mut addresses, mut routes) = (&[][..], &[][..]);
        let (device, is_new_to_its_sandbox, leftover) = match origin {
            Origin::InPlace(device) if end.is_complete(device) => return,
            Origin::InPlace(device) if end.is_said_complete(device) => return self.commit(end),
            Origin::InPlace(device) => {
                self.begin(end, device);
                (addresses, routes) = (&device.addresses, &device.routes);
                let alias = device.says();
                let is_new = alias.is_none_or(|alias| alias.sandbox != end.alias.sandbox);
                // Without alias, its creator died before it had everything.
                let kept = self.leftovers.of(end).cloned();
                let leftover = kept.filter(|_| alias.is_none());
                (Some(device), is_new, leftover)
            }
            Origin::Moved(device) => (Some(device), true, None),
            Origin::Created(leftover) => (None, true, leftover),
        };
        if let Some(device) = device {
            self.set_attributes(end, device);
        }
        if end.alias.part != Part::Pod {
            self.push(end, Operation::Silence);
        }
        self.remove_stale(end, addresses, routes);
        self.add_addresses(end, addresses, leftover.as_ref());
        // A user who sets a live interface down wants it down: only a device that is new to its
        // sandbox is set up.
        // What is on the node is set up when it is joined.
        if is_new_to_its_sandbox && end.alias.part == Part::Pod {
            self.push(end, |at| Operation::SetUp(at, end.up));
        }
        self.add_routes(end, routes, leftover.as_ref());
        self.commit(end);
    }

    fn commit(&mut self, end: &WantedEnd) {
        let commit = Operation::Commit(end.at(), end.alias.clone());
        self.commits.push(step(end, commit));
    }

    fn push(&mut self, end: &WantedEnd, operation: impl FnOnce(At) -> Operation) {
        self.configuration.push(step(end, operation(end.at())));
    }

    /// Takes the alias of a complete device away before it is changed.
    fn begin(&mut self, end: &WantedEnd, device: &Observed) {
        let alias = device.says();
        if alias.is_some_and(|alias| alias.config != Alias::UNFINISHED) {
            let unfinished = Alias {
                config: Alias::UNFINISHED,
                ..end.alias.clone()
            };
            self.push(end, |at| Operation::Begin(at, unfinished));
        }
    }

    fn set_attributes(&mut self, end: &WantedEnd, device: &Observed) {
        if device.mac != Some(end.mac) {
            self.push(end, |at| Operation::SetMac(at, end.mac));
        }
        if device.mtu != end.mtu.bytes() {
            self.push(end, |at| Operation::SetMtu(at, end.mtu));
        }
    }

    /// Removes what is ours and no longer wanted.
    fn remove_stale(
        &mut self,
        end: &WantedEnd,
        addresses: &[ObservedAddress],
        routes: &[ObservedRoute],
    ) {
        for found in routes.iter().filter(|found| found.ours) {
            if !end.routes.contains(&found.route) {
                self.push(end, |at| Operation::RemoveRoute(at, found.route.clone()));
            }
        }
        for found in addresses.iter().filter(|found| found.ours) {
            if !end.addresses.contains(&found.address) {
                self.push(end, |at| Operation::RemoveAddress(at, found.address));
            }
        }
    }

    /// Adds the wanted addresses, and those that users had added to the device that was replaced.
    fn add_addresses(
        &mut self,
        end: &WantedEnd,
        present: &[ObservedAddress],
        leftover: Option<&Leftover>,
    ) {
        for address in &end.addresses {
            if !present.iter().any(|found| found.address == *address) {
                self.push(end, |at| Operation::AddAddress(at, *address));
            }
        }
        for address in leftover.iter().flat_map(|left| &left.addresses) {
            if !end.addresses.contains(address) {
                self.push(end, |at| Operation::RestoreAddress(at, *address));
            }
        }
    }

    /// The same for routes.
    fn add_routes(
        &mut self,
        end: &WantedEnd,
        present: &[ObservedRoute],
        leftover: Option<&Leftover>,
    ) {
        for route in &end.routes {
            if !present.iter().any(|found| found.route == *route) {
                self.push(end, |at| Operation::AddRoute(at, route.clone()));
            }
        }
        for route in leftover.iter().flat_map(|left| &left.routes) {
            if !end.routes.contains(route) {
                self.push(end, |at| Operation::RestoreRoute(at, route.clone()));
            }
        }
    }
}
