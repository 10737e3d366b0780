//! The VNIs of links, as the store has given them. Nothing here asks the store.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, Vni, resolve::Link, wiring::VniState};
use ratchet_store::{VniClaim, VniGrant};

/// What is known of links' VNIs.
#[derive(Debug, Default)]
pub(crate) struct Vnis {
    granted: BTreeMap<LinkId, Vni>,
    /// VNIs that the store no longer knows of: if it was wiped, their links ask for the same ones
    /// again.
    former: BTreeMap<LinkId, Vni>,
    /// Links that insist on a VNI which is another link's.
    taken: BTreeMap<LinkId, (Vni, LinkId)>,
}

/// What is left to do once grants were noted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Unmet {
    /// Links whose former VNI is another link's by now: they take any other.
    pub without_former: Vec<VniClaim>,
    /// Whether a link has none for another reason, which may pass.
    pub missing: bool,
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

    /// What wiring must know of a link's VNI.
    pub fn state(&self, link: LinkId) -> VniState {
        match (self.get(link), self.taken.get(&link)) {
            (Some(vni), _) => VniState::Granted(vni),
            (None, Some((vni, owner))) => VniState::TakenBy(*vni, *owner),
            // The store has lost it and does not give it again yet: until another link has it, what
            // is there stays.
            (None, None) => self.former(link).map_or(VniState::None, VniState::Granted),
        }
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

    /// Takes the store's answer to claims; `links` are the links as they are declared.
    pub fn take_grants(
        &mut self,
        claims: &[VniClaim],
        links: &[Link],
        grants: BTreeMap<LinkId, VniGrant>,
    ) -> Unmet {
        let claim_of = |link| claims.iter().find(|claim| claim.link == link);
        let insists = |id| !links.iter().any(|link| link.id == id && link.vni.is_none());
        let mut unmet = Unmet::default();
        for (link, grant) in grants {
            self.taken.remove(&link);
            match grant {
                VniGrant::Granted(vni) => {
                    self.former.remove(&link);
                    self.granted.insert(link, vni);
                }
                VniGrant::TakenBy(owner) if insists(link) => {
                    let fixed = claim_of(link).and_then(|claim| claim.fixed);
                    self.taken.extend(fixed.map(|vni| (link, (vni, owner))));
                }
                VniGrant::TakenBy(_) => {
                    self.former.remove(&link);
                    unmet
                        .without_former
                        .extend(claim_of(link).map(|claim| VniClaim {
                            fixed: None,
                            ..claim.clone()
                        }));
                }
                VniGrant::Exhausted => {
                    tracing::error!(%link, "all VNIs are taken");
                    unmet.missing = true;
                }
                VniGrant::NotDeclared => {
                    // It ended since it was read, or the store has lost its declaration.
                    tracing::info!(%link, "no VNI yet: the store knows of no declaration of the \
                                           link");
                    unmet.missing = true;
                }
            }
        }
        unmet
    }

    /// Forgets links that are declared no longer.
    pub fn forget(&mut self, ended: &BTreeSet<LinkId>) {
        for link in ended {
            self.granted.remove(link);
            self.former.remove(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::link;

    fn number(vni: u32) -> Vni {
        vni.try_into().unwrap()
    }

    fn claim(link: &Link, fixed: Option<u32>) -> VniClaim {
        VniClaim {
            link: link.id,
            pods: [link.a.pod.clone(), link.z.pod.clone()],
            fixed: fixed.map(number),
        }
    }

    #[test]
    fn a_link_asks_for_the_vni_that_the_store_has_lost_and_takes_another_if_it_must() {
        let (link, other) = (link("a", None), link("b", None));
        let mut vnis = Vnis::default();
        vnis.merge(&[link.id].into(), [(link.id, number(12))].into());
        vnis.merge(&[link.id].into(), BTreeMap::new());
        assert_eq!(
            (vnis.get(link.id), vnis.former(link.id)),
            (None, Some(number(12)))
        );
        assert_eq!(vnis.state(link.id), VniState::Granted(number(12)));

        let unmet = vnis.take_grants(
            &[claim(&link, Some(12))],
            std::slice::from_ref(&link),
            [(link.id, VniGrant::TakenBy(other.id))].into(),
        );
        assert_eq!(unmet.without_former, [claim(&link, None)]);
        assert_eq!(
            (vnis.state(link.id), unmet.missing),
            (VniState::None, false)
        );

        vnis.restore(link.id, number(13));
        let granted = [(link.id, VniGrant::Granted(number(14)))].into();
        let unmet = vnis.take_grants(&[claim(&link, Some(13))], &[], granted);
        assert_eq!(unmet, Unmet::default());
        assert_eq!(
            (vnis.get(link.id), vnis.former(link.id)),
            (Some(number(14)), None)
        );
        vnis.forget(&[link.id].into());
        assert_eq!(vnis.state(link.id), VniState::None);
    }

    #[test]
    fn a_link_that_insists_on_a_vni_of_another_takes_none() {
        let (link, owner) = (link("a", Some(77)), link("b", None).id);
        let mut vnis = Vnis::default();
        let taken = [(link.id, VniGrant::TakenBy(owner))].into();
        let claims = [claim(&link, Some(77))];
        let unmet = vnis.take_grants(&claims, std::slice::from_ref(&link), taken);
        assert_eq!(unmet, Unmet::default());
        assert_eq!(vnis.state(link.id), VniState::TakenBy(number(77), owner));
    }

    #[test]
    fn a_link_without_a_declaration_in_the_store_is_tried_again() {
        let link = link("a", None);
        let mut vnis = Vnis::default();
        let grants = [(link.id, VniGrant::NotDeclared)].into();
        let unmet = vnis.take_grants(&[claim(&link, None)], std::slice::from_ref(&link), grants);
        assert_eq!((unmet.missing, vnis.state(link.id)), (true, VniState::None));
    }
}
