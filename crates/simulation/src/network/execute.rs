//! Executes steps, in the phases and with the refusals of the real kernel. Sources: the files in
//! `crates/kernel/src/execute/`, and the differential test against them.

use std::{collections::BTreeSet, net::IpAddr};

use nix::errno::Errno;
use ratchet_kernel::{KernelError, Outcome};
use ratchet_model::{
    LinkId,
    device::{
        Alias, At, Netns, NewDevice, ObservedAddress, ObservedRoute, Operation, Step, Tunnel,
    },
    link::Route,
};

use super::{Device, DeviceId, Form, Inner, NetnsId, SimulatedKernel, UNDERLAY_MTU};

/// What a tunnel over IPv4 takes of its parent's MTU.
const OVERHEAD: u32 = 50;

/// The order in which the kinds of operations are done.
fn phase(operation: &Operation) -> u8 {
    match operation {
        Operation::Delete(_) => 0,
        Operation::Move { .. } => 1,
        Operation::CreateVeth { .. }
        | Operation::CreateVxlan { .. }
        | Operation::Retarget { .. } => 2,
        Operation::Begin(..) => 3,
        Operation::SetMac(..) | Operation::SetMtu(..) | Operation::SetUp(_, false) => 4,
        Operation::AddAddress(..)
        | Operation::RestoreAddress(..)
        | Operation::AnnounceAddress(..)
        | Operation::RemoveAddress(..) => 5,
        Operation::SetUp(_, true) => 6,
        Operation::AddRoute(..) | Operation::RestoreRoute(..) | Operation::RemoveRoute(..) => 7,
        Operation::Commit(..) => 8,
    }
}

fn refused(operation: &Operation, errno: Errno) -> KernelError {
    KernelError::Refused {
        doing: doing(operation),
        errno,
        reason: None,
    }
}

fn no_device(operation: &Operation, at: &At) -> KernelError {
    KernelError::NoDevice {
        doing: doing(operation),
        at: at.clone(),
    }
}

fn doing(operation: &Operation) -> String {
    format!("do {operation:?}")
}

impl SimulatedKernel {
    /// Executes steps; one outcome a step. The agent may crash between any two.
    pub(super) fn execute_all(&self, steps: &[Step]) -> Vec<Outcome> {
        let mut order: Vec<usize> = (0..steps.len()).collect();
        order.sort_by_key(|position| phase(&steps[*position].operation));
        let mut outcomes: Vec<Outcome> = vec![Err(KernelError::Skipped); steps.len()];
        let mut broken: BTreeSet<(LinkId, &At)> = BTreeSet::new();
        for position in order {
            let step = &steps[position];
            let devices = || step.operation.devices().map(|at| (step.link, at));
            if devices().any(|device| broken.contains(&device)) {
                broken.extend(devices());
                continue;
            }
            self.points.pass();
            let outcome = self.execute_one(step);
            if outcome.is_err() {
                broken.extend(devices());
            }
            outcomes[position] = outcome;
        }
        if !steps.is_empty() {
            self.points.pass();
        }
        outcomes
    }

    fn execute_one(&self, step: &Step) -> Outcome {
        let mut network = self.network.lock();
        let outcome = self.attempt(&mut network, &step.operation);
        network.check_wires(&|| format!("n{} executed {step:?}", self.node));
        outcome
    }

