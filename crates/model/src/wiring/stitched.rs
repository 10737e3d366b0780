//! The stitched wiring: the pod's interface is a veth whose other end, on the node, is joined to
//! that of the other pod or to a VXLAN device.
//!
//! The veth is made with the pod and stays as long as the pod does: where the other pod is only
//! changes what the node end is joined to. A node end that is joined to nothing is down, so that
//! the pod sees no carrier.

use super::{
    ends::{in_sandbox, on_node},
    wire::{Local, Objects},
};
use crate::{
    device::{Joint, Part, Tunnel, Wanted},
    link::{End, Mtu},
    names::SandboxId,
};

/// The stitched wiring.
pub(super) struct Stitched;

impl Objects for Stitched {
    fn pair(&self, local: &Local<'_>, other: &SandboxId, mtu: Mtu) -> Vec<Wanted> {
        let name = |end| super::name_on_node(local.link.id, end, Part::Node);
        let ends = [(local.end, local.sandbox), (local.end.other(), other)];
        let stubs = ends.map(|(end, sandbox)| {
            let joint = Joint::To(name(end.other()));
            stub(local, (end, sandbox), mtu, joint)
        });
        stubs.into()
    }

    fn tunnel(&self, local: &Local<'_>, tunnel: Tunnel, mtu: Mtu) -> Vec<Wanted> {
        let end = on_node(local.link.id, local.end, Part::Tunnel, local.sandbox, mtu);
        let joint = Joint::To(end.name.clone());
        let node_end = super::name_on_node(local.link.id, local.end, Part::Node);
        vec![
            stub(local, (local.end, local.sandbox), mtu, joint),
            Wanted::Vxlan {
                end,
                tunnel,
                joined: Some(node_end),
            },
        ]
    }

    fn hold(&self, local: &Local<'_>) -> Vec<Wanted> {
        vec![alone(local, Joint::Keep)]
    }

    fn part(&self, local: &Local<'_>) -> Vec<Wanted> {
        vec![alone(local, Joint::Cut)]
    }

    fn keep(&self, local: &Local<'_>) -> Vec<Wanted> {
        vec![Wanted::Frozen(local.link.id)]
    }
}

fn alone(local: &Local<'_>, joint: Joint) -> Wanted {
    let end = (local.end, local.sandbox);
    stub(local, end, local.mtu_within_node(), joint)
}

fn stub(local: &Local<'_>, (end, sandbox): (End, &SandboxId), mtu: Mtu, joint: Joint) -> Wanted {
    let mut node = on_node(local.link.id, end, Part::Node, sandbox, mtu);
    node.up = matches!(joint, Joint::To(_));
    Wanted::Stub {
        pod: in_sandbox(local.link, end, sandbox, mtu),
        node,
        joint,
    }
}
