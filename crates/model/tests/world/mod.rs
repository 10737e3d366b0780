//! A kernel in miniature, to carry out plans on: devices in namespaces, veth pairs that die
//! together, addresses that a move loses.
#![allow(dead_code, missing_docs)]

use ipnet::IpNet;
use ratchet_model::device::{
    Alias, At, GROUP_OURS, Kind, Netns, NewDevice, Observed, ObservedAddress, ObservedRoute,
    Operation, Step,
};

#[derive(Default)]
pub struct World {
    devices: Vec<Observed>,
    next: u32,
}

impl World {
    pub fn observe(&self) -> Vec<Observed> {
        self.devices.clone()
    }

    pub fn apply(&mut self, step: &Step) {
        match &step.operation {
            Operation::Delete(at) => {
                if let Some(index) = self.position(at) {
                    self.remove(index);
                }
            }
            Operation::Move { from, to, alias } => {
                assert!(self.position(to).is_none(), "{to} exists already");
                let device = self.get(from);
                assert!(device.is_ours(), "moves a stranger: {from}");
                device.netns = to.netns.clone();
                device.name = to.name.clone();
                device.alias = Some(alias.clone());
                device.up = false;
                device.addresses.clear();
                device.routes.clear();
            }
            Operation::CreateVeth { a, z } => {
                let (first, second) = (self.index_for(a), self.index_for(z));
                self.create(a, first, Kind::Veth { peer: second });
                self.create(z, second, Kind::Veth { peer: first });
            }
            Operation::CreateVxlan { device, tunnel } => {
                let index = self.index_for(device);
                let kind = Kind::Vxlan {
                    vni: tunnel.vni.number(),
                    remote: Some(tunnel.remote),
                    local: Some(tunnel.local),
                    parent: tunnel.parent,
                    port: tunnel.port,
                };
                self.create(device, index, kind);
            }
            Operation::Retarget { at, tunnel } => {
                let device = self.get(at);
                let Kind::Vxlan { remote, local, .. } = &mut device.kind else {
                    panic!("{at} is no VXLAN device")
                };
                *remote = Some(tunnel.remote);
                *local = Some(tunnel.local);
            }
            Operation::SetMac(at, mac) => self.get(at).mac = Some(*mac),
            Operation::SetMtu(at, mtu) => self.get(at).mtu = mtu.bytes(),
            Operation::SetUp(at, up) => self.get(at).up = *up,
            Operation::AddAddress(at, address) => {
                let device = self.get(at);
                if !device.addresses.iter().any(|o| o.address == *address) {
                    device.addresses.push(ObservedAddress {
                        address: *address,
                        ours: true,
                    });
                }
            }
            Operation::RestoreAddress(at, address) => {
                self.get(at).addresses.push(ObservedAddress {
                    address: *address,
                    ours: false,
                });
            }
            Operation::RestoreRoute(at, route) => {
                let observed = ObservedRoute {
                    route: route.clone(),
                    ours: false,
                };
                self.get(at).routes.push(observed);
            }
            Operation::RemoveAddress(at, address) => {
                self.get(at).addresses.retain(|o| o.address != *address)
            }
            Operation::AddRoute(at, route) => {
                assert!(self.get(at).up, "a route needs {at} up");
                let observed = ObservedRoute {
                    route: route.clone(),
                    ours: true,
                };
                self.get(at).routes.push(observed);
            }
            Operation::RemoveRoute(at, route) => self.get(at).routes.retain(|o| o.route != *route),
            Operation::AnnounceAddress(..) => {}
            Operation::Begin(at, alias) | Operation::Commit(at, alias) => {
                self.get(at).alias = Some(alias.clone())
            }
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

    /// Somebody else's device, unless the place is taken.
    pub fn stranger(&mut self, at: At) {
        if self.position(&at).is_none() {
            let index = self.index();
            self.devices.push(device(at, index, Kind::Other, 0));
        }
    }

    pub fn user_address(&mut self, n: usize, address: IpNet) {
        if let Some(device) = self.devices.get_mut(n)
            && !device.addresses.iter().any(|o| o.address == address)
        {
            device.addresses.push(ObservedAddress {
                address,
                ours: false,
            });
        }
    }

    /// Changes the aliases of all devices that have one.
    pub fn rewrite_aliases(&mut self, rewrite: impl Fn(&mut Alias)) {
        let aliases = self.devices.iter_mut().flat_map(|device| &mut device.alias);
        aliases.for_each(rewrite);
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
        if let Kind::Veth { peer } = gone.kind {
            self.devices.retain(|d| d.index != peer);
        }
    }
}

fn device(at: At, index: u32, kind: Kind, group: u32) -> Observed {
    Observed {
        netns: at.netns,
        name: at.name,
        index,
        kind,
        alias: None,
        group,
        mac: None,
        mtu: 1500,
        up: false,
        carrier: false,
        addresses: Vec::new(),
        routes: Vec::new(),
    }
}
