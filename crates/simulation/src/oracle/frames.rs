//! At any moment: no frame that leaves an end of one link arrives at an end of another.
//!
//! That is checked after every step of every agent. An end is known by its pod (whose namespace it
//! is in) and its name, a link by its two ends, and which links there are the scenario says.
//!
//! One case is counted instead of refused: a tunnel of a link that no longer has its VNI. The store
//! gives a VNI again as soon as its link has ended, and the node at the other end hears of that
//! later. Until then its tunnel may send to an end of the link that has the VNI now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ratchet_model::{LinkId, Vni, device::Alias};

use super::expected::Ends;
use crate::network::{Device, Endpoint, Form, Inner, PodNumber};

/// Whether a link has this VNI now.
pub type HasVni = Box<dyn Fn(LinkId, Vni) -> bool + Send>;

/// What frames may do, and what they did.
pub struct Frames {
    /// The links: between the ends of each frames may go.
    allowed: Vec<(Ends, LinkId)>,
    /// Tells which tunnels are those of links that have ended.
    has_vni: HasVni,
    /// The first frame that arrived where it may not.
    pub violation: Option<String>,
    /// How many frames were followed.
    pub followed: u64,
    /// How many arrived where they may not, because a VNI was given again while a tunnel of the
    /// link that had it before was still there.
    pub by_old_tunnels: u64,
}

/// Frames, shared by the network, which lets them be checked, and the scenario.
#[derive(Clone)]
pub struct SharedFrames(Arc<Mutex<Frames>>);

impl SharedFrames {
    /// No frame may go anywhere yet.
    pub fn new(has_vni: HasVni) -> Self {
        Self(Arc::new(Mutex::new(Frames {
            allowed: Vec::new(),
            has_vni,
            violation: None,
            followed: 0,
            by_old_tunnels: 0,
        })))
    }

    /// Looks at them, or changes them.
    pub fn lock(&self) -> MutexGuard<'_, Frames> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frames {
    /// Allows frames between the two ends of a link, which are given in their order.
    pub fn allow(&mut self, ends: Ends, link: LinkId) {
        if !self.allowed.iter().any(|(known, _)| *known == ends) {
            self.allowed.push((ends, link));
        }
    }

    /// Follows a frame from every device of every pod.
    pub fn follow(&mut self, network: &Inner, after: &dyn Fn() -> String) {
        if self.violation.is_some() {
            return;
        }
        for sender in network.devices() {
            let Some(from) = network.pod_of(sender) else {
                continue;
            };
            for receiver in network.receivers(sender) {
                self.followed += 1;
                let receiver = network.device(receiver);
                let to = receiver.and_then(|device| Some((network.pod_of(device)?, device)));
                let Some(to) = to else { continue };
                self.arrived(network, (from, sender), to, after);
            }
        }
    }

    fn arrived(
        &mut self,
        network: &Inner,
        from: (PodNumber, &Device),
        to: (PodNumber, &Device),
        after: &dyn Fn() -> String,
    ) {
        if self.may_pass(from, to) {
            return;
        }
        if self.is_old_tunnel(from) || self.is_old_tunnel(to) {
            self.by_old_tunnels += 1;
        } else if self.violation.is_none() {
            self.violation = Some(format!(
                "a frame from {} arrives at {}, the end of another link, after {}",
                network.describe(from.1),
                network.describe(to.1),
                after()
            ));
        }
    }

    /// Whether two devices are the ends of one link, or the same end of it in two sandboxes of its
    /// pod.
    fn may_pass(&self, from: (PodNumber, &Device), to: (PodNumber, &Device)) -> bool {
        let link = |alias: &Option<Alias>| alias.as_ref().map(|alias| alias.link);
        let links = (link(&from.1.alias), link(&to.1.alias));
        let differ = matches!(links, (Some(one), Some(other)) if one != other);
        let ends = ((from.0, from.1.name.as_str()), (to.0, to.1.name.as_str()));
        !differ && (ends.0 == ends.1 || self.is_allowed(ends.0, ends.1))
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

    /// Whether a device is a tunnel of a link that no longer has its VNI.
    fn is_old_tunnel(&self, (pod, device): (PodNumber, &Device)) -> bool {
        let Form::Vxlan { tunnel, .. } = &device.form else {
            return false;
        };
        let is_end = |end: &Endpoint| end.pod == pod && end.interface == device.name;
        match &device.alias {
            Some(alias) => !(self.has_vni)(alias.link, tunnel.vni),
            None => !self
                .allowed
                .iter()
                .any(|(ends, link)| ends.iter().any(is_end) && (self.has_vni)(*link, tunnel.vni)),
        }
    }
}
