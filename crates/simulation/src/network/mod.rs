//! The network of all nodes: namespaces, devices, and the wires between them.
//!
//! It refuses what Linux refuses, and can say who receives a frame ([`Inner::receivers`]). It knows
//! of pods only to which of them a namespace belongs; of Ratchet it knows nothing.

mod create;
mod device;
mod execute;
mod filter;
mod forge;
mod kernel;
mod wire;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ratchet_kernel::NetnsIdentity;
use ratchet_model::device::Alias;

use filter::Filter;

pub use device::{Device, DeviceId, Form, Seal};
pub use forge::{Forgery, Knowledge, Text};
pub use kernel::SimulatedKernel;
pub use wire::Endpoint;

/// The number of a node, from 0 up.
pub type NodeNumber = usize;

/// The number of a pod, from 0 up.
pub type PodNumber = usize;

/// A namespace, by its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsId(u64);

/// The device number of the file system that namespaces are on.
const NSFS: u64 = 4;

/// The MTU of every node's underlay.
pub const UNDERLAY_MTU: u32 = 1500;

/// What a tunnel over IPv4 takes of its parent's MTU.
pub const OVERHEAD: u32 = 50;

/// The name of every node's parent interface.
pub const PARENT: &str = "u0";

impl NetnsId {
    /// The identity by which agents know it.
    pub fn identity(self) -> NetnsIdentity {
        NetnsIdentity {
            dev: NSFS,
            inode: self.0,
        }
    }
}

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    /// The node that it is on.
    pub node: NodeNumber,
    /// The pod whose sandbox it is of; none: it is a node's own.
    pub pod: Option<PodNumber>,
    /// Where its path is.
    pub path: PathBuf,
    devices: BTreeMap<u32, DeviceId>,
    next_index: u32,
}

/// A node's own part of the network.
#[derive(Debug)]
struct Host {
    netns: NetnsId,
    vtep: IpAddr,
    parent: u32,
    has_address: bool,
    filter: Filter,
    /// The key under which the agent signs.
    key: u64,
}

/// What is called after a step of an agent by which frames may go elsewhere, with words for the
/// step.
pub type OnChange = Box<dyn FnMut(&Inner, &dyn Fn() -> String) + Send>;

/// Everything that there is.
#[derive(Default)]
pub struct Inner {
    hosts: Vec<Host>,
    namespaces: BTreeMap<NetnsId, Namespace>,
    devices: BTreeMap<DeviceId, Device>,
    /// Devices that are not Ratchet's, as they were made.
    strangers: BTreeMap<DeviceId, Device>,
    /// The namespaces that the roots of pods have made in sandboxes.
    children: BTreeMap<NetnsId, NetnsId>,
    /// The aliases that they have seen.
    seen: BTreeMap<PodNumber, Vec<(Alias, Seal)>>,
    next: u64,
    /// The first tunnel that an agent made without having told the filter.
    pub unguarded: Option<String>,
    /// What is to be done when frames may go elsewhere than before.
    pub on_change: Option<OnChange>,
    has_changed: bool,
}

/// The network, shared by the nodes' kernels and the scenario.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<Inner>>);

impl Network {
    /// Looks at it, or changes it.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Adds a node, with a parent interface that has the address 10.0.0.(n + 1).
    pub fn add_node(&mut self) -> NodeNumber {
        let node = self.hosts.len();
        let last = u8::try_from(node + 1).unwrap_or(u8::MAX);
        let (netns, key) = (
            self.add_namespace(node, None, PathBuf::new()),
            self.number(),
        );
        self.hosts.push(Host {
            netns,
            vtep: IpAddr::from([10, 0, 0, last]),
            parent: 0,
            has_address: true,
            filter: Filter::default(),
            key,
        });
        self.add_parent(node);
        node
    }

    fn add_parent(&mut self, node: NodeNumber) {
        let device = Device {
            up: true,
            mtu: UNDERLAY_MTU,
            ..Device::new(PARENT, Form::Other)
        };
        let id = self.insert(self.hosts[node].netns, device, None);
        self.hosts[node].parent = self.devices[&id].index;
    }

    fn add_namespace(
        &mut self,
        node: NodeNumber,
        pod: Option<PodNumber>,
        path: PathBuf,
    ) -> NetnsId {
        let id = NetnsId(self.number());
        let namespace = Namespace {
            node,
            pod,
            path,
            devices: BTreeMap::new(),
            // 1 is lo's.
            next_index: 2,
        };
        self.namespaces.insert(id, namespace);
        id
    }

    /// Makes a sandbox's namespace on a node.
    pub fn add_sandbox(&mut self, node: NodeNumber, pod: PodNumber, path: &Path) -> NetnsId {
        self.add_namespace(node, Some(pod), path.to_owned())
    }

    /// Ends a namespace with all devices in it, and the peers of its veths.
    pub fn remove_namespace(&mut self, netns: NetnsId) {
        let devices: Vec<DeviceId> = self
            .namespaces
            .get(&netns)
            .map(|found| found.devices.values().copied().collect())
            .unwrap_or_default();
        for device in devices {
            self.delete(device);
        }
        self.namespaces.remove(&netns);
        if let Some(child) = self.children.remove(&netns) {
            self.remove_namespace(child);
        }
        self.strangers.retain(|_, made| made.netns != netns);
        self.has_changed = true;
    }

