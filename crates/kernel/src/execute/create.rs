//! Creates devices in their namespaces, and changes the addresses of VXLAN devices.

use nix::errno::Errno;
use ratchet_model::device::{At, Netns, NewDevice, Operation, SourcePorts, Tunnel};

use super::{Jobs, Phase, Run, describe};
use crate::{
    error::KernelError,
    request::{self, NewLink},
    socket::{Failure, Request},
};

impl<'a> Run<'a> {
    pub(super) fn create(&mut self) {
        for (position, failure) in self.send_creations() {
            let outcome = match (self.operation(position), failure.errno) {
                (Operation::CreateVeth { a, z }, Errno::EEXIST) => {
                    self.name_clash(position, &[&a.at, &z.at], failure)
                }
                (
                    Operation::CreateVxlan {
                        device,
                        tunnel,
                        source,
                    },
                    Errno::EEXIST,
                ) => self.vxlan_clash(position, device, (tunnel, *source), failure),
                (operation, _) => Err(describe::explain(operation, failure)),
            };
            self.settle(position, outcome);
        }
    }

    /// Sends what asks for an index first and in the plan's order: a device that takes any index
    /// may get the one that another asks for. Returns the refused steps.
    ///
    /// Where an index is taken (EBUSY, or, with kernels before 6.15, which look for it in the
    /// socket's namespace, EEXIST), the step is done without it, together with those that ask for
    /// none.
    fn send_creations(&mut self) -> Vec<(usize, Failure)> {
        let (asking, mut rest): (Vec<usize>, Vec<usize>) = self
            .take(Phase::Create)
            .into_iter()
            .partition(|position| self.operation(*position).asks_for_index());
        let mut refused = Vec::new();
        for run in self.runs(asking) {
            refused.extend(self.send(run));
        }
        let (taken, mut refused): (Vec<_>, Vec<_>) = refused
            .into_iter()
            .partition(|(_, failure)| matches!(failure.errno, Errno::EBUSY | Errno::EEXIST));
        rest.extend(taken.into_iter().map(|(position, _)| position));
        let mut jobs = Jobs::new();
        for (position, netns, request) in self.creation_requests(rest, false) {
            jobs.entry(netns).or_default().push((position, request));
        }
        refused.extend(self.send(jobs));
        refused
    }

    /// Creations in the order given, as many in one go as go over the same socket.
    fn runs(&mut self, positions: Vec<usize>) -> Vec<Jobs<'a>> {
        let mut runs: Vec<Jobs<'a>> = Vec::new();
        for (position, netns, request) in self.creation_requests(positions, true) {
            let job = (position, request);
            match runs.last_mut().and_then(|run| run.get_mut(netns)) {
                Some(jobs) => jobs.push(job),
                None => runs.push([(netns, vec![job])].into()),
            }
        }
        runs
    }

    /// The requests for these steps. A step for which there can be none is settled.
    fn creation_requests(
        &mut self,
        positions: Vec<usize>,
        with_index: bool,
    ) -> Vec<(usize, &'a Netns, Request)> {
        let mut requests = Vec::with_capacity(positions.len());
        for position in positions {
            match self.creation_request(position, with_index) {
                Ok(Some((netns, request))) => requests.push((position, netns, request)),
                Ok(None) => {}
                Err(error) => self.settle(position, Err(error)),
            }
        }
        requests
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
            Operation::CreateVxlan {
                device,
                tunnel,
                source,
            } => Some((
                &Netns::Node,
                request::create_vxlan(&new_link(device)?, tunnel, *source),
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
            is_on_node: new.at.netns == Netns::Node,
        })
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
        tunnel: (&Tunnel, Option<SourcePorts>),
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
        (tunnel, source): (&Tunnel, Option<SourcePorts>),
    ) -> Result<(), KernelError> {
        let refused = |failure| describe::explain(self.operation(position), failure);
        let interim = At {
            netns: new.at.netns.clone(),
            name: format!("rtch-{:06x}", tunnel.vni.number()),
        };
        let new_link = self.new_link(new, &interim.name)?;
        let creation = request::create_vxlan(&new_link, tunnel, source);
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
mod tests;
