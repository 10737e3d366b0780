//! What the store is asked and told of VNIs.

use std::collections::BTreeSet;

use ratchet_model::{LinkId, NodeName, Vni, link::End, resolve::Link};
use ratchet_store::VniClaim;

use super::{Session, connection::Size, interest};
use crate::retry::{Retry, Tried};

impl Session {
    /// Claims a VNI for each of these links that needs one, as far as that is not done. Before,
    /// the store is told what this node holds no longer: it may not have heard, and hold on to it.
    pub fn claim_vnis(
        &mut self,
        node: &NodeName,
        links: &[Link],
        needs_one: impl Fn(&Link) -> bool,
    ) -> Tried {
        let vnis = self.known.vnis();
        let claims: Vec<VniClaim> = links
            .iter()
            .filter(|link| needs_one(link) && vnis.must_claim(link))
            .map(|link| VniClaim {
                link: link.id,
                pods: End::BOTH.map(|end| link.endpoint(end).pod.clone()),
                fixed: link.vni,
                former: vnis.former(link.id),
            })
            .collect();
        if claims.is_empty() {
            return Ok(());
        }
        self.release_vnis(node)?;
        let size = Size::Links(claims.len());
        let grants = self.call(size, async |store| store.claim_vnis(node, &claims).await)?;
        let missing = self.known.vnis_mut().take_grants(&claims, grants);
        let known = &self.known;
        self.connection
            .interest()
            .send_if_modified(|interest| interest::await_vnis(interest, known));
        if missing { Err(Retry::Vnis) } else { Ok(()) }
    }

    /// This node has no device of a link with these VNIs, for certain.
    pub fn let_go(&mut self, link: LinkId, vnis: &BTreeSet<Vni>) {
        self.known.vnis_mut().let_go(link, vnis);
    }

    /// Tells the store what this node holds no longer.
    pub fn release_vnis(&mut self, node: &NodeName) -> Tried {
        let vnis = self.known.vnis().leaving().clone();
        if vnis.is_empty() {
            return Ok(());
        }
        let size = Size::Links(vnis.len());
        self.call(size, async |store| store.release_vnis(node, &vnis).await)?;
        self.known.vnis_mut().released(&vnis);
        Ok(())
    }

    /// Whether it is known what this node holds, also of what an agent before this one claimed.
    pub fn knows_held(&self) -> bool {
        self.knows_held
    }

    /// That has to be asked again: the store may have another past.
    pub fn forget_held(&mut self) {
        self.knows_held = false;
    }

    /// Others took this node for gone, and may have released what it holds.
    pub fn doubt_held(&mut self) {
        self.known.vnis_mut().doubt_held();
        self.knows_held = false;
    }

    /// Asks the store what this node holds.
    pub fn read_held(&mut self, node: &NodeName) -> Tried {
        let held = self.call(Size::AllRecords, async |store| store.held_vnis(node).await)?;
        self.known.vnis_mut().take_held(held);
        self.knows_held = true;
        Ok(())
    }

    /// Tells the store which VNIs devices of this node have that are not ours.
    pub fn block_vnis(&mut self, node: &NodeName, vnis: BTreeSet<Vni>) -> Tried {
        if !vnis.is_empty() {
            tracing::warn!(
                ?vnis,
                "other VXLAN devices of this node have these VNIs; links get others"
            );
        }
        let size = Size::Links(vnis.len());
        self.call(size, async |store| store.block_vnis(node, &vnis).await)?;
        self.known.vnis_mut().set_foreign(vnis);
        Ok(())
    }
}
