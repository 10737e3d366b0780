//! Executes steps, in the phases and with the refusals of the real kernel. Sources: the files in
//! `crates/kernel/src/execute/`, and the differential test against them.

use std::{collections::BTreeSet, net::IpAddr};

use nix::errno::Errno;
use ratchet_kernel::{KernelError, Outcome};
use ratchet_model::{
    LinkId,
    device::{Alias, At, Netns, ObservedAddress, ObservedRoute, Operation, Step},
    link::Route,
};

use super::{
    Device, DeviceId, Form, Inner, OVERHEAD, Seal, SimulatedKernel, UNDERLAY_MTU, create::is_in_use,
};

/// The order in which the kinds of operations are done.
fn phase(operation: &Operation) -> u8 {
    match operation {
        Operation::Delete(_) => 0,
        Operation::Move { .. } => 1,
        Operation::CreateVeth { .. }
        | Operation::CreateVxlan { .. }
        | Operation::Retarget { .. } => 2,
        Operation::Begin(..) => 3,
        Operation::SetMac(..)
        | Operation::SetMtu(..)
        | Operation::SetUp(_, false)
        | Operation::Silence(_) => 4,
        Operation::AddAddress(..)
        | Operation::RestoreAddress(..)
        | Operation::AnnounceAddress(..)
        | Operation::RemoveAddress(..) => 5,
        Operation::Join { .. } => 6,
        Operation::SetUp(_, true) => 7,
        Operation::AddRoute(..) | Operation::RestoreRoute(..) | Operation::RemoveRoute(..) => 8,
        Operation::Commit(..) => 9,
    }
}

/// The numbers of all phases.
const PHASES: std::ops::RangeInclusive<u8> = 0..=9;

/// The steps of a phase, in the order of the plan. Steps for a device for which another
/// has failed before are left out, and others for its other device are then left out as well.
fn taken<'s>(steps: &'s [Step], wanted: u8, broken: &mut BTreeSet<(LinkId, &'s At)>) -> Vec<usize> {
    let mut taken = Vec::new();
    for (position, step) in steps.iter().enumerate() {
        if phase(&step.operation) != wanted {
            continue;
        }
        let devices = || step.operation.devices().map(|at| (step.link, at));
        if devices().any(|device| broken.contains(&device)) {
            broken.extend(devices());
        } else {
            taken.push(position);
        }
    }
    taken
}

/// The namespace over whose socket a creation goes; all others keep the order of the plan.
fn socket(operation: &Operation) -> Option<&Netns> {
    match operation {
        Operation::CreateVeth { a, z } if a.index.is_none() => Some(&z.at.netns),
        Operation::CreateVeth { a, .. } => Some(&a.at.netns),
        Operation::CreateVxlan { .. } => Some(&Netns::Node),
        Operation::Retarget { at, .. } => Some(&at.netns),
        _ => None,
    }
}

pub(super) fn refused(operation: &Operation, errno: Errno) -> KernelError {
    KernelError::Refused {
        doing: doing(operation),
        errno,
        reason: None,
    }
}

pub(super) fn no_device(operation: &Operation, at: &At) -> KernelError {
    KernelError::NoDevice {
        doing: doing(operation),
        at: at.clone(),
    }
}

pub(super) fn doing(operation: &Operation) -> String {
    format!("do {operation:?}")
}

