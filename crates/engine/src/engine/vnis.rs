//! The VNIs that this node holds, and those that it cannot use.
//!
//! What is wanted and what was done to devices is decided elsewhere; here it becomes what the store
//! is told.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::errno::Errno;
use ratchet_kernel::{KernelError, Look, Outcome};
use ratchet_model::{
    LinkId, Mac, Mtu, NodeName, PodKey, Vni,
    device::{At, Kind, Netns, NewDevice, Observed, Operation, Step, Tunnel, VXLAN_PORT},
    link::End,
    resolve::Link,
};

use super::Engine;
use crate::{retry::Tried, wires::Settled};

/// How many VNIs are tried together: a deletion takes as long for many devices as for one.
const TOGETHER: usize = 1000;

impl Engine {
    /// Releases the VNIs that these links no longer have. A store in trouble is told by the next
    /// resync: a DEL does not wait for it.
    pub(super) fn release_vnis(&mut self, settled: &[Settled]) -> Tried {
        let vnis = self.session.known().vnis();
        let gone = settled.iter().map(|settled| {
            let gone = vnis.held_besides(settled.link, settled.vni);
            (settled.link, gone)
        });
        let gone: Vec<(LinkId, BTreeSet<Vni>)> =
            gone.filter(|(_, gone)| !gone.is_empty()).collect();
        let deleted: BTreeSet<Vni> = settled
            .iter()
            .flat_map(|settled| &settled.deleted)
            .copied()
            .collect();
        self.let_go(&gone, deleted);
        if self.session.trouble().is_some() {
            return Ok(());
        }
        let name = self.node.name()?.clone();
        self.session.release_vnis(&name)
    }

    /// A resync has looked at everything: releases the VNIs that links no longer have, and those of
    /// links of which nothing is wanted. If need be, the store is asked which there are: an agent
    /// before this one may have claimed more.
    pub(super) fn release_unwanted_vnis(&mut self) -> Tried {
        let name = self.node.name()?.clone();
        let is_new = !self.session.knows_held();
        self.unblock_vnis(&name, is_new)?;
        if is_new {
            self.session.read_held(&name)?;
        }
        let vnis = self.session.known().vnis();
        let kept = |link| vnis.get(link).filter(|_| self.is_kept(link));
        let holding = vnis.holding().into_iter();
        let gone: Vec<(LinkId, BTreeSet<Vni>)> = holding
            .map(|link| (link, vnis.held_besides(link, kept(link))))
            .filter(|(_, gone)| !gone.is_empty())
            .collect();
        self.let_go(&gone, BTreeSet::new());
        self.session.release_vnis(&name)
    }

    /// Lets go of those of these links' VNIs of which no device can be there. Of some it is known
    /// that their devices were deleted.
    fn let_go(&mut self, gone: &[(LinkId, BTreeSet<Vni>)], deleted: BTreeSet<Vni>) {
        let vnis = gone.iter().flat_map(|(_, vnis)| vnis).copied();
        let unproved: Vec<Vni> = vnis.filter(|vni| !deleted.contains(vni)).collect();
        let mut proved = deleted;
        for some in unproved.chunks(TOGETHER) {
            proved.extend(self.unused_of(some));
        }
        for (link, vnis) in gone {
            let vnis = vnis.intersection(&proved).copied().collect();
            self.session.let_go(*link, &vnis);
        }
    }

    /// Whether something of a link is wanted, or stays as it is.
    fn is_kept(&self, link: LinkId) -> bool {
        self.wires.wants(link) || self.session.restored().has(link)
    }

    /// Those of these VNIs that no device of ours has on this node, in any namespace and under any
    /// name. The kernel makes no second one with a VNI in the same address family
    /// (`vxlan_vni_in_use` in drivers/net/vxlan/vxlan_core.c), so one that it makes, or one that is
    /// seen and is not ours, proves that there is no other.
    pub(super) fn unused_of(&mut self, vnis: &[Vni]) -> BTreeSet<Vni> {
        let Made { mut refused, left } = self.try_to_make(vnis);
        if !refused.is_empty() {
            let foreign = self.foreign_tunnels().unwrap_or_default();
            refused.retain(|probe| !foreign.contains(probe));
        }
        let in_use = in_use(refused.iter().chain(&left));
        let unused = vnis.iter().filter(|vni| !in_use.contains(vni));
        unused.copied().collect()
    }

    /// Has the kernel make devices with these VNIs, which are never set up, and deletes them.
    fn try_to_make(&mut self, vnis: &[Vni]) -> Made {
        let probes: Vec<Probe> = vnis.iter().flat_map(|vni| Probe::both(*vni)).collect();
        let made = self.execute_all(probes.iter().map(Probe::creation));
        let (mut there, mut refused) = (Vec::new(), Vec::new());
        for (probe, made) in probes.into_iter().zip(made) {
            match made {
                Ok(()) => there.push(probe),
                // A kernel without IPv6 has no such device.
                Err(KernelError::Refused {
                    errno: Errno::EPFNOSUPPORT,
                    ..
                }) => {}
                Err(_) => refused.push(probe),
            }
        }
        // Apart from the creations: of the steps of a plan, deletions are done first.
        let deletions = there.iter().map(|probe| Operation::Delete(probe.at()));
        let deleted = self.execute_all(deletions);
        let left = there.into_iter().zip(deleted);
        let left = left.filter(|(_, deleted)| deleted.is_err());
        Made {
            refused,
            left: left.map(|(probe, _)| probe).collect(),
        }
    }

