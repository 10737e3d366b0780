//! Claims of VNIs: what is asked, what is answered, and how the answer is found, once for all
//! backends.
//!
//! A VNI belongs to the link that has it, and after that link has ended to the nodes that hold it:
//! those that may still have a device of it. A node holds a VNI from its claim until it releases
//! it, and makes a device only of VNIs that it holds. So a VNI is given to another link only when
//! no node can have a device of it any more. This module reads and writes nothing.

use std::collections::BTreeSet;

use ratchet_model::{DeclaredLink, LinkId, NodeName, PodKey, Vni};
use serde::{Deserialize, Serialize};

/// A link for which a node needs a VNI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VniClaim {
    /// The link.
    pub link: LinkId,
    /// Its two pods: one of them must declare it, and one of them must be there, lest a VNI is
    /// taken for a link that ended since the claimer read of it. No agent would free that.
    pub pods: [PodKey; 2],
    /// The VNI its declaration insists on.
    pub fixed: Option<Vni>,
    /// The VNI that it had in a store that has lost it.
    pub former: Option<Vni>,
}

impl VniClaim {
    /// Of a link as it is declared.
    pub fn new(link: &DeclaredLink) -> Self {
        Self {
            link: link.id(),
            pods: [link.local.pod.clone(), link.remote.pod.clone()],
            fixed: link.vni,
            former: None,
        }
    }
}

/// The answer to a [`VniClaim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VniGrant {
    /// This is the link's VNI, and the claimer holds it.
    Granted(Vni),
    /// The VNI it insists on belongs to this other link.
    TakenBy(LinkId),
    /// The VNI it insists on is that of another device on this node.
    Blocked(NodeName),
    /// All that may be given are taken.
    Exhausted,
    /// It has none and gets none, since no record declares it with a pod that is there: the claim
    /// was made from stale facts. Read again.
    NotDeclared,
}

/// Whose a VNI is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// It is free.
    Nothing,
    /// This link has it; or had it, and some node still holds it.
    Link(LinkId),
    /// A VXLAN device on this node that is not ours has it: of no use for a link of the node.
    Foreign(NodeName),
}

/// What a claim comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The link keeps its VNI.
    Keep(Vni),
    /// The link gets this VNI, in place of the one it has, if any.
    Take(Vni),
    /// It gets none; what it has stays.
    Refuse(VniGrant),
}

impl Decision {
    /// Decides on a claim of a link that `has` a VNI. `owner` tells whose a VNI is, `lowest` gives
    /// the lowest free one of those that may be given to the link.
    ///
    /// # Errors
    /// Those of `owner` and `lowest`.
    pub fn on<E>(
        claim: &VniClaim,
        has: Option<Vni>,
        is_declared: bool,
        mut owner: impl FnMut(Vni) -> Result<Owner, E>,
        lowest: impl FnOnce() -> Result<Option<Vni>, E>,
    ) -> Result<Self, E> {
        if !is_declared {
            return Ok(has.map_or(Self::Refuse(VniGrant::NotDeclared), Self::Keep));
        }
        let give = |vni| match has == Some(vni) {
            true => Self::Keep(vni),
            false => Self::Take(vni),
        };
        if let Some(fixed) = claim.fixed {
            return Ok(match owner(fixed)? {
                Owner::Foreign(node) => Self::Refuse(VniGrant::Blocked(node)),
                Owner::Link(other) if other != claim.link => Self::Refuse(VniGrant::TakenBy(other)),
                Owner::Link(_) | Owner::Nothing => give(fixed),
            });
        }
        for vni in has.into_iter().chain(claim.former) {
            match owner(vni)? {
                Owner::Nothing => return Ok(give(vni)),
                Owner::Link(link) if link == claim.link => return Ok(give(vni)),
                Owner::Link(_) | Owner::Foreign(_) => {}
            }
        }
        let refuse = Self::Refuse(VniGrant::Exhausted);
        Ok(lowest()?.map_or(refuse, Self::Take))
    }
}

