//! A VXLAN device.

use super::{
    assign::Assigned,
    configure::Origin,
    state::{Planner, step},
};
use crate::device::{Kind, Observed, Operation, Tunnel, WantedEnd};

impl Planner<'_> {
    pub fn vxlan(&mut self, end: &WantedEnd, tunnel: &Tunnel, devices: Assigned) {
        let [Some(number), _] = devices else {
            return self.create_vxlan(end, tunnel);
        };
        let device = &self.index.observed[number];
        if device.kind != Kind::from(tunnel) {
            let operation = Operation::Retarget {
                at: device.at(),
                tunnel: tunnel.clone(),
            };
            self.creations.push(step(end, operation));
        }
        self.configure(end, Origin::InPlace(device));
    }

    fn create_vxlan(&mut self, end: &WantedEnd, tunnel: &Tunnel) {
        let leftover = self.replace(end);
        let operation = Operation::CreateVxlan {
            device: self.new_device(end, leftover.as_ref()),
            tunnel: tunnel.clone(),
            source: None,
        };
        self.creations.push(step(end, operation));
        self.configure(end, Origin::Created(leftover));
    }
}

/// Whether a device can become the wanted one where it is: only its remote and local addresses can
/// be changed, and these not to another family.
pub(super) fn fits(device: &Observed, end: &WantedEnd, tunnel: &Tunnel) -> bool {
    let Kind::Vxlan {
        vni,
        parent,
        port,
        local,
        ..
    } = device.kind
    else {
        return false;
    };
    (vni, parent, port) == (tunnel.vni.number(), tunnel.parent, tunnel.port)
        && local.is_none_or(|local| local.is_ipv4() == tunnel.local.is_ipv4())
        && device.is_at(&end.netns, &end.name)
}