    /// The VXLAN devices in this node's namespace that are not ours.
    fn foreign_tunnels(&self) -> Tried<BTreeSet<Probe>> {
        let looks = [(Netns::Node, Look::All)].into();
        let seen = self.kernel.observe(&looks, &|_| false)?;
        let foreign = seen.iter().filter(|device| !device.is_ours());
        Ok(foreign.filter_map(Probe::like).collect())
    }

    fn execute_all(&mut self, operations: impl Iterator<Item = Operation>) -> Vec<Outcome> {
        let link = LinkId::UNKNOWN;
        let steps: Vec<Step> = operations
            .map(|operation| Step { link, operation })
            .collect();
        match steps.is_empty() {
            true => Vec::new(),
            false => self.kernel.execute(&steps),
        }
    }

    /// Tells the store which VNIs are those of devices that are not ours, if links could not be
    /// made for that. Returns whether they can have others now.
    pub(super) fn block_vnis(&mut self, mut taken: Vec<(Link, Vni)>) -> Tried<bool> {
        // Else it may be the tunnel of the pod's last sandbox, which is about to go.
        let is_alone = |pod: &PodKey| {
            let sandboxes = self.sandboxes.of(pod);
            sandboxes.filter(|state| state.held_by.is_none()).count() < 2
        };
        // Or that of a link which wants the same VNI: after the store has lost who has it.
        let vnis = self.session.known().vnis();
        let is_foreign = |link: &Link| is_alone(&link.a.pod) && is_alone(&link.z.pod);
        taken.retain(|(link, vni)| is_foreign(link) && !vnis.is_held_by_other(link.id, *vni));
        if taken.is_empty() {
            return Ok(false);
        }
        let foreign = self.foreign_tunnels()?;
        let vnis = foreign.iter().map(|foreign| foreign.vni);
        let vnis = vnis.chain(taken.iter().map(|(_, vni)| *vni));
        let known = self.session.known().vnis().foreign();
        let vnis = vnis.chain(known.iter().copied()).collect();
        let name = self.node.name()?.clone();
        self.session.block_vnis(&name, vnis)?;
        Ok(true)
    }

    /// Tells the store which of those VNIs no device has any more. If `is_new`, it may have others
    /// from an agent before this one: what clashes is found again.
    fn unblock_vnis(&mut self, name: &NodeName, is_new: bool) -> Tried {
        let blocked: Vec<Vni> = self
            .session
            .known()
            .vnis()
            .foreign()
            .iter()
            .copied()
            .collect();
        let Made { refused, left } = self.try_to_make(&blocked);
        let in_use = in_use(refused.iter().chain(&left));
        if is_new || in_use.len() < blocked.len() {
            self.session.block_vnis(name, in_use)?;
        }
        Ok(())
    }
}

/// What came of devices that were made to try.
struct Made {
    /// Those that the kernel did not make.
    refused: Vec<Probe>,
    /// Those that it made and that could not be deleted.
    left: Vec<Probe>,
}

fn in_use<'p>(probes: impl Iterator<Item = &'p Probe>) -> BTreeSet<Vni> {
    probes.map(|probe| probe.vni).collect()
}

/// What the kernel makes only one VXLAN device of. (There are also flags for what a device
/// receives; all of ours have the same.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Probe {
    vni: Vni,
    is_ipv6: bool,
}

impl Probe {
    /// One for each address family.
    fn both(vni: Vni) -> [Self; 2] {
        [false, true].map(|is_ipv6| Self { vni, is_ipv6 })
    }

    /// What a device is, if it is a VXLAN device on our port.
    fn like(device: &Observed) -> Option<Self> {
        let Kind::Vxlan {
            vni,
            remote,
            local,
            port: VXLAN_PORT,
            ..
        } = device.kind
        else {
            return None;
        };
        Some(Self {
            vni: vni.try_into().ok()?,
            is_ipv6: remote.or(local).is_some_and(|address| address.is_ipv6()),
        })
    }

    fn at(&self) -> At {
        let family = if self.is_ipv6 { 6 } else { 4 };
        At {
            netns: Netns::Node,
            name: format!("rtry{family}-{}", self.vni),
        }
    }

    /// Nothing passes through the device, so it needs no passage and no source ports.
    fn creation(&self) -> Operation {
        let address: IpAddr = match self.is_ipv6 {
            false => Ipv4Addr::LOCALHOST.into(),
            true => Ipv6Addr::LOCALHOST.into(),
        };
        Operation::CreateVxlan {
            device: NewDevice {
                at: self.at(),
                mac: Mac::derive(LinkId::UNKNOWN, End::A),
                mtu: Mtu::within_underlay(0, address),
                index: None,
            },
            tunnel: Tunnel {
                vni: self.vni,
                remote: address,
                local: address,
                parent: 0,
                port: VXLAN_PORT,
            },
            source: None,
        }
    }
}
