//! The source filter of each node, as `ratchet_filter` has the real kernel make it.

use std::collections::BTreeSet;

use nix::errno::Errno;
use ratchet_kernel::{FoundFilter, KernelError};
use ratchet_model::device::{At, Operation, Passage, Tunnel};

use super::{Device, Form, Inner, NodeNumber, SimulatedKernel};

/// The filter of a node.
#[derive(Debug, Default)]
pub(super) struct Filter {
    pub passages: BTreeSet<Passage>,
    /// Whether the kernel refuses to read and change it.
    refuses: bool,
    /// Whether it was removed, or could not be changed: tunnels may be without it until
    /// everything has settled.
    is_disturbed: bool,
}

impl SimulatedKernel {
    /// Passes a point and reads the filter, or does something else to it.
    pub(super) fn with_filter<T>(
        &self,
        work: impl FnOnce(&mut BTreeSet<Passage>) -> T,
    ) -> Result<T, KernelError> {
        self.points.pass();
        let result = {
            let mut network = self.network.lock();
            let filter = &mut network.hosts[self.node].filter;
            if filter.refuses {
                self.known.replace(None);
                return Err(KernelError::Refused {
                    doing: "use the source filter".to_owned(),
                    errno: Errno::ENOBUFS,
                    reason: None,
                });
            }
            let result = work(&mut filter.passages);
            self.known.replace(Some(filter.passages.clone()));
            result
        };
        self.points.pass();
        Ok(result)
    }

    /// The whole filter. After others removed it that is nothing.
    pub(super) fn read_filter(&self) -> Result<FoundFilter, KernelError> {
        self.with_filter(|passages| FoundFilter {
            passages: passages.clone(),
            is_whole: true,
        })
    }

    /// Changes the filter; where others removed it, what was known of it is made again.
    pub(super) fn update_filter(
        &self,
        permit: &[Passage],
        forbid: &[Passage],
    ) -> Result<(), KernelError> {
        let known = self.known.take();
        self.with_filter(|passages| {
            if let Some(known) = known {
                *passages = known;
            }
            passages.retain(|passage| !forbid.contains(passage));
            passages.extend(permit);
        })
    }

    /// A step was done: a tunnel that it made, pointed elsewhere or set up must be in the filter.
    pub(super) fn check_filter(&self, network: &mut Inner, operation: &Operation) {
        // One that was created sends and receives nothing before it is set up (`vxlan_open`).
        let at: &At = match operation {
            Operation::Retarget { at, .. } | Operation::SetUp(at, true) => at,
            _ => return,
        };
        let Ok(Some(id)) = self.find(network, at) else {
            return;
        };
        let unguarded = network.is_unguarded(self.node, &network.devices[&id]);
        if unguarded && network.unguarded.is_none() {
            let device = network.describe(&network.devices[&id]);
            network.unguarded = Some(format!(
                "the filter of n{} does not know {device}, on which was done: {operation:?}",
                self.node
            ));
        }
    }
}

impl Inner {
    /// What a node's filter lets through.
    pub fn filter(&self, node: NodeNumber) -> &BTreeSet<Passage> {
        &self.hosts[node].filter.passages
    }

    /// Another program removes all rules of a node.
    pub fn flush_filter(&mut self, node: NodeNumber) {
        let filter = &mut self.hosts[node].filter;
        filter.passages.clear();
        filter.is_disturbed = true;
    }

    /// The kernel of a node refuses to read and change the filter, or does no more.
    pub fn refuse_filter(&mut self, node: NodeNumber, refuses: bool) {
        let filter = &mut self.hosts[node].filter;
        filter.refuses = refuses;
        filter.is_disturbed |= refuses;
    }

    /// All filters are as they must be: from here on they must stay so.
    pub fn filters_have_settled(&mut self) {
        for host in &mut self.hosts {
            host.filter.is_disturbed = false;
        }
    }

    fn is_unguarded(&self, node: NodeNumber, device: &Device) -> bool {
        let Form::Vxlan { tunnel, .. } = &device.form else {
            return false;
        };
        let filter = &self.hosts[node].filter;
        let needs = Passage::of(tunnel, device.source);
        !filter.is_disturbed && !filter.passages.contains(&needs)
    }

    /// What the tunnels of a node need, each with its device.
    pub fn tunnels(&self, node: NodeNumber) -> impl Iterator<Item = (&Device, Passage)> {
        let own = self.hosts[node].netns;
        self.devices.values().filter_map(move |device| {
            let Form::Vxlan { tunnel, home } = &device.form else {
                return None;
            };
            (*home == own).then(|| (device, Passage::of(tunnel, device.source)))
        })
    }

    /// Whether the filter of the sender's node and that of the receiver's let a frame of a device
    /// pass. Nodes are known by their VTEPs.
    pub(super) fn may_tunnel(&self, sender: &Device, tunnel: &Tunnel) -> bool {
        let sent = Passage::of(tunnel, sender.source);
        let received =
            |passage: &Passage| (passage.local, passage.remote) == (tunnel.remote, tunnel.local);
        let from = self.hosts.iter().find(|host| host.vtep == tunnel.local);
        let to = self.hosts.iter().find(|host| host.vtep == tunnel.remote);
        let leaves =
            from.is_none_or(|host| passes(&host.filter.passages, tunnel, |known| *known == sent));
        leaves && to.is_none_or(|host| passes(&host.filter.passages, tunnel, received))
    }
}

/// Whether a packet of a VNI passes a filter: if the VNI is not one of the filter's, or the packet
/// belongs to one of its passages.
fn passes(filter: &BTreeSet<Passage>, tunnel: &Tunnel, belongs: impl Fn(&Passage) -> bool) -> bool {
    let mut of_vni = filter
        .iter()
        .filter(|passage| (passage.port, passage.vni) == (tunnel.port, tunnel.vni))
        .peekable();
    of_vni.peek().is_none() || of_vni.any(belongs)
}
