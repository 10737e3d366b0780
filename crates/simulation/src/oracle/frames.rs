//! At any moment: no frame that leaves an end of one link arrives at an end of another.
//!
//! That is checked after every step of every agent. An end is known by its pod (whose namespace it
//! is in) and its name, a link by its two ends, and which links there are the scenario says.
//!
//! One case is counted instead of refused: after the store has lost everything, a tunnel whose node
//! does not hold its VNI again yet. The store gave the VNI to another link, not knowing better.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ratchet_model::{LinkId, Vni, device::Part};

use super::expected::Ends;
use crate::network::{Device, Endpoint, Form, Inner, NodeNumber, PodNumber};

/// Whether the store has lost that a node holds a VNI for a link.
pub type IsLost = Box<dyn Fn(NodeNumber, LinkId, Vni) -> bool + Send>;

/// What frames may do, and what they did.
pub struct Frames {
    /// The links: between the ends of each frames may go.
    allowed: Vec<(Ends, LinkId)>,
    /// Tells which tunnels the store has forgotten.
    is_lost: IsLost,
    /// The pods whose roots forge.
    pub forgers: BTreeSet<PodNumber>,
    /// The first frame that arrived where it may not.
    pub violation: Option<String>,
    /// How many frames were followed.
    pub followed: u64,
    /// How many arrived where they may not, because the store has lost everything.
    pub by_lost_tunnels: u64,
}

/// Frames, shared by the network, which lets them be checked, and the scenario.
#[derive(Clone)]
pub struct SharedFrames(Arc<Mutex<Frames>>);

impl SharedFrames {
    /// No frame may go anywhere yet.
    pub fn new(is_lost: IsLost) -> Self {
        Self(Arc::new(Mutex::new(Frames {
            allowed: Vec::new(),
            is_lost,
            forgers: BTreeSet::new(),
            violation: None,
            followed: 0,
            by_lost_tunnels: 0,
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
                if let Some(device) = receiver.filter(|device| is_open(device)) {
                    self.violation.get_or_insert_with(|| {
                        let [from, to] = [sender, device].map(|device| network.describe(device));
                        format!(
                            "a frame from {from} arrives at the node's {to} after {}",
                            after()
                        )
                    });
                }
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
        if self.may_pass(from, to) || self.is_forgers_own(from, to) {
            return;
        }
        if self.is_lost_tunnel(network, from) || self.is_lost_tunnel(network, to) {
            self.by_lost_tunnels += 1;
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
        let link = |device: &Device| device.proven().map(|alias| alias.link);
        let links = (link(from.1), link(to.1));
        let differ = matches!(links, (Some(one), Some(other)) if one != other);
        let ends = ((from.0, from.1.name.as_str()), (to.0, to.1.name.as_str()));
        !differ && (ends.0 == ends.1 || self.is_allowed(ends.0, ends.1))
    }

    /// Whether a frame leaves or reaches a forger, and its other end, if that is another pod's, is
    /// the end of a link with the forger. Which of its own devices the forger has taken for it is
    /// its own affair.
    fn is_forgers_own(&self, from: (PodNumber, &Device), to: (PodNumber, &Device)) -> bool {
        let has_link = |forger: PodNumber, (pod, device): (PodNumber, &Device)| {
            let is_own = pod == forger;
            let is_end = |end: &Endpoint| end.pod == pod && end.interface == device.name;
            let mut links = self.allowed.iter().map(|(ends, _)| ends);
            is_own
                || links
                    .any(|ends| ends.iter().any(is_end) && ends.iter().any(|end| end.pod == forger))
        };
        let is_forger = |pod: &PodNumber| self.forgers.contains(pod);
        let mut forgers = [(from.0, to), (to.0, from)].into_iter();
        forgers.any(|(forger, other)| is_forger(&forger) && has_link(forger, other))
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

    /// Whether a device is a tunnel that the store has forgotten.
    fn is_lost_tunnel(&self, network: &Inner, (pod, device): (PodNumber, &Device)) -> bool {
        let Some(through) = network.tunnel_of(device) else {
            return false;
        };
        let Form::Vxlan { tunnel, .. } = &through.form else {
            return false;
        };
        let Some(place) = network.namespace(device.netns) else {
            return false;
        };
        let is_end = |end: &Endpoint| end.pod == pod && end.interface == device.name;
        let is_lost = |link| (self.is_lost)(place.node, link, tunnel.vni);
        match device.proven() {
            Some(alias) => is_lost(alias.link),
            None => self
                .allowed
                .iter()
                .any(|(ends, link)| ends.iter().any(is_end) && is_lost(*link)),
        }
    }
}

/// Whether a device in the node's namespace should have passed a frame on, and has not.
fn is_open(device: &Device) -> bool {
    let alias = device.proven();
    alias.is_some_and(|alias| alias.part != Part::Pod)
}
