//! Who receives a frame.
//!
//! Whatever an agent does, no frame may leave an end of one link and arrive at an end of another.
//! [`Inner::check_wires`] sees to that after every step of every agent: an end is known by its pod
//! (whose namespace it is in) and its name, a link by its two ends, and which links there are the
//! scenario says.
//!
//! One case is counted instead of refused: a tunnel of a link that no longer has its VNI. The store
//! gives a VNI again as soon as its link has ended, and the node at the other end hears of that
//! later. Until then its tunnel may send to an end of the link that has the VNI now.

use ratchet_model::{LinkId, Vni, device::Alias};

use super::{Device, DeviceId, Form, Inner, NodeNumber, PodNumber};

/// Whether a link has this VNI now.
pub type HasVni = Box<dyn Fn(LinkId, Vni) -> bool + Send>;

/// An end of a link: a pod, and the name of an interface in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The pod.
    pub pod: PodNumber,
    /// The interface.
    pub interface: String,
}

/// What frames may do, and what they did.
#[derive(Default)]
pub struct Wires {
    /// The links, each with its ends in their order: between these frames may go.
    allowed: Vec<([Endpoint; 2], LinkId)>,
    /// Tells which tunnels are those of links that have ended; without it none are.
    pub has_vni: Option<HasVni>,
    /// The first frame that arrived where it may not.
    pub violation: Option<String>,
    /// How many frames were followed.
    pub frames: u64,
    /// How many arrived where they may not, because a VNI was given again while a tunnel of the
    /// link that had it before was still there.
    pub by_old_tunnels: u64,
    pub(super) changed: bool,
}

impl Wires {
    /// Allows frames between the two ends of a link, which are given in their order.
    pub fn allow(&mut self, ends: [Endpoint; 2], link: LinkId) {
        if !self.allowed.iter().any(|(known, _)| *known == ends) {
            self.allowed.push((ends, link));
        }
    }

    /// Whether a device is a tunnel of a link that no longer has its VNI.
    fn is_old_tunnel(&self, pod: PodNumber, device: &Device) -> bool {
        let (Form::Vxlan { tunnel, .. }, Some(has_vni)) = (&device.form, &self.has_vni) else {
            return false;
        };
        let is_end = |end: &Endpoint| end.pod == pod && end.interface == device.name;
        match &device.alias {
            Some(alias) => !has_vni(alias.link, tunnel.vni),
            None => !self
                .allowed
                .iter()
                .any(|(ends, link)| ends.iter().any(is_end) && has_vni(*link, tunnel.vni)),
        }
    }

    fn is_allowed(&self, one: (PodNumber, &str), other: (PodNumber, &str)) -> bool {
        let (a, z) = if one <= other {
            (one, other)
        } else {
            (other, one)
        };
        let is = |end: &Endpoint, (pod, interface): (PodNumber, &str)| {
            end.pod == pod && end.interface == interface
        };
        self.allowed
            .iter()
            .any(|([first, second], _)| is(first, a) && is(second, z))
    }
}

impl Inner {
    /// The devices that receive a frame which leaves by this device.
    ///
    /// A VXLAN device takes a frame of its VNI from any node: drivers/net/vxlan/vxlan_core.c,
    /// `vxlan_rcv`, looks at the source only to learn it, which ours do not do.
    pub fn receivers(&self, sender: &Device) -> Vec<DeviceId> {
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
                let Some(to) = to else { return Vec::new() };
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

    /// Follows a frame from every device of every pod, if any wire has changed since the last time.
    pub fn check_wires(&mut self, after: &dyn Fn() -> String) {
        if !std::mem::take(&mut self.wires.changed) || self.wires.violation.is_some() {
            return;
        }
        let (mut frames, mut by_old_tunnels, mut wrong) = (0, 0, None);
        for device in self.devices.values() {
            let Some(pod) = self.pod_of(device) else {
                continue;
            };
            for receiver in self.receivers(device) {
                frames += 1;
                let receiver = &self.devices[&receiver];
                let Some(far) = self.pod_of(receiver) else {
                    continue;
                };
                if self.may_pass((pod, device), (far, receiver)) {
                    continue;
                }
                let wires = &self.wires;
                if wires.is_old_tunnel(pod, device) || wires.is_old_tunnel(far, receiver) {
                    by_old_tunnels += 1;
                } else if wrong.is_none() {
                    wrong = Some((self.describe(device), self.describe(receiver)));
                }
            }
        }
        self.wires.frames += frames;
        self.wires.by_old_tunnels += by_old_tunnels;
        self.wires.violation = wrong.map(|(from, to)| {
            format!(
                "a frame from {from} arrives at {to}, the end of another link, after {}",
                after()
            )
        });
    }

    /// Whether two devices are the ends of one link, or the same end of it in two sandboxes of its
    /// pod.
    fn may_pass(&self, from: (PodNumber, &Device), to: (PodNumber, &Device)) -> bool {
        let link = |alias: &Option<Alias>| alias.as_ref().map(|alias| alias.link);
        let links = (link(&from.1.alias), link(&to.1.alias));
        let differ = matches!(links, (Some(one), Some(other)) if one != other);
        let ends = ((from.0, from.1.name.as_str()), (to.0, to.1.name.as_str()));
        !differ && (ends.0 == ends.1 || self.wires.is_allowed(ends.0, ends.1))
    }

    fn pod_of(&self, device: &Device) -> Option<PodNumber> {
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
            .alias
            .as_ref()
            .map_or_else(|| "no alias".to_owned(), ToString::to_string);
        let pod = place.and_then(|place| place.pod);
        let pod = pod.map_or_else(|| "the node".to_owned(), |pod| format!("p{pod}"));
        format!(
            "{} of {pod} on n{node} ({path}; {form}; index {}; {alias})",
            device.name, device.index
        )
    }
}
