//! The source filter of each node, as `ratchet_filter` has the real kernel make it.

use std::collections::BTreeSet;

use ratchet_model::device::{Passage, Tunnel};

use super::{Device, Form, Inner, NodeNumber};

impl Inner {
    /// What a node's filter lets through.
    pub fn filter(&self, node: NodeNumber) -> &BTreeSet<Passage> {
        &self.hosts[node].filter
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
        let leaves = from.is_none_or(|host| passes(&host.filter, tunnel, |known| *known == sent));
        leaves && to.is_none_or(|host| passes(&host.filter, tunnel, received))
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