/// A VNI that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenVni {
    /// The link that has it, or had it last.
    pub link: LinkId,
    /// Whether that link has ended, or has another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// The nodes that hold it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub nodes: BTreeSet<NodeName>,
}

impl TakenVni {
    /// Given to a link.
    pub fn new(link: LinkId) -> Self {
        Self {
            link,
            ended: false,
            nodes: BTreeSet::new(),
        }
    }

    /// The link no longer has it. `None`: it is free.
    #[must_use]
    pub fn without_link(self) -> Option<Self> {
        let ended = Self {
            ended: true,
            ..self
        };
        (!ended.nodes.is_empty()).then_some(ended)
    }

    /// A node no longer holds it. `None`: it is free.
    #[must_use]
    pub fn without_node(mut self, node: &NodeName) -> Option<Self> {
        self.nodes.remove(node);
        (!self.ended || !self.nodes.is_empty()).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vni(number: u32) -> Vni {
        number.try_into().unwrap()
    }

    fn link(number: u64) -> LinkId {
        format!("{number:016x}").parse().unwrap()
    }

    fn node() -> NodeName {
        "n1".parse().unwrap()
    }

    /// 11 is link 1's, 12 is link 2's, 13 is foreign; 20 is the lowest free.
    fn decide(has: Option<u32>, fixed: Option<u32>, former: Option<u32>) -> Decision {
        let claim = VniClaim {
            link: link(1),
            pods: ["a", "b"].map(|name| PodKey::new("default", name).unwrap()),
            fixed: fixed.map(vni),
            former: former.map(vni),
        };
        let owner = |asked: Vni| -> Result<Owner, ()> {
            Ok(match asked.number() {
                11 => Owner::Link(link(1)),
                12 => Owner::Link(link(2)),
                13 => Owner::Foreign(node()),
                _ => Owner::Nothing,
            })
        };
        Decision::on(&claim, has.map(vni), true, owner, || Ok(Some(vni(20)))).unwrap()
    }

    #[test]
    fn a_link_keeps_what_it_has_unless_it_insists_on_another_or_cannot_use_it() {
        assert_eq!(decide(Some(11), None, None), Decision::Keep(vni(11)));
        assert_eq!(decide(Some(11), Some(11), None), Decision::Keep(vni(11)));
        assert_eq!(decide(Some(11), Some(30), None), Decision::Take(vni(30)));
        assert_eq!(decide(Some(13), None, None), Decision::Take(vni(20)));
    }

    #[test]
    fn a_link_that_has_none_gets_what_it_insists_on_or_had_or_the_lowest_free() {
        assert_eq!(decide(None, None, None), Decision::Take(vni(20)));
        assert_eq!(decide(None, None, Some(30)), Decision::Take(vni(30)));
        assert_eq!(decide(None, None, Some(12)), Decision::Take(vni(20)));
        assert_eq!(decide(None, Some(30), None), Decision::Take(vni(30)));
        let refuse = |grant| Decision::Refuse(grant);
        let taken = refuse(VniGrant::TakenBy(link(2)));
        assert_eq!(decide(None, Some(12), None), taken);
        assert_eq!(decide(Some(11), Some(12), None), taken);
        let foreign = refuse(VniGrant::Blocked(node()));
        assert_eq!(decide(None, Some(13), None), foreign);
    }

    #[test]
    fn a_vni_is_free_when_neither_its_link_nor_a_node_has_it() {
        let mut taken = TakenVni::new(link(1));
        assert_eq!(taken.clone().without_link(), None);
        taken.nodes.insert(node());
        let ended = taken.clone().without_link().unwrap();
        assert!(ended.ended);
        assert_eq!(ended.without_node(&node()), None);
        let living = taken.without_node(&node()).unwrap();
        assert_eq!(living, TakenVni::new(link(1)));
    }
}
