//! Creates devices with the refusals of the real kernel, and gives them its indexes.
//!
//! What a creation that is refused leaves behind is that the next free index is a later one: the
//! peer of a veth has had one by the time the other end is refused.

use nix::errno::Errno;
use ratchet_kernel::{KernelError, Outcome};
use ratchet_model::device::{At, Netns, NewDevice, Operation, Tunnel};

use super::{
    Device, DeviceId, Form, Inner, NetnsId, OVERHEAD, SimulatedKernel, UNDERLAY_MTU,
    execute::{doing, no_device, refused},
};

/// Whether a creation was refused because an index, a name or a VNI is in use.
pub(super) fn is_in_use(outcome: &Outcome) -> bool {
    match outcome {
        Err(KernelError::NameTaken { .. } | KernelError::VniTaken { .. }) => true,
        Err(KernelError::Refused { errno, .. }) => matches!(errno, Errno::EBUSY | Errno::EEXIST),
        _ => false,
    }
}

impl SimulatedKernel {
    /// Does what is done in the phase of creations.
    pub(super) fn create(
        &self,
        network: &mut Inner,
        operation: &Operation,
        with_index: bool,
    ) -> Outcome {
        match operation {
            Operation::CreateVeth { a, z } => {
                self.create_veth(network, operation, [a, z], with_index)
            }
            Operation::CreateVxlan {
                device,
                tunnel,
                source,
            } => {
                let made = self.create_vxlan(network, operation, (device, tunnel), with_index)?;
                if let Some(made) = network.devices.get_mut(&made) {
                    made.source = *source;
                }
                Ok(())
            }
            Operation::Retarget { at, tunnel } => self.retarget(network, operation, at, tunnel),
            _ => Ok(()),
        }
    }

    pub(super) fn name_is_free(&self, network: &Inner, operation: &Operation, at: &At) -> Outcome {
        match self.find(network, at)? {
            None => Ok(()),
            Some(_) => Err(KernelError::NameTaken {
                doing: doing(operation),
                name: at.name.clone(),
                netns: at.netns.clone(),
            }),
        }
    }

    /// drivers/net/veth.c, `veth_newlink`: the peer is registered first, and its index counts only
    /// if the device has one. So the peer is `a` unless an index is asked for it.
    fn create_veth(
        &self,
        network: &mut Inner,
        operation: &Operation,
        [a, z]: [&NewDevice; 2],
        with_index: bool,
    ) -> Outcome {
        let (main, peer) = if a.index.is_none() { (z, a) } else { (a, z) };
        let spaces = [self.space(&main.at.netns)?, self.space(&peer.at.netns)?];
        let index = main.index.filter(|_| with_index);
        // net/core/rtnetlink.c, `__rtnl_newlink`, looks for the device by its index if it has one.
        match index {
            Some(index) => is_free(network, operation, spaces[0], index)?,
            None => self.name_is_free(network, operation, &main.at)?,
        }
        self.name_is_free(network, operation, &peer.at)?;
        let peer_index = peer.index.filter(|_| index.is_some());
        if let Some(index) = peer_index {
            is_free(network, operation, spaces[1], index)?;
        }
        let form = || Form::Veth {
            peer: DeviceId::new(0),
        };
        let second = network.insert(spaces[1], Device::created(peer, form()), peer_index);
        let registered =
            self.name_is_free(network, operation, &main.at)
                .and_then(|()| match index {
                    Some(index) => is_free(network, operation, spaces[0], index),
                    None => Ok(()),
                });
        if registered.is_err() {
            network.take(second);
            return registered;
        }
        let first = network.insert(spaces[0], Device::created(main, form()), index);
        for (id, peer) in [(first, second), (second, first)] {
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
        (new, tunnel): (&NewDevice, &Tunnel),
        with_index: bool,
    ) -> Result<DeviceId, KernelError> {
        let target = self.space(&new.at.netns)?;
        let home = self.space(&Netns::Node)?;
        let index = new.index.filter(|_| with_index);
        match index {
            Some(index) => is_free(network, operation, target, index)?,
            None => self.name_is_free(network, operation, &new.at)?,
        }
        // drivers/net/vxlan/vxlan_core.c, `vxlan_config_validate`: the parent, then the VNI.
        if !has_parent(network, home, tunnel) {
            return Err(refused(operation, Errno::ENODEV));
        }
        let key = |tunnel: &Tunnel| (tunnel.vni, tunnel.port, tunnel.remote.is_ipv6());
        let in_use = network.devices.values().any(|device| {
            matches!(&device.form, Form::Vxlan { tunnel: other, home: at }
                if *at == home && key(other) == key(tunnel))
        });
        if in_use {
            return Err(KernelError::VniTaken {
                doing: doing(operation),
                vni: tunnel.vni,
                port: tunnel.port,
            });
        }
        self.name_is_free(network, operation, &new.at)?;
        let form = Form::Vxlan {
            tunnel: tunnel.clone(),
            home,
        };
        let mut device = Device::created(new, form);
        limit_mtu(&mut device, tunnel);
        Ok(network.insert(target, device, index))
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
        let has_parent = has_parent(network, home, next);
        let Some(device) = network.devices.get_mut(&id) else {
            return Ok(());
        };
        let Form::Vxlan { tunnel, .. } = &mut device.form else {
            return Err(refused(operation, Errno::EOPNOTSUPP));
        };
        if !has_parent {
            return Err(no_device(operation, at));
        }
        tunnel.remote = next.remote;
        tunnel.local = next.local;
        // A request without a parent leaves the one that there is.
        if next.parent != 0 {
            tunnel.parent = next.parent;
        }
        limit_mtu(device, next);
        network.has_changed = true;
        Ok(())
    }
}

/// `vxlan_config_apply`: a tunnel with a parent has no more than that leaves.
fn limit_mtu(device: &mut Device, tunnel: &Tunnel) {
    if tunnel.parent != 0 {
        device.mtu = device.mtu.min(UNDERLAY_MTU - OVERHEAD);
    }
}

fn is_free(network: &Inner, operation: &Operation, netns: NetnsId, index: u32) -> Outcome {
    // 1 is lo's.
    let is_taken = index <= 1 || network.namespaces[&netns].devices.contains_key(&index);
    if is_taken {
        return Err(refused(operation, Errno::EEXIST));
    }
    Ok(())
}

fn has_parent(network: &Inner, home: NetnsId, tunnel: &Tunnel) -> bool {
    let devices = &network.namespaces[&home].devices;
    tunnel.parent == 0 || devices.contains_key(&tunnel.parent)
}
