//! Creates devices in their namespaces, and changes the addresses of VXLAN devices.

use nix::errno::Errno;
use ratchet_model::device::{At, Netns, NewDevice, Operation, Tunnel};

use super::{Jobs, Phase, Run, describe};
use crate::{
    error::KernelError,
    request::{self, NewLink},
    socket::{Failure, Request},
};

impl<'a> Run<'a> {
    pub(super) fn create(&mut self) {
        let mut jobs = Jobs::new();
        for position in self.take(Phase::Create) {
            match self.creation_request(position, true) {
                Ok(Some((netns, request))) => {
                    jobs.entry(netns).or_default().push((position, request))
                }
                Ok(None) => {}
                Err(error) => self.settle(position, Err(error)),
            }
        }
        for (position, failure) in self.send_without_index_if_need_be(jobs) {
            let outcome = match (self.operation(position), failure.errno) {
                (Operation::CreateVeth { a, z }, Errno::EEXIST) => {
                    self.name_clash(position, &[&a.at, &z.at], failure)
                }
                (Operation::CreateVxlan { device, tunnel }, Errno::EEXIST) => {
                    self.vxlan_clash(position, device, tunnel, failure)
                }
                (operation, _) => Err(describe::explain(operation, failure)),
            };
            self.settle(position, outcome);
        }
    }

