//! The VNIs that this node holds, and those that it cannot use.
//!
//! What is wanted and what was done to devices is decided elsewhere; here it becomes what the store
//! is told.

use ratchet_kernel::Look;
use ratchet_model::{
    LinkId, Mac, Vni,
    device::{At, Kind, Netns, NewDevice, Operation, Step, Tunnel, VXLAN_PORT},
    link::End,
    resolve::Link,
};

use super::Engine;
use crate::{retry::Tried, wires::Settled};

impl Engine {
    /// Releases the VNIs that these links no longer have. A store in trouble is told by the next
    /// resync: a DEL does not wait for it.
    pub(super) fn release_vnis(&mut self, settled: &[Settled]) -> Tried {
        for Settled { link, vni, deleted } in settled {
            let mut gone = self.session.known().vnis().held_besides(*link, *vni);
            if !deleted {
                gone.retain(|vni| self.is_unused(*vni));
            }
            self.session.let_go(*link, &gone);
        }
        if self.session.trouble().is_some() {
            return Ok(());
        }
        let name = self.node.name()?.clone();
        self.session.release_vnis(&name)
    }

    /// A resync has looked at everything, and all went well: releases the VNIs of links of which
    /// nothing is wanted. If need be, the store is asked which these are: an agent before this one
    /// may have claimed more.
    pub(super) fn release_unwanted_vnis(&mut self) -> Tried {
        let name = self.node.name()?.clone();
        if !self.session.knows_held() {
            self.session.read_held(&name)?;
        }
        let holding = self.session.known().vnis().holding();
        let unwanted: Vec<LinkId> = holding.filter(|link| !self.is_kept(*link)).collect();
        for link in unwanted {
            let mut gone = self.session.known().vnis().held_besides(link, None);
            gone.retain(|vni| self.is_unused(*vni));
            self.session.let_go(link, &gone);
        }
        self.session.release_vnis(&name)
    }

    /// Whether something of a link is wanted, or stays as it is.
    fn is_kept(&self, link: LinkId) -> bool {
        self.wires.knows(link) || self.session.restored().has(link)
    }

    /// Whether no device of this node has a VNI, in whatever namespace it is and under whatever
    /// name: the kernel does not make a second one with it (`vxlan_vni_in_use` in
    /// drivers/net/vxlan/vxlan_core.c). The one that is made to try is never set up.
    fn is_unused(&mut self, vni: Vni) -> bool {
        let Ok(node) = self.node.wiring() else {
            return false;
        };
        let Some(vtep) = node.vtep else {
            return false;
        };
        let at = At {
            netns: Netns::Node,
            name: format!("rtry{vni}"),
        };
        let device = NewDevice {
            at: at.clone(),
            mac: Mac::derive(LinkId::UNKNOWN, End::A),
            mtu: node.mtu,
            index: None,
        };
        let tunnel = Tunnel {
            vni,
            remote: vtep.address,
            local: vtep.address,
            parent: vtep.parent,
            port: VXLAN_PORT,
        };
        // One after the other: of the steps of a plan, deletions are done first.
        let is_done = |operation| {
            let link = LinkId::UNKNOWN;
            let results = self.kernel.execute(&[Step { link, operation }]);
            results.iter().all(Result::is_ok)
        };
        // It sends nothing and is sent nothing, so it needs no passage and no source ports.
        let is_made = is_done(Operation::CreateVxlan {
            device,
            tunnel,
            source: None,
        });
        is_made && is_done(Operation::Delete(at))
    }

    /// Tells the store which VNIs are those of devices that are not ours, if links could not be
    /// made for that. Returns whether they can have others now.
    pub(super) fn block_vnis(&mut self) -> Tried<bool> {
        let mut taken = std::mem::take(&mut self.taken_vnis);
        // Else it may be the tunnel of the pod's last sandbox, which is about to go.
        let is_foreign = |link: &Link| {
            [&link.a.pod, &link.z.pod]
                .into_iter()
                .all(|pod| self.sandboxes.of(pod).count() < 2)
        };
        taken.retain(|(link, _)| is_foreign(link));
        if taken.is_empty() {
            return Ok(false);
        }
        let looks = [(Netns::Node, Look::All)].into();
        let seen = self.kernel.observe(&looks, &|_| false)?;
        let foreign = seen.iter().filter(|device| !device.is_ours());
        let vnis = foreign.filter_map(|device| match device.kind {
            Kind::Vxlan { vni, port, .. } if port == VXLAN_PORT => Vni::try_from(vni).ok(),
            _ => None,
        });
        let vnis = vnis.chain(taken.iter().map(|(_, vni)| *vni)).collect();
        let name = self.node.name()?.clone();
        self.session.block_vnis(&name, vnis)?;
        Ok(true)
    }
}
