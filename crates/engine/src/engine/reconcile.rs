//! Reconcile: the one call that everything ends in.
//!
//! From facts and sandboxes to wanted devices, from these and the observed ones to a plan, and the
//! plan carried out. All decisions are the model's; here they are only brought together with what
//! was read.

use std::collections::BTreeSet;

use ratchet_model::{
    LinkId, NodeName, PodKey, SandboxId,
    link::End,
    resolve::{Link, resolve_of},
    wiring::{self, Node, Place, VniState, Wiring},
};

use super::Engine;

/// How much a reconcile looks at.
pub(super) enum Scope {
    /// The links of these pods, as far as something has changed for them.
    Links(BTreeSet<PodKey>),
    /// The links of these pods, and whatever else of ours is in their sandboxes.
    Sandboxes(BTreeSet<PodKey>),
    /// The links of strays in the node's namespace, with whatever else of ours is there, and links
    /// that have no pod here any more.
    Node(BTreeSet<LinkId>),
}

impl Engine {
    /// Makes the kernel match what is known. Gives whether all of it worked.
    pub(super) fn reconcile(&mut self, scope: &Scope) -> bool {
        let Ok(effective) = self.effective().cloned() else {
            return false;
        };
        let candidates = self.candidates(scope);
        let vnis_claimed = self.claim_vnis(&candidates);
        let sandboxes = &self.sandboxes;
        let is_current = |id: &SandboxId| sandboxes.get(id).is_some_and(|state| !state.leaving);
        self.restored.forget(
            candidates.iter().map(|link| link.id),
            is_current,
            self.clock.now(),
        );

        let mut ended: BTreeSet<LinkId> = match scope {
            Scope::Links(pods) | Scope::Sandboxes(pods) => {
                pods.iter().flat_map(|pod| self.links.ids_of(pod)).collect()
            }
            Scope::Node(strays) => {
                let strays = strays
                    .iter()
                    .copied()
                    .filter(|id| self.links.get(*id).is_some());
                strays
                    .chain(self.links.ids_without(|pod| self.sandboxes.has(pod)))
                    .collect()
            }
        };
        let mut fresh: Vec<(Link, [Option<NodeName>; 2], Wiring)> = Vec::new();
        for link in candidates {
            let places = self.places(&link);
            let vni = self.vni_state(&link);
            let wiring = wiring::direct(&link, &places, vni, &effective.node);
            let nodes = places_nodes(&places, &effective.node);
            if !wiring.wanted.is_empty() {
                ended.remove(&link.id);
                let before = self.links.describe(link.id, &link, &nodes);
                let unchanged = before
                    .is_some_and(|before| before.wiring == wiring && before.failure.is_none());
                if unchanged && matches!(scope, Scope::Links(_)) {
                    continue;
                }
                fresh.push((link, nodes, wiring));
            }
        }
        let worked = self.apply(scope, &mut fresh, &ended);
        self.known.forget_vnis(&ended);
        for id in &ended {
            self.links.remove(*id);
        }
        worked & vnis_claimed
    }

    /// The same for the node's own namespace, in which only those ends of ours are to be that wait
    /// for their pods, and for links that are nobody's here.
    pub(super) fn reconcile_node(&mut self) -> bool {
        match self.strays() {
            Ok(strays) => self.reconcile(&Scope::Node(strays)),
            Err(error) => {
                tracing::error!(%error, "cannot see what is in the kernel");
                false
            }
        }
    }

    /// The links to look at, as they are declared.
    fn candidates(&self, scope: &Scope) -> Vec<Link> {
        let of = |pods: &BTreeSet<PodKey>| resolve_of(pods, &self.known.around(pods));
        match scope {
            Scope::Links(pods) | Scope::Sandboxes(pods) => of(pods),
            Scope::Node(strays) => of(&self.known.pods_of(strays))
                .into_iter()
                .filter(|link| strays.contains(&link.id))
                .collect(),
        }
    }

    pub(super) fn places(&self, link: &Link) -> [Place; 2] {
        End::BOTH.map(|end| self.place(&link.endpoint(end).pod))
    }

    fn place(&self, pod: &PodKey) -> Place {
        if let Some(state) = self.sandboxes.current(pod) {
            return Place::Here(state.id.clone());
        }
        let Some(record) = self.known.record(pod) else {
            return Place::Unknown;
        };
        let Some(location) = record.location.as_ref().filter(|_| record.lives()) else {
            return Place::Gone;
        };
        if self.sandboxes.get(&location.sandbox).is_some() {
            // It is on its way out; the store will hear of it.
            return Place::Gone;
        }
        let here = self
            .effective
            .as_ref()
            .is_ok_and(|effective| effective.node.name == location.node);
        if here {
            Place::Lost(location.sandbox.clone())
        } else {
            Place::There {
                node: location.node.clone(),
                vtep: location.vtep,
                mtu: location.mtu,
            }
        }
    }

    fn vni_state(&self, link: &Link) -> VniState {
        match (self.known.vni(link.id), self.taken_vnis.get(&link.id)) {
            (Some(vni), _) => VniState::Granted(vni),
            (None, Some((vni, owner))) => VniState::TakenBy(*vni, *owner),
            // The store has lost it and does not give it again yet: until another link has it, what
            // is there stays.
            (None, None) => self
                .known
                .former_vni(link.id)
                .map_or(VniState::None, VniState::Granted),
        }
    }
}

fn places_nodes(places: &[Place; 2], node: &Node) -> [Option<NodeName>; 2] {
    [&places[0], &places[1]].map(|place| match place {
        Place::Here(_) | Place::Lost(_) => Some(node.name.clone()),
        Place::There { node, .. } => Some(node.clone()),
        Place::Gone | Place::Unknown => None,
    })
}
