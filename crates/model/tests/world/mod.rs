//! A kernel in miniature, to carry out plans on: devices in namespaces, veth pairs that die
//! together, addresses that a move loses.
#![allow(dead_code, missing_docs)]

use ipnet::IpNet;
use ratchet_model::{
    Route,
    device::{
        Alias, At, GROUP_OURS, Kind, Netns, NewDevice, Observed, ObservedAddress, ObservedRoute,
        Operation, Peer, Step,
    },
    leftover::Leftovers,
};

#[derive(Default)]
pub struct World {
    /// What the agent keeps on disk.
    pub leftovers: Leftovers,
    devices: Vec<Observed>,
    next: u32,
}

impl World {
    pub fn observe(&self) -> Vec<Observed> {
        let mut devices = self.devices.clone();
        for device in &mut devices {
            device.carrier = device.up && self.has_far_side(device);
        }
        devices
    }

    fn has_far_side(&self, device: &Observed) -> bool {
        let Kind::Veth { peer: Some(peer) } = &device.kind else {
            return true;
        };
        self.devices
            .iter()
            .any(|other| other.index == peer.index && other.up)
    }

    pub fn apply(&mut self, step: &Step) {
        match &step.operation {
            Operation::Delete(at) => {
                if let Some(index) = self.position(at) {
                    self.remove(index);
                }
            }
            Operation::Move { from, to, alias } => self.relocate(from, to, alias),
            Operation::CreateVeth { a, z } => {
                let (first, second) = (self.index_for(a), self.index_for(z));
                let peer = |new: &NewDevice, index| Kind::Veth {
                    peer: Some(Peer {
                        netns: new.at.netns.clone(),
                        index,
                    }),
                };
                self.create(a, first, peer(z, second));
                self.create(z, second, peer(a, first));
            }
            Operation::CreateVxlan { device, tunnel, .. } => {
                let index = self.index_for(device);
                self.create(device, index, Kind::from(tunnel));
            }
            Operation::Retarget { at, tunnel } => {
                let device = self.get(at);
                let Kind::Vxlan { remote, local, .. } = &mut device.kind else {
                    panic!("{at} is no VXLAN device")
                };
                *remote = Some(tunnel.remote);
                *local = Some(tunnel.local);
            }
            Operation::Join { from, to } => {
                let index = self.get(to).index;
                self.get(from).joined = Some(index);
            }
            Operation::Silence(at) => assert_eq!(at.netns, Netns::Node),
            operation => {
                if let Some(at) = operation.devices().next() {
                    configure(self.get(at), operation);
                }
            }
        }
    }

    fn relocate(&mut self, from: &At, to: &At, alias: &Alias) {
        assert!(self.position(to).is_none(), "{to} exists already");
        let device = self.get(from);
        assert!(device.is_ours(), "moves a stranger: {from}");
        device.netns = to.netns.clone();
        device.name = to.name.clone();
        device.alias = Some(alias.clone());
        device.up = false;
        device.addresses.clear();
        device.routes.clear();
        let index = device.index;
        let peers = self
            .devices
            .iter_mut()
            .filter_map(|device| match &mut device.kind {
                Kind::Veth { peer } => peer.as_mut(),
                _ => None,
            });
        for peer in peers.filter(|peer| peer.index == index) {
            peer.netns = to.netns.clone();
        }
    }

    /// The namespace dies with all in it, and with their peers.
    pub fn remove_netns(&mut self, netns: &Netns) {
        while let Some(index) = self.devices.iter().position(|d| d.netns == *netns) {
            self.remove(index);
        }
    }

    pub fn remove_nth(&mut self, n: usize) {
        if n < self.devices.len() {
            self.remove(n);
        }
    }

    /// A device that is not ours, unless there is one already.
    pub fn stranger(&mut self, at: At) {
        if self.position(&at).is_none() {
            let index = self.index();
            self.devices.push(device(at, index, Kind::Other, 0));
        }
    }

    pub fn user_address(&mut self, n: usize, address: IpNet) {
        if let Some(device) = self.devices.get_mut(n) {
            add_address(device, address, false);
        }
    }