    fn attempt(&self, network: &mut Inner, operation: &Operation) -> Outcome {
        match operation {
            Operation::Delete(at) => self.delete(network, at),
            Operation::Move { from, to, alias } => {
                self.relocate(network, operation, (from, to), alias)
            }
            Operation::CreateVeth { a, z } => self.create_veth(network, operation, a, z),
            Operation::CreateVxlan { device, tunnel } => {
                self.create_vxlan(network, operation, device, tunnel)
            }
            Operation::Retarget { at, tunnel } => self.retarget(network, operation, at, tunnel),
            Operation::RemoveAddress(at, _) | Operation::RemoveRoute(at, _) => {
                // Where there is no device there is no address or route of it.
                match self.find(network, at)? {
                    Some(id) => configure(network, id, operation),
                    None => Ok(()),
                }
            }
            Operation::Begin(at, _)
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
                configure(network, id, operation)
            }
        }
    }

    fn delete(&self, network: &mut Inner, at: &At) -> Outcome {
        let found = match self.find(network, at) {
            // A namespace that is gone took its devices along.
            Err(error) if error.is_netns_gone() => return Ok(()),
            found => found?,
        };
        let Some(id) = found else { return Ok(()) };
        if !network.devices[&id].is_ours() {
            return Err(KernelError::Foreign { at: at.clone() });
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
        self.name_is_free(network, operation, to, Some(from))?;
        let target = self.space(&to.netns)?;
        let mut device = network.take(id).ok_or_else(|| no_device(operation, from))?;
        let index = device.index;
        device.set_up(false);
        if device.netns != target {
            device.addresses.clear();
        }
        device.name.clone_from(&to.name);
        device.alias = Some(alias.clone());
        network.place(target, id, device, Some(index));
        Ok(())
    }

    fn name_is_free(
        &self,
        network: &Inner,
        operation: &Operation,
        at: &At,
        but: Option<&At>,
    ) -> Outcome {
        if but != Some(at) && self.find(network, at)?.is_some() {
            return Err(KernelError::NameTaken {
                doing: doing(operation),
                name: at.name.clone(),
                netns: at.netns.clone(),
            });
        }
        Ok(())
    }

    fn create_veth(
        &self,
        network: &mut Inner,
        operation: &Operation,
        a: &NewDevice,
        z: &NewDevice,
    ) -> Outcome {
        let spaces = (self.space(&a.at.netns)?, self.space(&z.at.netns)?);
        self.name_is_free(network, operation, &a.at, None)?;
        self.name_is_free(network, operation, &z.at, None)?;
        let mut ends = [(a, spaces.0), (z, spaces.1)];
        // The peer is registered first (drivers/net/veth.c, `veth_newlink`), and the peer is `a`
        // unless an index was asked for it.
        if a.index.is_some() {
            ends.reverse();
        }
        let both_free = ends
            .iter()
            .all(|(new, netns)| is_free(network, *netns, new.index));
        let ids = ends.map(|(new, netns)| {
            let form = Form::Veth {
                peer: DeviceId::new(0),
            };
            let index = new.index.filter(|_| both_free);
            network.insert(netns, Device::created(new, form), index)
        });
        for (id, peer) in [(ids[0], ids[1]), (ids[1], ids[0])] {
            if let Some(device) = network.devices.get_mut(&id) {
                device.form = Form::Veth { peer };
            }
        }
        Ok(())
    }

    fn create_vxlan(
        &self,
        network: &mut Inner,
        operation: &Operation,
        new: &NewDevice,
        tunnel: &Tunnel,
    ) -> Outcome {
        let target = self.space(&new.at.netns)?;
        let home = self.space(&Netns::Node)?;
        self.name_is_free(network, operation, &new.at, None)?;
        let in_use = network.devices.values().any(|device| {
            matches!(&device.form, Form::Vxlan { tunnel: other, home: at }
                if *at == home && (other.vni, other.port) == (tunnel.vni, tunnel.port))
        });
        if in_use {
            return Err(KernelError::VniTaken {
                doing: doing(operation),
                vni: tunnel.vni,
                port: tunnel.port,
            });
        }
        check_parent(network, operation, home, tunnel)?;
        let form = Form::Vxlan {
            tunnel: tunnel.clone(),
            home,
        };
        let mut device = Device::created(new, form);
        if tunnel.parent != 0 {
            device.mtu = device.mtu.min(UNDERLAY_MTU - OVERHEAD);
        }
        network.insert(target, device, new.index);
        Ok(())
    }

    fn retarget(
        &self,
        network: &mut Inner,
        operation: &Operation,
        at: &At,
        next: &Tunnel,
    ) -> Outcome {
        let home = self.space(&Netns::Node)?;
        let found = self.find(network, at)?;
        let id = found.ok_or_else(|| no_device(operation, at))?;
        check_parent(network, operation, home, next)?;
        let device = network.devices.get_mut(&id);
        match device.map(|device| &mut device.form) {
            Some(Form::Vxlan { tunnel, .. }) => {
                tunnel.remote = next.remote;
                tunnel.local = next.local;
                tunnel.parent = next.parent;
            }
            _ => return Err(refused(operation, Errno::EOPNOTSUPP)),
        }
        network.wires.changed = true;
        Ok(())
    }
}

fn is_free(network: &Inner, netns: NetnsId, index: Option<u32>) -> bool {
    let namespace = &network.namespaces[&netns];
    index.is_none_or(|index| index > 1 && !namespace.devices.contains_key(&index))
}

fn check_parent(network: &Inner, operation: &Operation, home: NetnsId, tunnel: &Tunnel) -> Outcome {
    let is_there = network.namespaces[&home]
        .devices
        .contains_key(&tunnel.parent);
    if tunnel.parent != 0 && !is_there {
        return Err(match operation {
            Operation::Retarget { at, .. } => no_device(operation, at),
            _ => refused(operation, Errno::ENODEV),
        });
    }
    Ok(())
}

/// Changes a device that exists.
fn configure(network: &mut Inner, id: DeviceId, operation: &Operation) -> Outcome {
    let Some(device) = network.devices.get_mut(&id) else {
        return Ok(());
    };
    match operation {
        Operation::Begin(_, alias) | Operation::Commit(_, alias) => {
            device.alias = Some(alias.clone());
        }
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
            network.wires.changed = true;
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
        Operation::Delete(_)
        | Operation::Move { .. }
        | Operation::CreateVeth { .. }
        | Operation::CreateVxlan { .. }
        | Operation::Retarget { .. } => {}
    }
    Ok(())
}

/// net/ipv4/fib_semantics.c: `fib_check_nh` needs a device that is up and a router that it reaches.
fn add_route(device: &mut Device, operation: &Operation, route: &Route, ours: bool) -> Outcome {
    if !device.up {
        return Err(refused(operation, Errno::ENETDOWN));
    }
    if route.via.is_some_and(|via: IpAddr| !device.reaches(via)) {
        return Err(refused(operation, Errno::ENETUNREACH));
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
