//! The network as one node's agent sees it: [`ratchet_engine::Kernel`].

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use ratchet_engine::Kernel;
use ratchet_kernel::{
    FoundFilter, KernelError, Look, NetnsIdentity, Outcome, Underlay, UnderlayError,
};
use ratchet_model::{
    SandboxId,
    device::{At, Interface, Netns, Observed, Passage, Step},
};

use super::{Device, DeviceId, Inner, NetnsId, Network, NodeNumber, PARENT, UNDERLAY_MTU};
use crate::points::Points;

/// One node's kernel, for one incarnation of its agent.
pub struct SimulatedKernel {
    pub(super) network: Network,
    pub(super) points: Points,
    pub(super) node: NodeNumber,
    own: NetnsId,
    /// The node's key.
    pub(super) key: u64,
    entered: BTreeMap<SandboxId, NetnsId>,
    /// What the agent knows to be in the filter.
    pub(super) known: RefCell<Option<BTreeSet<Passage>>>,
}

impl SimulatedKernel {
    /// The kernel of a node, whose agent passes these points.
    pub fn new(network: Network, node: NodeNumber, points: Points) -> Self {
        let (own, key) = {
            let network = network.lock();
            (network.hosts[node].netns, network.hosts[node].key)
        };
        Self {
            network,
            points,
            node,
            own,
            key,
            entered: BTreeMap::new(),
            known: RefCell::default(),
        }
    }

    /// The namespace of a place.
    pub(super) fn space(&self, netns: &Netns) -> Result<NetnsId, KernelError> {
        match netns {
            Netns::Node => Ok(self.own),
            Netns::Sandbox(id) => self
                .entered
                .get(id)
                .copied()
                .ok_or_else(|| KernelError::Unregistered(id.clone())),
        }
    }

    /// A device as this kernel reports it.
    pub(super) fn seen(&self, network: &Inner, device: &Device, netns: &Netns) -> Observed {
        let find = |peer| network.device(peer);
        device.observed(netns, self.key, find, |space| self.place(space))
    }

    /// The place of a namespace that is known.
    fn place(&self, space: NetnsId) -> Option<Netns> {
        if space == self.own {
            return Some(Netns::Node);
        }
        let mut entered = self.entered.iter();
        let (id, _) = entered.find(|(_, netns)| **netns == space)?;
        Some(Netns::Sandbox(id.clone()))
    }

    /// A device by place and name.
    pub(super) fn find(&self, network: &Inner, at: &At) -> Result<Option<DeviceId>, KernelError> {
        Ok(network.find(self.space(&at.netns)?, &at.name))
    }

    fn at(&self, network: &Inner, path: &Path) -> Result<NetnsId, KernelError> {
        let found = network
            .namespaces()
            .find(|(_, namespace)| namespace.node == self.node && namespace.path == path);
        found.map(|(id, _)| id).ok_or_else(|| gone(path))
    }
}

fn gone(path: &Path) -> KernelError {
    KernelError::NetnsGone {
        path: path.to_owned(),
    }
}

impl Kernel for SimulatedKernel {
    fn node(&self) -> NetnsIdentity {
        self.own.identity()
    }

    fn identify(&self, path: &Path) -> Result<NetnsIdentity, KernelError> {
        self.at(&self.network.lock(), path).map(NetnsId::identity)
    }

    fn enter(
        &mut self,
        id: &SandboxId,
        path: &Path,
        expected: Option<NetnsIdentity>,
    ) -> Result<NetnsIdentity, KernelError> {
        let found = self.at(&self.network.lock(), path)?;
        if expected.is_some_and(|expected| expected != found.identity()) {
            return Err(gone(path));
        }
        self.entered.insert(id.clone(), found);
        Ok(found.identity())
    }

    fn forget(&mut self, id: &SandboxId) {
        self.entered.remove(id);
    }

    fn forget_all(&mut self) {
        self.entered.clear();
    }

    fn namespaces(&self) -> Vec<PathBuf> {
        let network = self.network.lock();
        let here = network
            .namespaces()
            .filter(|(id, namespace)| namespace.node == self.node && *id != self.own);
        here.map(|(_, namespace)| namespace.path.clone()).collect()
    }

    fn observe(
        &self,
        looks: &BTreeMap<Netns, Look>,
        detailed: &dyn Fn(&Observed) -> bool,
    ) -> Result<Vec<Observed>, KernelError> {
        let mut found = Vec::new();
        let network = self.network.lock();
        for (netns, look) in looks {
            let space = self.space(netns)?;
            let devices: Vec<DeviceId> = match look {
                Look::All => network.devices_in(space).map(|(id, _)| id).collect(),
                Look::Names(names) => names
                    .iter()
                    .filter_map(|name| network.find(space, name))
                    .collect(),
            };
            for device in devices.into_iter().filter_map(|id| network.device(id)) {
                let mut observed = self.seen(&network, device, netns);
                if observed.is_ours() && detailed(&observed) {
                    observed.addresses.clone_from(&device.addresses);
                    observed.routes.clone_from(&device.routes);
                }
                found.push(observed);
            }
        }
        Ok(found)
    }

    fn interfaces(&self, devices: &[At]) -> Result<Vec<Option<Interface>>, KernelError> {
        let network = self.network.lock();
        let read = |at: &At| {
            let device = self.find(&network, at)?.and_then(|id| network.device(id));
            Ok(device.map(|device| Interface {
                name: device.name.clone(),
                mac: device.mac,
                mtu: device.mtu,
            }))
        };
        devices.iter().map(read).collect()
    }

    fn execute(&self, steps: &[Step]) -> Vec<Outcome> {
        self.execute_all(steps)
    }

    fn filter(&self) -> Result<FoundFilter, KernelError> {
        self.read_filter()
    }

    fn set_filter(&self, passages: &BTreeSet<Passage>) -> Result<(), KernelError> {
        self.with_filter(|filter| filter.clone_from(passages))
    }

    fn change_filter(&self, permit: &[Passage], forbid: &[Passage]) -> Result<(), KernelError> {
        self.update_filter(permit, forbid)
    }

    fn underlay(
        &self,
        _interface: Option<&str>,
        _address: Option<IpAddr>,
    ) -> Result<Underlay, UnderlayError> {
        let network = self.network.lock();
        let host = &network.hosts[self.node];
        if !host.has_address {
            return Err(UnderlayError::NoAddress {
                interface: PARENT.to_owned(),
            });
        }
        Ok(Underlay {
            interface: PARENT.to_owned(),
            index: host.parent,
            address: host.vtep,
            mtu: UNDERLAY_MTU,
            addresses: Vec::new(),
        })
    }
}