    /// Changes the aliases of all devices that have one.
    pub fn rewrite_aliases(&mut self, rewrite: impl Fn(&mut Alias)) {
        let aliases = self.devices.iter_mut().flat_map(|device| &mut device.alias);
        aliases.for_each(rewrite);
    }

    /// A pod's root swaps the names of its first two devices.
    pub fn swap_names(&mut self, netns: &Netns) {
        let mut own = self.devices.iter_mut().filter(|d| d.netns == *netns);
        let (Some(one), Some(other)) = (own.next(), own.next()) else {
            panic!("{netns} has not two devices")
        };
        std::mem::swap(&mut one.name, &mut other.name);
    }

    pub fn set_all_down(&mut self) {
        for device in &mut self.devices {
            device.up = false;
        }
    }

    fn index(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// The index asked for, if it is free, as it is with the kernel. (Indices are unique in this
    /// whole world.)
    fn index_for(&mut self, new: &NewDevice) -> u32 {
        let free = new
            .index
            .filter(|asked| self.devices.iter().all(|device| device.index != *asked));
        free.unwrap_or_else(|| self.index())
    }

    fn position(&self, at: &At) -> Option<usize> {
        self.devices.iter().position(|d| d.at() == *at)
    }

    fn get(&mut self, at: &At) -> &mut Observed {
        let index = self
            .position(at)
            .unwrap_or_else(|| panic!("{at} does not exist"));
        &mut self.devices[index]
    }

    fn create(&mut self, new: &NewDevice, index: u32, kind: Kind) {
        assert!(
            self.position(&new.at).is_none(),
            "{} exists already",
            new.at
        );
        let mut device = device(new.at.clone(), index, kind, GROUP_OURS);
        device.mac = Some(new.mac);
        device.mtu = new.mtu.bytes();
        self.devices.push(device);
    }

    fn remove(&mut self, index: usize) {
        let gone = self.devices.remove(index);
        for device in &mut self.devices {
            device.joined.take_if(|joined| *joined == gone.index);
        }
        if let Kind::Veth { peer: Some(peer) } = gone.kind
            && let Some(index) = self.devices.iter().position(|d| d.index == peer.index)
        {
            self.remove(index);
        }
    }
}

/// Changes a device that exists.
fn configure(device: &mut Observed, operation: &Operation) {
    match operation {
        Operation::SetMac(_, mac) => device.mac = Some(*mac),
        Operation::SetMtu(_, mtu) => device.mtu = mtu.bytes(),
        Operation::SetUp(_, up) => device.up = *up,
        Operation::AddAddress(_, address) => add_address(device, *address, true),
        Operation::RestoreAddress(_, address) => add_address(device, *address, false),
        Operation::RemoveAddress(_, address) => device.addresses.retain(|o| o.address != *address),
        Operation::AddRoute(_, route) => add_route(device, route, true),
        Operation::RestoreRoute(_, route) => add_route(device, route, false),
        Operation::RemoveRoute(_, route) => device.routes.retain(|o| o.route != *route),
        Operation::Begin(_, alias) | Operation::Commit(_, alias) => {
            device.alias = Some(alias.clone());
        }
        operation => unreachable!("{operation:?} changes no device that exists"),
    }
}

fn add_address(device: &mut Observed, address: IpNet, ours: bool) {
    if !device.addresses.iter().any(|o| o.address == address) {
        device.addresses.push(ObservedAddress { address, ours });
    }
}

fn add_route(device: &mut Observed, route: &Route, ours: bool) {
    assert!(device.up, "a route needs {} up", device.name);
    device.routes.push(ObservedRoute {
        route: route.clone(),
        ours,
    });
}

fn device(at: At, index: u32, kind: Kind, group: u32) -> Observed {
    Observed {
        netns: at.netns,
        name: at.name,
        index,
        kind,
        source: None,
        alias: None,
        unproven: None,
        group,
        mac: None,
        mtu: 1500,
        up: false,
        carrier: false,
        joined: None,
        addresses: Vec::new(),
        routes: Vec::new(),
    }
}