impl SimulatedKernel {
    /// Executes steps; one outcome a step. The agent may crash between any two.
    pub(super) fn execute_all(&self, steps: &[Step]) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = vec![Err(KernelError::Skipped); steps.len()];
        let mut broken: BTreeSet<(LinkId, &At)> = BTreeSet::new();
        for phase in PHASES {
            // The steps of a phase do not wait for each other. What asks for an index comes first,
            // and once more without it among the others where that is taken.
            let taken = taken(steps, phase, &mut broken);
            let asks = |position: &usize| steps[*position].operation.asks_for_index();
            let (asking, mut rest): (Vec<_>, Vec<_>) = taken.into_iter().partition(asks);
            for position in asking {
                outcomes[position] = self.execute_one(&steps[position], true);
                if is_in_use(&outcomes[position]) {
                    rest.push(position);
                }
            }
            // Requests go to one namespace after another.
            rest.sort_by_key(|position| socket(&steps[*position].operation));
            for position in rest {
                outcomes[position] = self.execute_one(&steps[position], false);
            }
            let failed = steps.iter().zip(&outcomes).filter(|(step, outcome)| {
                phase == self::phase(&step.operation) && outcome.is_err()
            });
            broken.extend(failed.flat_map(|(step, _)| {
                let devices = step.operation.devices();
                devices.map(|at| (step.link, at))
            }));
        }
        if !steps.is_empty() {
            self.points.pass();
        }
        outcomes
    }

    /// Executes a step, a creation with or without the index that it asks for.
    fn execute_one(&self, step: &Step, with_index: bool) -> Outcome {
        self.points.pass();
        let mut network = self.network.lock();
        let outcome = self.attempt(&mut network, step, with_index);
        if outcome.is_ok() {
            self.check_filter(&mut network, &step.operation);
        }
        network.stepped(&|| format!("n{} executed {step:?}", self.node));
        outcome
    }

    fn attempt(&self, network: &mut Inner, step: &Step, with_index: bool) -> Outcome {
        let operation = &step.operation;
        match operation {
            Operation::Delete(at) => self.delete(network, step, at),
            Operation::Move { from, to, alias } => {
                self.relocate(network, operation, (from, to), alias)
            }
            Operation::CreateVeth { .. }
            | Operation::CreateVxlan { .. }
            | Operation::Retarget { .. } => self.create(network, operation, with_index),
            Operation::RemoveAddress(at, _) | Operation::RemoveRoute(at, _) => {
                // Where there is no device there is no address or route of it.
                match self.find(network, at)? {
                    Some(id) => self.configure(network, id, operation),
                    None => Ok(()),
                }
            }
            Operation::Join { from, to } => {
                let [from_id, to_id] = [from, to].map(|at| {
                    let found = self.find(network, at)?;
                    found.ok_or_else(|| no_device(operation, at))
                });
                let (from, to) = (from_id?, to_id?);
                if let Some(device) = network.devices.get_mut(&from) {
                    device.joined = Some(to);
                    network.has_changed = true;
                }
                Ok(())
            }
            Operation::Begin(at, _)
            | Operation::Silence(at)
            | Operation::SetMac(at, _)
            | Operation::SetMtu(at, _)
            | Operation::SetUp(at, _)
            | Operation::AddAddress(at, _)
            | Operation::RestoreAddress(at, _)
            | Operation::AnnounceAddress(at, _)
            | Operation::AddRoute(at, _)
            | Operation::RestoreRoute(at, _)
            | Operation::Commit(at, _) => {
                let found = self.find(network, at)?;
                let id = found.ok_or_else(|| no_device(operation, at))?;
                self.configure(network, id, operation)
            }
        }
    }

    fn delete(&self, network: &mut Inner, step: &Step, at: &At) -> Outcome {
        let found = match self.find(network, at) {
            // A namespace that is gone took its devices along.
            Err(error) if error.is_netns_gone() => return Ok(()),
            found => found?,
        };
        let Some(id) = found else { return Ok(()) };
        let device = &network.devices[&id];
        let is_known = |alias: &&Alias| step.link == LinkId::UNKNOWN || alias.link == step.link;
        let proven = self.proven(device);
        if !self.seen(network, device, &at.netns).is_ours() || !proven.as_ref().is_none_or(is_known)
        {
            return Err(foreign(&step.operation, at));
        }
        network.delete(id);
        Ok(())
    }

    /// A moved device goes down and loses its addresses and routes; it keeps its index if that is
    /// free: net/core/dev.c, `__dev_change_net_namespace`. A renamed one only goes down.
    fn relocate(
        &self,
        network: &mut Inner,
        operation: &Operation,
        (from, to): (&At, &At),
        alias: &Alias,
    ) -> Outcome {
        // The real kernel is asked in the order of the places.
        let (first, second) = if from.netns <= to.netns {
            (from, to)
        } else {
            (to, from)
        };
        self.space(&first.netns)?;
        self.space(&second.netns)?;
        let id = self.find(network, from)?;
        let id = id.ok_or_else(|| no_device(operation, from))?;
        let proven = self.proven(&network.devices[&id]);
        if proven.is_none_or(|found| found.end_id() != alias.end_id()) {
            return Err(foreign(operation, from));
        }
        if from != to {
            self.name_is_free(network, operation, to)?;
        }
        let target = self.space(&to.netns)?;
        let is_elsewhere = network.devices[&id].netns != target;
        if is_elsewhere && network.devices[&id].form == Form::Other {
            // A bridge, which strangers are here, stays where it was made.
            return Err(refused(operation, Errno::EINVAL));
        }
        let mut device = network.take(id).ok_or_else(|| no_device(operation, from))?;
        let index = device.index;
        device.set_up(false);
        if is_elsewhere {
            device.addresses.clear();
        }
        device.name.clone_from(&to.name);
        network.place(target, id, device, Some(index));
        if let Some(device) = network.devices.get_mut(&id) {
            device.sign(alias, self.key);
        }
        Ok(())
    }

    /// What the alias of a device says, if this node's agent wrote it for that in its place.
    fn proven<'d>(&self, device: &'d Device) -> Option<&'d Alias> {
        let is_of_key = |seal: &Seal| seal.key == self.key;
        device
            .proven()
            .filter(|_| device.seal.as_ref().is_some_and(is_of_key))
    }

    fn configure(&self, network: &mut Inner, id: DeviceId, operation: &Operation) -> Outcome {
        match (operation, network.devices.get_mut(&id)) {
            (_, None) => Ok(()),
            (Operation::Begin(_, alias) | Operation::Commit(_, alias), Some(device)) => {
                device.sign(alias, self.key);
                Ok(())
            }
            _ => configure(network, id, operation),
        }
    }
}

