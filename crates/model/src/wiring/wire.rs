//! What is decided for a link in the same way however it is wired.

use std::net::IpAddr;

use super::{
    direct::Direct,
    outcome::Wiring,
    place::{Node, Place, VniState, Vtep},
    stitched::Stitched,
};
use crate::{
    WiringKind,
    device::{Tunnel, VXLAN_PORT, Wanted},
    link::{End, Mtu, Vni},
    names::{NodeName, PodKey, SandboxId},
    reason::Reason,
    resolve::Link,
};

/// Whether the link spans this node and another one, and so needs a VNI.
pub fn needs_vni(link: &Link, places: &[Place; 2]) -> bool {
    link.barred.is_none()
        && link.problem.is_none()
        && matches!(
            places,
            [Place::Here(_), Place::There { .. }] | [Place::There { .. }, Place::Here(_)]
        )
}

/// How a link is wired that has no devices on this node yet.
pub fn asked(link: &Link, node: &Node) -> WiringKind {
    link.wiring.unwrap_or(node.default_wiring)
}

/// Wires one link. `places` are those of the pods of ends a and z.
pub fn wire(
    link: &Link,
    places: &[Place; 2],
    vni: VniState,
    node: &Node,
    kind: WiringKind,
) -> Wiring {
    let (end, sandbox, peer) = match places {
        [Place::Here(sandbox), peer] => (End::A, sandbox, peer),
        [peer, Place::Here(sandbox)] => (End::Z, sandbox, peer),
        _ => {
            return Wiring {
                wanted: Vec::new(),
                obstacle: None,
            };
        }
    };
    let local = Local {
        link,
        end,
        sandbox,
        node,
        objects: match kind {
            WiringKind::Direct => &Direct,
            WiringKind::Stitched => &Stitched,
        },
    };
    if let Some(reason) = &link.barred {
        return local.bar(reason, peer, places);
    }
    let wiring = match (peer, &link.problem) {
        (Place::Here(_) | Place::There { .. }, Some(problem)) => local.freeze((**problem).clone()),
        // The other pod may be about to go and take its end of a veth with it.
        (_, Some(problem)) => local.wait(local.objects.keep(&local), (**problem).clone()),
        (Place::Here(other), None) => local.pair(other),
        (Place::There { node, vtep, mtu }, None) => local.tunnel(vni, node, *vtep, *mtu),
        (Place::Gone, None) => local.part(Reason::PeerGone { pod: local.peer() }),
        (Place::Unknown, None) => local.hold(Reason::PeerUnknown { pod: local.peer() }),
        (Place::Lost(lost), None) => local.hold(Reason::PeerLost {
            pod: local.peer(),
            sandbox: lost.clone(),
        }),
    };
    match node.full {
        Some(limit) if wiring.wanted.iter().any(Wanted::makes) => {
            let node = node.name.clone();
            local.freeze(Reason::TooManyDevices { node, limit })
        }
        _ => wiring,
    }
}