    /// The request for a step, and the namespace over whose socket it goes.
    ///
    /// Kernels before 6.15 look in the **socket's** namespace whether the name is free
    /// (net/core/rtnetlink.c, `__rtnl_newlink`). A veth pair therefore is made over the socket of
    /// one of its ends; a VXLAN device must be made over the node's, see [`Run::vxlan_clash`].
    fn creation_request(
        &self,
        position: usize,
        with_index: bool,
    ) -> Result<Option<(&'a Netns, Request)>, KernelError> {
        let new_link = |device: &'a NewDevice| {
            let new = self.new_link(device, &device.at.name)?;
            Ok(NewLink {
                index: new.index.filter(|_| with_index),
                ..new
            })
        };
        Ok(match self.operation(position) {
            Operation::CreateVeth { a, z } => {
                // The peer's index counts only if the device has one (drivers/net/veth.c,
                // `veth_newlink`).
                let (a, z) = if a.index.is_none() { (z, a) } else { (a, z) };
                Some((
                    &a.at.netns,
                    request::create_veth(&new_link(a)?, &new_link(z)?),
                ))
            }
            Operation::CreateVxlan { device, tunnel } => Some((
                &Netns::Node,
                request::create_vxlan(&new_link(device)?, tunnel),
            )),
            Operation::Retarget { at, tunnel } => {
                Some((&at.netns, request::retarget(&at.name, tunnel)))
            }
            _ => None,
        })
    }

    fn new_link<'b>(&self, new: &NewDevice, name: &'b str) -> Result<NewLink<'b>, KernelError> {
        let netns = self.kernel.space(&new.at.netns)?.handle.raw_fd();
        Ok(NewLink {
            netns,
            name,
            mac: new.mac,
            mtu: new.mtu,
            index: new.index,
        })
    }

    /// Sends, and where an index that was asked for is taken (EBUSY, or, with kernels before 6.15,
    /// which look for it in the socket's namespace, EEXIST), once more without it.
    fn send_without_index_if_need_be(&mut self, jobs: Jobs<'a>) -> Vec<(usize, Failure)> {
        let (again, mut failed): (Vec<_>, Vec<_>) =
            self.send(jobs)
                .into_iter()
                .partition(|(position, failure)| {
                    let asked = match self.operation(*position) {
                        Operation::CreateVeth { a, z } => a.index.is_some() || z.index.is_some(),
                        Operation::CreateVxlan { device, .. } => device.index.is_some(),
                        _ => false,
                    };
                    asked && matches!(failure.errno, Errno::EBUSY | Errno::EEXIST)
                });
        let mut jobs = Jobs::new();
        for (position, failure) in again {
            match self.creation_request(position, false) {
                Ok(Some((netns, request))) => {
                    jobs.entry(netns).or_default().push((position, request))
                }
                _ => failed.push((position, failure)),
            }
        }
        failed.extend(self.send(jobs));
        failed
    }

    /// Finds out which of the names is taken.
    fn name_clash(
        &self,
        position: usize,
        ats: &[&At],
        failure: Failure,
    ) -> Result<(), KernelError> {
        let operation = self.operation(position);
        for at in ats {
            if self.kernel.find(&[(*at).clone()])?[0].is_some() {
                let doing = describe::doing(operation);
                return Err(KernelError::NameTaken {
                    doing,
                    name: at.name.clone(),
                    netns: at.netns.clone(),
                });
            }
        }
        Err(describe::explain(operation, failure))
    }

    /// EEXIST for a VXLAN device: its name is taken, or its VNI is, or, with a kernel before 6.15,
    /// the **node** has a device of that name (say, eth1). Then it is born under a name that nobody
    /// has and renamed in its place.
    fn vxlan_clash(
        &self,
        position: usize,
        new: &NewDevice,
        tunnel: &Tunnel,
        failure: Failure,
    ) -> Result<(), KernelError> {
        self.name_clash(position, &[&new.at], failure.clone())
            .or_else(|error| match error {
                KernelError::VniTaken { .. } => {
                    let there = At {
                        netns: Netns::Node,
                        name: new.at.name.clone(),
                    };
                    match self.kernel.find(&[there])?[0] {
                        Some(_) => self.create_renamed(position, new, tunnel),
                        None => Err(error),
                    }
                }
                error => Err(error),
            })
    }

    fn create_renamed(
        &self,
        position: usize,
        new: &NewDevice,
        tunnel: &Tunnel,
    ) -> Result<(), KernelError> {
        let refused = |failure| describe::explain(self.operation(position), failure);
        let interim = At {
            netns: new.at.netns.clone(),
            name: format!("rtch-{:06x}", tunnel.vni.number()),
        };
        let creation = request::create_vxlan(&self.new_link(new, &interim.name)?, tunnel);
        self.kernel
            .talk(&Netns::Node, |channel| channel.once(creation))?
            .map_err(refused)?;
        let Some(device) = self
            .kernel
            .find(std::slice::from_ref(&interim))?
            .pop()
            .flatten()
        else {
            return Err(KernelError::NoDevice {
                doing: describe::doing(self.operation(position)),
                at: interim,
            });
        };
        let netns = &new.at.netns;
        let rename = request::move_link(device.index, None, &new.at.name, None);
        let renamed = self.kernel.talk(netns, |channel| channel.once(rename))?;
        if renamed.is_err() {
            // Nothing looks for a device of that name later.
            let deletion = request::delete_link(device.index);
            if let Err(failure) = self.kernel.talk(netns, |channel| channel.once(deletion))? {
                tracing::warn!(
                    device = %interim, error = %failure.errno.desc(),
                    "left behind a half-made device"
                );
            }
        }
        renamed.map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kernel, NetnsHandle, netns};
    use ratchet_model::device::{Kind, Step};

    /// The kernels that need this are not those that tests run on, so the test calls it directly.
    #[test]
    fn a_vxlan_device_can_be_created_under_another_name_first() {
        let fresh = || {
            std::thread::spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
                NetnsHandle::current().unwrap()
            })
            .join()
            .unwrap()
        };
        let (node, pod) = (fresh(), fresh());
        netns::inside(&node, move || {
            let mut kernel = Kernel::new().unwrap();
            let id: ratchet_model::names::SandboxId = "s1".parse().unwrap();
            kernel.register(id.clone(), pod);
            let at = At {
                netns: Netns::Sandbox(id),
                name: "eth1".into(),
            };
            let new = NewDevice {
                at: at.clone(),
                mac: "02:00:00:00:00:01".parse().unwrap(),
                mtu: 1450.try_into().unwrap(),
                index: None,
            };
            let tunnel = Tunnel {
                vni: 11.try_into().unwrap(),
                remote: "10.0.0.2".parse().unwrap(),
                local: "10.0.0.1".parse().unwrap(),
                parent: 0,
                port: 4789,
            };
            let link = "00000000000000ff".parse().unwrap();
            let steps = [Step {
                link,
                operation: Operation::CreateVxlan {
                    device: new.clone(),
                    tunnel: tunnel.clone(),
                },
            }];
            let run = Run {
                kernel: &kernel,
                steps: &steps,
                outcomes: vec![None],
                broken: Default::default(),
            };
            run.create_renamed(0, &new, &tunnel).unwrap();
            let device = kernel.find(&[at]).unwrap().pop().flatten().unwrap();
            assert!(matches!(device.kind, Kind::Vxlan { vni: 11, .. }));
            assert!(device.is_ours() && device.name == "eth1");
            Ok(())
        })
        .unwrap();
    }
}
