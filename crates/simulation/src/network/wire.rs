//! Who receives a frame.

use std::collections::BTreeSet;

use super::{Device, DeviceId, Form, Inner, NodeNumber, PodNumber};

/// An end of a link: a pod, and the name of an interface in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The pod.
    pub pod: PodNumber,
    /// The interface.
    pub interface: String,
}

impl Inner {
    /// The devices at which a frame arrives that leaves by this device: where one that receives it
    /// is joined to another, those that receive it from that one.
    ///
    /// A VXLAN device takes a frame of its VNI from any node: drivers/net/vxlan/vxlan_core.c,
    /// `vxlan_rcv`, looks at the source only to learn it, which ours do not do. So the source
    /// filters decide.
    pub fn receivers(&self, sender: &Device) -> Vec<DeviceId> {
        let (mut arrived, mut under_way) = (Vec::new(), self.next_hops(sender));
        let mut passed = BTreeSet::new();
        while let Some(id) = under_way.pop() {
            let Some(joined) = self.devices.get(&id).and_then(|device| device.joined) else {
                arrived.push(id);
                continue;
            };
            let sender = self.devices.get(&joined).filter(|_| passed.insert(id));
            under_way.extend(sender.into_iter().flat_map(|sender| self.next_hops(sender)));
        }
        arrived
    }

    /// The tunnel that a frame takes which leaves by this device, if it takes one.
    pub fn tunnel_of<'d>(&'d self, sender: &'d Device) -> Option<&'d Device> {
        let is_tunnel = |device: &&Device| matches!(device.form, Form::Vxlan { .. });
        let next = || match sender.form {
            Form::Veth { peer } => self.devices.get(&peer)?.joined,
            _ => None,
        };
        let joined = || self.devices.get(&next()?);
        Some(sender)
            .filter(is_tunnel)
            .or_else(|| joined().filter(is_tunnel))
    }

    /// The devices that receive what leaves by this one.
    fn next_hops(&self, sender: &Device) -> Vec<DeviceId> {
        if !sender.up {
            return Vec::new();
        }
        match &sender.form {
            Form::Veth { peer } => {
                let peer = self.devices.get_key_value(peer);
                let up = peer.filter(|(_, peer)| peer.up);
                up.map(|(id, _)| *id).into_iter().collect()
            }
            Form::Vxlan { tunnel, .. } => {
                let to = self.hosts.iter().find(|host| host.vtep == tunnel.remote);
                let Some(to) = to.filter(|_| self.may_tunnel(sender, tunnel)) else {
                    return Vec::new();
                };
                let takes = |device: &Device| match &device.form {
                    Form::Vxlan { tunnel: far, home } => {
                        *home == to.netns
                            && device.up
                            && (far.vni, far.port) == (tunnel.vni, tunnel.port)
                    }
                    _ => false,
                };
                let found = self.devices.iter().filter(|(_, device)| takes(device));
                found.map(|(id, _)| *id).collect()
            }
            Form::Other => Vec::new(),
        }
    }

    /// The pod in whose namespace a device is.
    pub fn pod_of(&self, device: &Device) -> Option<PodNumber> {
        self.namespaces.get(&device.netns)?.pod
    }

    /// A device for messages.
    pub fn describe(&self, device: &Device) -> String {
        let place = self.namespaces.get(&device.netns);
        let node = place.map_or(NodeNumber::MAX, |place| place.node);
        let path = place.map_or_else(String::new, |place| place.path.display().to_string());
        let form = match &device.form {
            Form::Veth { .. } => "veth".to_owned(),
            Form::Vxlan { tunnel, .. } => format!("VNI {} to {}", tunnel.vni, tunnel.remote),
            Form::Other => "other".to_owned(),
        };
        let alias = device
            .proven()
            .map_or_else(|| "no alias".to_owned(), ToString::to_string);
        let pod = place.and_then(|place| place.pod);
        let pod = pod.map_or_else(|| "the node".to_owned(), |pod| format!("p{pod}"));
        format!(
            "{} of {pod} on n{node} ({path}; {form}; index {}; {alias})",
            device.name, device.index
        )
    }
}