fn foreign(operation: &Operation, at: &At) -> KernelError {
    KernelError::Foreign {
        doing: doing(operation),
        at: at.clone(),
    }
}

/// Changes a device that exists.
fn configure(network: &mut Inner, id: DeviceId, operation: &Operation) -> Outcome {
    let Some(device) = network.devices.get_mut(&id) else {
        return Ok(());
    };
    match operation {
        Operation::SetMac(_, mac) => device.mac = Some(*mac),
        Operation::SetMtu(_, mtu) => {
            let tunnel = matches!(&device.form, Form::Vxlan { tunnel, .. } if tunnel.parent != 0);
            if tunnel && mtu.bytes() > UNDERLAY_MTU - OVERHEAD {
                return Err(refused(operation, Errno::EINVAL));
            }
            device.mtu = mtu.bytes();
        }
        Operation::SetUp(_, up) => {
            device.set_up(*up);
            network.has_changed = true;
        }
        Operation::AddAddress(_, address)
        | Operation::RestoreAddress(_, address)
        | Operation::AnnounceAddress(_, address) => {
            if !device.addresses.iter().any(|o| o.address == *address) {
                device.addresses.push(ObservedAddress {
                    address: *address,
                    ours: !matches!(operation, Operation::RestoreAddress(..)),
                });
            }
        }
        Operation::RemoveAddress(_, address) => device.remove_address(*address),
        Operation::AddRoute(_, route) => return add_route(device, operation, route, true),
        Operation::RestoreRoute(_, route) => return add_route(device, operation, route, false),
        Operation::RemoveRoute(_, route) => {
            device.routes.retain(|o| !(o.ours && o.route == *route));
        }
        Operation::Begin(..)
        | Operation::Commit(..)
        | Operation::Silence(_)
        | Operation::Join { .. }
        | Operation::Delete(_)
        | Operation::Move { .. }
        | Operation::CreateVeth { .. }
        | Operation::CreateVxlan { .. }
        | Operation::Retarget { .. } => {}
    }
    Ok(())
}

/// net/ipv4/fib_semantics.c: `fib_check_nh` needs a device that is up and a router that it reaches.
fn add_route(device: &mut Device, operation: &Operation, route: &Route, ours: bool) -> Outcome {
    if route.via.is_some_and(|via: IpAddr| !device.reaches(via)) {
        return Err(refused(operation, Errno::ENETUNREACH));
    }
    if !device.up {
        return Err(refused(operation, Errno::ENETDOWN));
    }
    let added = ObservedRoute {
        route: route.clone(),
        ours,
    };
    if !device.routes.contains(&added) {
        device.routes.insert(0, added);
    }
    Ok(())
}
