//! Reconcile: the one call in which everything ends.
//!
//! From facts and sandboxes to wanted devices, from these and the observed ones to a plan, and the
//! plan applied. All decisions are the model's; here they are only brought together with what was
//! read.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{
    LinkId, NodeName, PodKey, PodRecord, Reason, Vni, WiringKind,
    device::LinkKind,
    link::End,
    resolve::{Link, resolve_of},
    wiring::{self, Node, Place, VniState, Wiring},
};

use super::Engine;
use crate::{
    retry::Tried,
    sandboxes::Sandboxes,
    session::Known,
    wires::{Fresh, Request, Scope},
};

/// What only turns out when devices are looked at or made, and has links wired once more.
#[derive(Default)]
struct Found {
    /// Links that could not be made because other devices have their VNIs.
    taken: Vec<(Link, Vni)>,
    /// Whether links are wired in another way than was asked for.
    is_otherwise: bool,
}

impl Engine {
    /// Makes the kernel match what is known. Links whose VNIs other devices of this node have get
    /// others at once.
    pub(super) fn reconcile(&mut self, scope: &Scope) -> Tried {
        self.look_and_reconcile(scope).flatten()
    }

    /// The same. Tells what came of the links; the outer error says that the scope could not be
    /// looked at.
    pub(super) fn look_and_reconcile(&mut self, scope: &Scope) -> Tried<Tried> {
        let mut found = Found::default();
        let reconciled = self.reconcile_once(scope, &mut found);
        match self.block_vnis(found.taken) {
            Ok(false) if !found.is_otherwise => reconciled,
            Ok(_) => self.reconcile_once(scope, &mut Found::default()),
            Err(retry) => reconciled.map(|links| links.and(Err(retry))),
        }
    }

    fn reconcile_once(&mut self, scope: &Scope, found: &mut Found) -> Tried<Tried> {
        let node = self.node.wiring()?;
        let candidates = self.candidates(scope);
        let (sandboxes, name) = (&self.sandboxes, &node.name);
        let known = self.session.known();
        let needing: BTreeSet<LinkId> = candidates
            .iter()
            .filter(|link| known.vnis().must_claim(link))
            .filter(|link| wiring::needs_vni(link, &places(link, sandboxes, known, name)))
            .map(|link| link.id)
            .collect();
        let claimed = self
            .session
            .claim_vnis(&node.name, &candidates, |link| needing.contains(&link.id));
        self.session.forget_restored(&candidates, &self.sandboxes);

        let mut ended = self.wires.in_scope(scope, &self.sandboxes);
        let fresh = self.wire(candidates, &node, scope, &mut ended);
        let joined = self.joined_across(&fresh, &ended);
        let kept = match scope {
            Scope::Links(_) | Scope::Again(_) => Vec::new(),
            Scope::Sandboxes(_) | Scope::Node(_) => self.session.restored().wanted().collect(),
        };
        let request = Request {
            scope,
            fresh,
            ended: &ended,
            kept,
        };
        let now = self.clock.now();
        let applied = self
            .wires
            .apply(&mut *self.kernel, &self.sandboxes, request, now);
        self.session.forget_links(&ended);
        for (link, reason) in &applied.warnings {
            self.warn_pods(link, reason);
        }
        *found = Found {
            taken: applied.taken,
            is_otherwise: applied.is_otherwise,
        };
        let released = self.release_vnis(&applied.settled);
        let noted = self.note_given(&joined);
        let links = applied.tried?;
        Ok(links.and(claimed).and(released).and(noted))
    }

    /// The links that must be looked at, with what is wanted of them. Those of which something is
    /// wanted have not ended.
    fn wire(
        &mut self,
        links: Vec<Link>,
        node: &Node,
        scope: &Scope,
        ended: &mut BTreeSet<LinkId>,
    ) -> Vec<Fresh> {
        let mut fresh = Vec::new();
        let mut room = self.node.max_devices().saturating_sub(self.wires.devices());
        for mut link in links {
            let places = places(&link, &self.sandboxes, self.session.known(), &node.name);
            let asked = wiring::asked(&link, node);
            let kind = self.wires.kind(link.id, asked);
            if kind != asked {
                let stays = Reason::WiringStays { is: kind, asked };
                link.warnings.push(stays);
            }
            let wanted = Fresh {
                wiring: self.wiring((&link, kind), &places, node, &mut room),
                kind,
                asked,
                nodes: places.each_ref().map(|place| node_of(place, &node.name)),
                link,
            };
            if self.must_look(&wanted, scope, ended) {
                fresh.push(wanted);
            }
        }
        fresh
    }

    /// What is wanted of a link, with so much room for devices on the node.
    fn wiring(
        &self,
        link: (&Link, WiringKind),
        places: &[Place; 2],
        node: &Node,
        room: &mut usize,
    ) -> Wiring {
        let wiring = self.wiring_on(node, link, places);
        let (more, fewer) = self.wires.growth(link.0.id, &wiring);
        if more > *room {
            let node = Node {
                full: Some(self.node.max_devices()),
                ..node.clone()
            };
            return self.wiring_on(&node, link, places);
        }
        *room = *room + fewer - more;
        wiring
    }