/// The kernel objects of a way to wire links.
pub(super) trait Objects {
    /// Both pods are here, the other one in this sandbox.
    fn pair(&self, local: &Local<'_>, other: &SandboxId, mtu: Mtu) -> Vec<Wanted>;
    /// The other pod is on another node.
    fn tunnel(&self, local: &Local<'_>, tunnel: Tunnel, mtu: Mtu) -> Vec<Wanted>;
    /// The other pod is not known, or something is missing for the link: what it has stays.
    fn hold(&self, local: &Local<'_>) -> Vec<Wanted>;
    /// The other pod has gone.
    fn part(&self, local: &Local<'_>) -> Vec<Wanted>;
    /// The other pod is not here, and a person has to correct something or to consent: nothing is
    /// made.
    fn keep(&self, local: &Local<'_>) -> Vec<Wanted>;
}

/// A link's end on this node.
pub(super) struct Local<'a> {
    pub link: &'a Link,
    pub end: End,
    pub sandbox: &'a SandboxId,
    node: &'a Node,
    objects: &'a dyn Objects,
}

impl Local<'_> {
    fn peer(&self) -> PodKey {
        self.link.endpoint(self.end.other()).pod.clone()
    }

    /// The other end is on this node, too.
    fn pair(&self, other: &SandboxId) -> Wiring {
        Wiring {
            wanted: self.objects.pair(self, other, self.mtu_within_node()),
            obstacle: None,
        }
    }

    /// The other end is on another node.
    fn tunnel(&self, vni: VniState, other: &NodeName, vtep: IpAddr, mtu: Mtu) -> Wiring {
        let Some(own) = self.node.vtep else {
            return self.hold(Reason::UnderlayMissing {
                node: other.clone(),
            });
        };
        let limit = self.node.mtu.min(mtu);
        if let Err(problem) = self.check_tunnel(own.address, other, vtep, limit) {
            return self.freeze(problem);
        }
        match vni {
            VniState::Granted(vni) => self.tunnel_with(vni, own, vtep, limit),
            VniState::None => self.hold(Reason::VniMissing {
                node: other.clone(),
            }),
            VniState::TakenBy(vni, owner) => self.freeze(Reason::VniOfAnotherLink { vni, owner }),
            VniState::Blocked(vni, node) => self.freeze(Reason::VniOfAnotherDevice { vni, node }),
        }
    }

    fn tunnel_with(&self, vni: Vni, own: Vtep, remote: IpAddr, limit: Mtu) -> Wiring {
        let asked = self.link.mtu.or(self.node.default_mtu);
        let mtu = asked.unwrap_or(limit).min(limit);
        let tunnel = Tunnel {
            vni,
            remote,
            local: own.address,
            parent: own.parent,
            port: VXLAN_PORT,
        };
        Wiring {
            wanted: self.objects.tunnel(self, tunnel, mtu),
            obstacle: None,
        }
    }

    /// Nothing is made of the link, and nothing of it stays; only its declarers are told. Of a peer
    /// of which nothing is known it is not known either what it accepts: what the declarer has
    /// stays until then.
    fn bar(&self, reason: &Reason, peer: &Place, places: &[Place; 2]) -> Wiring {
        let own = |end: End| &self.link.endpoint(end).pod;
        let is_declarer_here = End::BOTH.into_iter().any(|end| {
            matches!(places[end as usize], Place::Here(_))
                && self.link.declared_by.contains(own(end))
        });
        match peer {
            _ if !is_declarer_here => Wiring {
                wanted: Vec::new(),
                obstacle: None,
            },
            Place::Unknown => self.wait(self.objects.keep(self), reason.clone()),
            _ => Wiring {
                wanted: Vec::new(),
                obstacle: Some(Box::new(reason.clone())),
            },
        }
    }

    /// What this end has stays until the peer comes.
    fn hold(&self, obstacle: Reason) -> Wiring {
        self.wait(self.objects.hold(self), obstacle)
    }

    /// The peer has gone, and may come back.
    fn part(&self, obstacle: Reason) -> Wiring {
        self.wait(self.objects.part(self), obstacle)
    }

    fn wait(&self, wanted: Vec<Wanted>, obstacle: Reason) -> Wiring {
        Wiring {
            wanted,
            obstacle: Some(Box::new(obstacle)),
        }
    }

    /// All that the link has stays until a person has corrected something.
    fn freeze(&self, problem: Reason) -> Wiring {
        Wiring {
            wanted: vec![Wanted::Frozen(self.link.id)],
            obstacle: Some(Box::new(problem)),
        }
    }

    /// The MTU of a link within the node. Without a tunnel any would do. It is that of a tunnel, so
    /// that nothing changes for the pods when one of them moves.
    pub fn mtu_within_node(&self) -> Mtu {
        let asked = self.link.mtu.or(self.node.default_mtu);
        asked.unwrap_or(self.node.mtu)
    }

    fn check_tunnel(
        &self,
        own: IpAddr,
        other: &NodeName,
        vtep: IpAddr,
        limit: Mtu,
    ) -> Result<(), Reason> {
        let (node, other) = (self.node.name.clone(), other.clone());
        if vtep == own {
            return Err(Reason::ParentAddressShared {
                node,
                other,
                address: vtep,
            });
        }
        if vtep.is_ipv4() != own.is_ipv4() {
            return Err(Reason::ParentAddressFamily {
                node,
                own,
                other,
                address: vtep,
            });
        }
        match self.link.mtu {
            Some(mtu) if mtu > limit => Err(Reason::MtuTooLarge {
                mtu,
                node,
                other,
                limit,
            }),
            _ => Ok(()),
        }
    }
}
