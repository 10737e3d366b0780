//! Configures devices that exist: MAC address and MTU, addresses, up, routes, and the alias at
//! last.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use netlink_packet_route::route::RouteProtocol;
use nix::errno::Errno;
use ratchet_model::device::{At, Netns, Operation, PROTOCOL_OURS, Step};

use super::{Jobs, Phase, Run, describe};
use crate::{
    error::KernelError,
    request,
    socket::{Failure, Request},
    sysctl,
};

/// Indexes of the devices that exist, or why they cannot be looked up.
pub(super) type Indexes<'a> = HashMap<&'a At, Result<Option<u32>, KernelError>>;

impl<'a> Run<'a> {
    pub(super) fn configure(&mut self) {
        // Looked up once for all that is done by index.
        let indexes = self.indexes();
        self.set_by_index(Phase::Begin, &indexes);
        let device = self.take(Phase::Device);
        self.set(device);
        let address = self.take(Phase::Address);
        self.change_addresses(address, &indexes);
        self.join(&indexes);
        let up = self.take(Phase::Up);
        self.set(up);
        self.set_by_index(Phase::Route, &indexes);
        self.set_by_index(Phase::Commit, &indexes);
    }

    fn set_by_index(&mut self, phase: Phase, indexes: &Indexes<'a>) {
        for (position, failure) in self.by_index(phase, None, indexes) {
            self.refuse(position, failure);
        }
    }

    /// What is done by name.
    fn set(&mut self, positions: Vec<usize>) {
        let mut jobs = Jobs::new();
        for position in positions {
            let (at, request) = match self.operation(position) {
                Operation::SetMac(at, mac) => (at, request::set_mac(&at.name, *mac)),
                Operation::SetMtu(at, mtu) => (at, request::set_mtu(&at.name, *mtu)),
                Operation::SetUp(at, up) => (at, request::set_up(&at.name, *up)),
                Operation::Silence(at) => (at, request::silence(&at.name)),
                _ => continue,
            };
            jobs.entry(&at.netns).or_default().push((position, request));
        }
        for (position, failure) in self.send(jobs) {
            self.refuse(position, failure);
        }
    }

    fn change_addresses(&mut self, positions: Vec<usize>, indexes: &Indexes<'a>) {
        let (disabled, others): (Vec<_>, Vec<_>) = self
            .by_index(Phase::Address, Some(positions), indexes)
            .into_iter()
            .partition(|(position, failure)| ipv6_disabled(self.operation(*position), failure));
        let again = self.enable_ipv6(disabled);
        let still = self.by_index(Phase::Address, Some(again), indexes);
        for (position, failure) in others.into_iter().chain(still) {
            self.refuse(position, failure);
        }
    }

    /// Clears `disable_ipv6` for the devices of these steps; returns the steps that are worth
    /// another try.
    fn enable_ipv6(&mut self, refused: Vec<(usize, Failure)>) -> Vec<usize> {
        let mut places: BTreeMap<&'a Netns, Vec<(usize, Failure)>> = BTreeMap::new();
        for (position, failure) in refused {
            for at in self.operation(position).devices() {
                places
                    .entry(&at.netns)
                    .or_default()
                    .push((position, failure.clone()));
            }
        }
        let mut again = Vec::new();
        for (netns, refused) in places {
            let names = refused
                .iter()
                .flat_map(|(position, _)| self.operation(*position).devices());
            let names = names
                .map(|at| at.name.as_str())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>();
            let enabled = self
                .kernel
                .space(netns)
                .map(|space| sysctl::enable_ipv6(&space.handle, &names));
            match enabled {
                Ok(Ok(())) => again.extend(refused.into_iter().map(|(position, _)| position)),
                Ok(Err(error)) => {
                    let reason = format!(
                        "IPv6 is disabled on the interface, and enabling it failed: {error}"
                    );
                    for (position, failure) in refused {
                        self.refuse(
                            position,
                            Failure {
                                reason: Some(reason.clone()),
                                ..failure
                            },
                        );
                    }
                }
                Err(error) => {
                    for (position, _) in refused {
                        self.settle(position, Err(error.clone()));
                    }
                }
            }
        }
        again
    }