    /// A node starts again: everything on it has gone.
    pub fn reboot(&mut self, node: NodeNumber) {
        let own = self.hosts[node].netns;
        let all: Vec<NetnsId> = self
            .namespaces
            .iter()
            .filter(|(_, namespace)| namespace.node == node)
            .map(|(id, _)| *id)
            .collect();
        for netns in all {
            if netns != own {
                self.remove_namespace(netns);
            }
        }
        let devices: Vec<DeviceId> = self.namespaces[&own].devices.values().copied().collect();
        for device in devices {
            self.delete(device);
        }
        self.add_parent(node);
        self.hosts[node].filter = Filter::default();
    }

    /// The key of a node is lost; its agent makes another one when it starts.
    pub fn lose_key(&mut self, node: NodeNumber) {
        self.hosts[node].key = self.number();
    }

    /// Takes the address from a node's parent interface, or gives it back.
    pub fn set_underlay(&mut self, node: NodeNumber, has_address: bool) {
        self.hosts[node].has_address = has_address;
    }

    /// What the alias of a device says, if an agent of this node wrote it with the key that the
    /// node has now.
    pub fn proven<'d>(&self, node: NodeNumber, device: &'d Device) -> Option<&'d Alias> {
        let is_of_key = |seal: &Seal| seal.key == self.hosts[node].key;
        let is_of_key = device.seal.as_ref().is_some_and(is_of_key);
        device.proven().filter(|_| is_of_key)
    }

    /// The address at which a node's tunnels end.
    pub fn vtep(&self, node: NodeNumber) -> IpAddr {
        self.hosts[node].vtep
    }

    /// A namespace, if it is still there.
    pub fn namespace(&self, netns: NetnsId) -> Option<&Namespace> {
        self.namespaces.get(&netns)
    }

    /// All namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = (NetnsId, &Namespace)> {
        self.namespaces.iter().map(|(id, found)| (*id, found))
    }

    /// The devices in a namespace, in the order of their indexes.
    pub fn devices_in(&self, netns: NetnsId) -> impl Iterator<Item = (DeviceId, &Device)> {
        let ids = self
            .namespaces
            .get(&netns)
            .into_iter()
            .flat_map(|namespace| namespace.devices.values());
        ids.filter_map(|id| Some((*id, self.devices.get(id)?)))
    }

    /// A device by its name in a namespace.
    pub fn find(&self, netns: NetnsId, name: &str) -> Option<DeviceId> {
        self.devices_in(netns)
            .find(|(_, device)| device.name == name)
            .map(|(id, _)| id)
    }

    /// All devices.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// A device.
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(&id)
    }

    /// Somebody other than Ratchet makes a device; nothing happens where its name is taken.
    pub fn add_stranger(&mut self, netns: NetnsId, name: &str) -> Option<DeviceId> {
        if !self.namespaces.contains_key(&netns) || self.find(netns, name).is_some() {
            return None;
        }
        let device = Device {
            up: true,
            ..Device::new(name, Form::Other)
        };
        let id = self.insert(netns, device, None);
        self.strangers.insert(id, self.devices[&id].clone());
        Some(id)
    }

    /// The devices that are not Ratchet's, as they were made, unless their namespaces have ended.
    pub fn strangers(&self) -> impl Iterator<Item = (DeviceId, &Device)> {
        self.strangers.iter().map(|(id, made)| (*id, made))
    }

    /// An agent has done a step.
    fn stepped(&mut self, step: &dyn Fn() -> String) {
        if !std::mem::take(&mut self.has_changed) {
            return;
        }
        if let Some(mut on_change) = self.on_change.take() {
            on_change(self, step);
            self.on_change = Some(on_change);
        }
    }

    /// Puts a device into a namespace, with the index that it is to have if that is free.
    fn insert(&mut self, netns: NetnsId, device: Device, index: Option<u32>) -> DeviceId {
        let id = DeviceId::new(self.number());
        self.place(netns, id, device, index);
        id
    }

    fn place(&mut self, netns: NetnsId, id: DeviceId, device: Device, index: Option<u32>) {
        let namespace = self
            .namespaces
            .get_mut(&netns)
            .expect("callers have looked the namespace up");
        let index = namespace.index(index);
        namespace.devices.insert(index, id);
        let device = Device {
            netns,
            index,
            ..device
        };
        self.devices.insert(id, device);
        self.has_changed = true;
    }

    fn take(&mut self, id: DeviceId) -> Option<Device> {
        let device = self.devices.remove(&id)?;
        if let Some(namespace) = self.namespaces.get_mut(&device.netns) {
            namespace.devices.remove(&device.index);
        }
        self.has_changed = true;
        Some(device)
    }

    /// Deletes a device, and with a veth its peer.
    pub fn delete(&mut self, id: DeviceId) {
        if let Some(device) = self.take(id)
            && let Form::Veth { peer } = device.form
        {
            self.take(peer);
        }
    }
}

impl Namespace {
    /// The index wanted, or the next free one: net/core/dev.c, `dev_index_reserve`.
    fn index(&mut self, wanted: Option<u32>) -> u32 {
        let is_free = |index: &u32| !self.devices.contains_key(index) && *index > 1;
        if let Some(wanted) = wanted.filter(is_free) {
            return wanted;
        }
        let index = (self.next_index..)
            .find(is_free)
            .expect("there are more indexes than devices");
        self.next_index = index + 1;
        index
    }
}
