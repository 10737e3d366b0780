//! The direct wiring: the pod's interface is the veth end or the VXLAN device itself.

use super::{
    ends::{in_sandbox, parked},
    wire::{Local, Objects},
};
use crate::{
    device::{Tunnel, Wanted},
    link::Mtu,
    names::SandboxId,
};

/// The direct wiring.
pub(super) struct Direct;

impl Objects for Direct {
    fn pair(&self, local: &Local<'_>, other: &SandboxId, mtu: Mtu) -> Vec<Wanted> {
        vec![Wanted::Veth {
            a: in_sandbox(local.link, local.end, local.sandbox, mtu),
            z: in_sandbox(local.link, local.end.other(), other, mtu),
        }]
    }

    fn tunnel(&self, local: &Local<'_>, tunnel: Tunnel, mtu: Mtu) -> Vec<Wanted> {
        vec![Wanted::Vxlan {
            end: in_sandbox(local.link, local.end, local.sandbox, mtu),
            tunnel,
            joined: None,
        }]
    }

    fn hold(&self, local: &Local<'_>) -> Vec<Wanted> {
        vec![Wanted::Hold {
            survivor: in_sandbox(
                local.link,
                local.end,
                local.sandbox,
                local.mtu_within_node(),
            ),
            parked: parked(local.link, local.end.other()),
        }]
    }

    fn part(&self, local: &Local<'_>) -> Vec<Wanted> {
        self.hold(local)
    }

    fn keep(&self, local: &Local<'_>) -> Vec<Wanted> {
        self.hold(local)
    }
}