    fn wiring_on(
        &self,
        node: &Node,
        (link, kind): (&Link, WiringKind),
        places: &[Place; 2],
    ) -> Wiring {
        let known = self.session.known();
        let vni = known.vnis().state(link);
        let wiring = wiring::wire(link, places, vni.clone(), node, kind);
        let is_tunnel = wiring.kind() == Some(LinkKind::Vxlan);
        let is_new = is_tunnel && !self.wires.has_made(link.id, &wiring);
        // What it has stays, and it says what it waits for.
        if is_new && known.vnis().is_doubtful(link.id) {
            wiring::wire(link, places, VniState::None, node, kind)
        } else if is_new && !self.node.has_underlay() {
            let node = Node {
                vtep: None,
                ..node.clone()
            };
            wiring::wire(link, places, vni, &node, kind)
        } else {
            wiring
        }
    }

    /// Whether a link must be looked at, of which this is wanted: nothing or something. A link of
    /// which something is wanted has not ended.
    fn must_look(&mut self, wanted: &Fresh, scope: &Scope, ended: &mut BTreeSet<LinkId>) -> bool {
        let Fresh {
            link,
            wiring,
            nodes,
            ..
        } = wanted;
        if wiring.wanted.is_empty() && wiring.obstacle.is_none() {
            return false;
        }
        ended.remove(&link.id);
        let before = self.wires.describe(link, nodes);
        let unchanged =
            before.is_some_and(|before| before.wiring == *wiring && before.failure.is_none());
        !(unchanged && matches!(scope, Scope::Links(_)))
    }

    /// The same for the node's own namespace, in which only those ends of ours are to be that wait
    /// for their pods, and for links that have no pod here any more.
    pub(super) fn reconcile_node(&mut self) -> Tried<Tried> {
        let strays = self.wires.strays(&*self.kernel).inspect_err(|error| {
            tracing::error!(%error, "cannot see what is in the kernel");
        })?;
        self.look_and_reconcile(&Scope::Node(strays))
    }

    /// The links to look at, as they are declared. What this node's pods accept and have given is
    /// known here, even if the store has not been told.
    fn candidates(&self, scope: &Scope) -> Vec<Link> {
        let (known, terms) = (self.session.known(), self.node.terms());
        let is_here = |pod: &PodKey| self.sandboxes.current(pod).is_some();
        let of = |pods: &BTreeSet<PodKey>| {
            let mut records = known.around(pods);
            let own: BTreeMap<PodKey, PodRecord> = records
                .iter()
                .filter_map(|said| Some((said.pod.clone(), self.sandboxes.overrule(said, terms)?)))
                .collect();
            for record in &mut records {
                *record = own.get(&record.pod).unwrap_or(record);
            }
            let mut links = resolve_of(pods, &records);
            for link in &mut links {
                let own = link.remarks.iter().filter(|(pod, _)| is_here(pod));
                link.warnings.extend(own.map(|(_, remark)| remark.clone()));
            }
            links
        };
        match scope {
            Scope::Links(pods) | Scope::Sandboxes(pods) => of(pods),
            Scope::Again(links) => {
                let known = links.iter().filter_map(|id| self.wires.link(*id));
                let pods = known.flat_map(|link| [&link.a.pod, &link.z.pod]).cloned();
                let mut found = of(&pods.collect());
                found.retain(|link| links.contains(&link.id));
                found
            }
            Scope::Node(strays) => of(&known.pods_of(strays))
                .into_iter()
                .filter(|link| strays.contains(&link.id))
                .collect(),
        }
    }
}

/// Where the pods of ends a and z are.
fn places(link: &Link, sandboxes: &Sandboxes, known: &Known, node: &NodeName) -> [Place; 2] {
    End::BOTH.map(|end| place(&link.endpoint(end).pod, sandboxes, known, node))
}

/// Where a pod is, as the node of this name sees it.
fn place(pod: &PodKey, sandboxes: &Sandboxes, known: &Known, node: &NodeName) -> Place {
    if let Some(state) = sandboxes.current(pod) {
        return Place::Here(state.id.clone());
    }
    let Some(record) = known.record(pod) else {
        return if known.has_gone(pod) {
            Place::Gone
        } else {
            Place::Unknown
        };
    };
    let Some(location) = record.location.as_ref().filter(|_| record.lives()) else {
        return Place::Gone;
    };
    if sandboxes.get(&location.sandbox).is_some() {
        // It is leaving; the store will be told.
        return Place::Gone;
    }
    if *node == location.node {
        return Place::Lost(location.sandbox.clone());
    }
    Place::There {
        node: location.node.clone(),
        vtep: location.vtep,
        mtu: location.mtu,
    }
}

fn node_of(place: &Place, own: &NodeName) -> Option<NodeName> {
    match place {
        Place::Here(_) | Place::Lost(_) => Some(own.clone()),
        Place::There { node, .. } => Some(node.clone()),
        Place::Gone | Place::Unknown => None,
    }
}