    /// What is done by index. Settles what can be, and returns the steps that the kernel refused.
    fn by_index(
        &mut self,
        phase: Phase,
        positions: Option<Vec<usize>>,
        indexes: &Indexes<'a>,
    ) -> Vec<(usize, Failure)> {
        let positions = positions.unwrap_or_else(|| self.take(phase));
        let mut jobs = Jobs::new();
        for position in positions {
            let operation = self.operation(position);
            let Some((at, removal)) = subject(operation) else {
                continue;
            };
            match indexes.get(at) {
                Some(Ok(Some(index))) => match self.indexed_request(operation, at, *index) {
                    Ok(request) => jobs.entry(&at.netns).or_default().push((position, request)),
                    Err(error) => self.settle(position, Err(error)),
                },
                Some(Err(error)) => self.settle(position, Err(error.clone())),
                // Where there is no device there is no address or route of it.
                _ if removal => self.settle(position, Ok(())),
                _ => {
                    let doing = describe::doing(operation);
                    self.settle(
                        position,
                        Err(KernelError::NoDevice {
                            doing,
                            at: at.clone(),
                        }),
                    );
                }
            }
        }
        self.send(jobs)
    }

    fn indexed_request(
        &self,
        operation: &Operation,
        at: &At,
        index: u32,
    ) -> Result<Request, KernelError> {
        Ok(match operation {
            Operation::AddAddress(_, address) => {
                request::add_address(index, *address, Some(PROTOCOL_OURS))
            }
            Operation::RestoreAddress(_, address) => request::add_address(index, *address, None),
            Operation::AnnounceAddress(_, address) => request::announce_address(index, *address),
            Operation::RemoveAddress(_, address) => request::remove_address(index, *address),
            Operation::AddRoute(_, route) => {
                request::add_route(index, route, RouteProtocol::Other(PROTOCOL_OURS))
            }
            Operation::RestoreRoute(_, route) => {
                request::add_route(index, route, RouteProtocol::Boot)
            }
            Operation::RemoveRoute(_, route) => request::remove_route(index, route),
            Operation::Begin(_, alias) | Operation::Commit(_, alias) => {
                request::set_alias(index, self.kernel.sign(alias, &at.netns, index)?)
            }
            _ => return Err(KernelError::Skipped),
        })
    }

    /// Looks up the devices of all steps that are done by index, each once.
    fn indexes(&self) -> Indexes<'a> {
        let mut places: BTreeMap<&'a Netns, BTreeSet<&'a At>> = BTreeMap::new();
        for Step { operation, .. } in self.steps {
            let is_joint = matches!(operation, Operation::Join { .. });
            let joined = operation.devices().filter(|_| is_joint);
            for at in joined.chain(subject(operation).map(|(at, _)| at)) {
                places.entry(&at.netns).or_default().insert(at);
            }
        }
        let mut indexes = Indexes::new();
        for ats in places.into_values() {
            let wanted: Vec<At> = ats.iter().map(|at| (*at).clone()).collect();
            match self.kernel.find(&wanted) {
                Ok(found) => {
                    let found = found
                        .into_iter()
                        .map(|device| Ok(device.map(|device| device.index)));
                    indexes.extend(ats.into_iter().zip(found));
                }
                Err(error) => indexes.extend(ats.into_iter().map(|at| (at, Err(error.clone())))),
            }
        }
        indexes
    }
}

/// The device of a step that is done by index, and whether the step removes something.
fn subject(operation: &Operation) -> Option<(&At, bool)> {
    match operation {
        Operation::AddAddress(at, _)
        | Operation::RestoreAddress(at, _)
        | Operation::AnnounceAddress(at, _)
        | Operation::AddRoute(at, _)
        | Operation::RestoreRoute(at, _)
        | Operation::Begin(at, _)
        | Operation::Commit(at, _) => Some((at, false)),
        Operation::RemoveAddress(at, _) | Operation::RemoveRoute(at, _) => Some((at, true)),
        _ => None,
    }
}

/// net/ipv6/addrconf.c, `addrconf_add_dev`: EACCES when `disable_ipv6` is set.
fn ipv6_disabled(operation: &Operation, failure: &Failure) -> bool {
    matches!(
        operation,
        Operation::AddAddress(_, IpNet::V6(_)) | Operation::RestoreAddress(_, IpNet::V6(_))
    ) && failure.errno == Errno::EACCES
}
