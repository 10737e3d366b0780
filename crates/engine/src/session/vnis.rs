//! The VNIs of links, as the store has given them, and those that this node holds. Nothing here
//! asks the store.
//!
//! A node makes a device only of a VNI that it holds, and holds it until no device of it can be
//! there ([`ratchet_store::vni`]). That a node holds a VNI is known from the answer to a claim, not
//! from facts: these may be old.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, PodKey, Vni, resolve::Link, wiring::VniState};
use ratchet_store::{VniClaim, VniGrant};

/// What is known of links' VNIs.
#[derive(Debug, Default)]
pub(crate) struct Vnis {
    granted: BTreeMap<LinkId, Vni>,
    /// VNIs that the store no longer knows of: if it was wiped, their links ask for the same ones
    /// again.
    former: BTreeMap<LinkId, Vni>,
    /// Links that insist on a VNI which they cannot have.
    refused: BTreeMap<LinkId, Refused>,
    /// What this node holds, or may hold. A link whose VNI has changed may hold several.
    held: BTreeMap<LinkId, BTreeMap<Vni, Hold>>,
    /// What this node holds no longer, and the store may not know that yet.
    leaving: BTreeSet<Vni>,
    /// VNIs of devices of this node that are not ours.
    foreign: BTreeSet<Vni>,
}

/// How certain it is that this node holds a VNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// The store has said so.
    Certain,
    /// The store had said so and may have forgotten it: the VNI is claimed again.
    Doubted,
}

/// A VNI that a link cannot have.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    vni: Vni,
    state: VniState,
    pods: [PodKey; 2],
}

impl Vnis {
    /// A link's VNI.
    pub fn get(&self, link: LinkId) -> Option<Vni> {
        self.granted.get(&link).copied()
    }

    /// The VNI that a link had in a store that has forgotten it.
    pub fn former(&self, link: LinkId) -> Option<Vni> {
        self.former.get(&link).copied()
    }

    /// Whether a link that needs a VNI must claim it: it has none, not the one that it insists on,
    /// one that it could not have so far, or one that is not held or of no use here.
    pub fn must_claim(&self, link: &Link) -> bool {
        let is_right = |vni: &Vni| {
            link.vni.is_none_or(|fixed| fixed == *vni)
                && self.holds(link.id, *vni)
                && !self.foreign.contains(vni)
                && self.refusal(link).is_none()
        };
        !self.get(link.id).as_ref().is_some_and(is_right)
    }

    /// What wiring must know of a link's VNI.
    pub fn state(&self, link: &Link) -> VniState {
        if let Some(refused) = self.refusal(link) {
            return refused.state.clone();
        }
        // One that the store has lost and does not give again yet: until another link has it, what
        // is there stays.
        let vni = self.get(link.id).or(self.former(link.id));
        vni.filter(|vni| self.hold(link.id, *vni).is_some())
            .map_or(VniState::None, VniState::Granted)
    }

    /// Why a link cannot have the VNI that it insists on, as the store has said.
    fn refusal(&self, link: &Link) -> Option<&Refused> {
        let refused = self.refused.get(&link.id);
        refused.filter(|refused| link.vni == Some(refused.vni))
    }

    /// Whether it is not certain that this node holds the link's VNI: a device that has it stays,
    /// and none is made.
    pub fn is_doubtful(&self, link: LinkId) -> bool {
        let vni = self.get(link).or(self.former(link));
        vni.is_some_and(|vni| !self.holds(link, vni))
    }

    /// Notes the VNI that a device of the link has, unless the store says which it is.
    pub fn restore(&mut self, link: LinkId, vni: Vni) {
        if !self.granted.contains_key(&link) {
            self.former.insert(link, vni);
        }
    }

    /// Takes what the store said of `asked` links. Those of which it said nothing have lost theirs.
    pub fn merge(&mut self, asked: &BTreeSet<LinkId>, said: BTreeMap<LinkId, Vni>) {
        for link in asked.iter().filter(|link| !said.contains_key(link)) {
            self.former
                .extend(self.granted.remove(link).map(|vni| (*link, vni)));
        }
        self.granted.extend(said);
    }

    /// Takes the store's answer to claims. Returns whether a link has no VNI for a reason that may
    /// pass by itself.
    pub fn take_grants(
        &mut self,
        claims: &[VniClaim],
        mut grants: BTreeMap<LinkId, VniGrant>,
    ) -> bool {
        let (mut missing, mut given) = (false, BTreeMap::new());
        for claim in claims {
            let link = claim.link;
            let Some(grant) = grants.remove(&link) else {
                continue;
            };
            self.refused.remove(&link);
            match grant {
                VniGrant::Granted(vni) => {
                    self.former.remove(&link);
                    given.insert(vni, link);
                    self.granted.insert(link, vni);
                    self.set_held(link, vni);
                }
                VniGrant::TakenBy(owner) => {
                    self.refuse(claim, |vni| VniState::TakenBy(vni, owner));
                }
                VniGrant::Blocked(node) => {
                    self.refuse(claim, |vni| VniState::Blocked(vni, node));
                }
                VniGrant::Exhausted => {
                    tracing::error!(%link, "all VNIs of vni_range are taken");
                    missing = true;
                }
                VniGrant::NotDeclared => {
                    // It ended since it was read, or the store has lost its declaration.
                    tracing::info!(%link, "no VNI yet: the store knows of no declaration of the \
                                           link");
                    missing = true;
                }
            }
        }
        self.drop_twice_given(&given);
        missing
    }

    /// A store that has lost everything may give a link what this node holds for another: that is
    /// not to be released when the other's device has gone.
    fn drop_twice_given(&mut self, given: &BTreeMap<Vni, LinkId>) {
        self.held.retain(|link, vnis| {
            vnis.retain(|vni, _| given.get(vni).is_none_or(|to| to == link));
            !vnis.is_empty()
        });
    }

    fn refuse(&mut self, claim: &VniClaim, state: impl FnOnce(Vni) -> VniState) {
        if let Some(vni) = claim.fixed {
            let (state, pods) = (state(vni), claim.pods.clone());
            self.refused
                .insert(claim.link, Refused { vni, state, pods });
        }
    }

    /// VNIs of other links that links wait for, with the pods of these.
    pub fn awaited(&self) -> BTreeMap<Vni, BTreeSet<PodKey>> {
        let mut awaited: BTreeMap<Vni, BTreeSet<PodKey>> = BTreeMap::new();
        for refused in self.refused.values() {
            if matches!(refused.state, VniState::TakenBy(..)) {
                awaited
                    .entry(refused.vni)
                    .or_default()
                    .extend(refused.pods.iter().cloned());
            }
        }
        awaited
    }

    /// Takes what the store says that this node holds.
    pub fn take_held(&mut self, held: BTreeMap<Vni, LinkId>) {
        for (vni, link) in held {
            self.set_held(link, vni);
        }
    }

    /// The store may not say any more that this node holds what it holds: all is to be claimed
    /// again.
    pub fn doubt_held(&mut self) {
        for hold in self.held.values_mut().flat_map(BTreeMap::values_mut) {
            *hold = Hold::Doubted;
        }
    }

    /// The VNIs of a link that this node holds, or may hold, but for one.
    pub fn held_besides(&self, link: LinkId, kept: Option<Vni>) -> BTreeSet<Vni> {
        let held = self.held.get(&link).into_iter().flat_map(BTreeMap::keys);
        held.filter(|vni| Some(**vni) != kept).copied().collect()
    }

    /// The links whose VNIs this node holds, or may hold.
    pub fn holding(&self) -> BTreeSet<LinkId> {
        self.held.keys().copied().collect()
    }

    /// Whether this node holds a VNI, or may hold it, for another link.
    pub fn is_held_by_other(&self, link: LinkId, vni: Vni) -> bool {
        let mut held = self.held.iter();
        held.any(|(other, vnis)| *other != link && vnis.contains_key(&vni))
    }

    /// This node has no device of a link with these VNIs, for certain.
    pub fn let_go(&mut self, link: LinkId, vnis: &BTreeSet<Vni>) {
        if let Some(held) = self.held.get_mut(&link) {
            let gone = held.extract_if(.., |vni, _| vnis.contains(vni));
            self.leaving.extend(gone.map(|(vni, _)| vni));
            if held.is_empty() {
                self.held.remove(&link);
            }
        }
    }

    fn holds(&self, link: LinkId, vni: Vni) -> bool {
        self.hold(link, vni) == Some(Hold::Certain)
    }

    fn hold(&self, link: LinkId, vni: Vni) -> Option<Hold> {
        self.held.get(&link)?.get(&vni).copied()
    }

    fn set_held(&mut self, link: LinkId, vni: Vni) {
        self.held
            .entry(link)
            .or_default()
            .insert(vni, Hold::Certain);
    }

    /// What the store is to be told that this node holds no longer.
    pub fn leaving(&self) -> &BTreeSet<Vni> {
        &self.leaving
    }

    /// The store has been told.
    pub fn released(&mut self, vnis: &BTreeSet<Vni>) {
        self.leaving.retain(|vni| !vnis.contains(vni));
    }

    /// VNIs of devices of this node that are not ours, as far as links were to have them.
    pub fn foreign(&self) -> &BTreeSet<Vni> {
        &self.foreign
    }

    /// Devices of this node that are not ours have these.
    pub fn set_foreign(&mut self, vnis: BTreeSet<Vni>) {
        self.foreign = vnis;
    }

    /// Forgets links that are declared no longer.
    pub fn forget(&mut self, ended: &BTreeSet<LinkId>) {
        for link in ended {
            self.granted.remove(link);
            self.former.remove(link);
            self.refused.remove(link);
        }
    }
}

#[cfg(test)]
mod tests;
