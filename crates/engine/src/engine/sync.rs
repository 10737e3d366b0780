//! What the store says of this node's pods: read, put right where it is this node's to say, and
//! listened for.
//!
//! Nothing here looks at the kernel; what follows from new facts is for [`Engine::reconcile`].

use std::collections::BTreeSet;

use ratchet_model::{PodKey, PodRecord, link::End, record::Facts, resolve::Link, wiring};
use ratchet_store::{Change, Interest, Publish, Published, VniClaim, VniGrant};

use super::{Engine, reconcile::Scope, sandboxes};

impl Engine {
    /// Reads what the store says about these pods, as far as they are this node's, puts right what
    /// it should say, and tells the watch what to listen for. Gives whether it worked. Asked about
    /// none, it finds out whether the store answers.
    pub(super) fn refresh_facts(&mut self, pods: &BTreeSet<PodKey>) -> bool {
        let own: BTreeSet<PodKey> = pods
            .iter()
            .filter(|pod| self.sandboxes.has(pod))
            .cloned()
            .collect();
        if own.is_empty() && !pods.is_empty() {
            self.forget_pods(pods);
            return true;
        }
        let mut around = self.known.with_neighbours(&own);
        if !self.read_facts(&own) {
            return false;
        }
        let is_gone = |pod: &PodKey| self.known.record(pod).is_none_or(|said| !said.lives());
        if own
            .iter()
            .any(|pod| self.sandboxes.current(pod).is_some() && is_gone(pod))
        {
            // Others have taken this node for dead, or the store has forgotten it: that it lives is
            // said first.
            if let Err(failure) = self.register_node() {
                tracing::warn!(%failure, "cannot tell the store of this node");
                return false;
            }
        }
        let published = own
            .iter()
            .fold(true, |done, pod| done & self.uphold_record(pod));
        around.extend(self.known.with_neighbours(&own));
        self.tell_interest_in(&around);
        published
    }

    /// Reads what the store says about pods of this node, and nothing more.
    pub(super) fn read_facts(&mut self, own: &BTreeSet<PodKey>) -> bool {
        let store = match self.store() {
            Ok(store) => store,
            Err(failure) => {
                tracing::warn!(%failure, "the store cannot be used");
                return false;
            }
        };
        let answer = self.runtime.block_on(async {
            let facts = store.read(own).await?;
            // They have dropped their links, or the store has lost them: it can tell when it is
            // asked for themselves.
            let missing = self.known.missing_declarers(own, &facts);
            let their_own = if missing.is_empty() {
                Facts::default()
            } else {
                store.read(&missing).await?
            };
            Ok((facts, missing, their_own))
        });
        let (facts, missing, their_own) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "cannot read the store");
                self.store_failed(&error);
                return false;
            }
        };
        self.store_trouble = None;
        let is_there = |pod: &PodKey| facts.records.get(pod).is_some_and(PodRecord::lives);
        let forgotten = own
            .iter()
            .filter(|pod| !self.informed && !is_there(pod))
            .cloned()
            .collect();
        let sandboxes = &self.sandboxes;
        let lives_here = |pod: &PodKey| sandboxes.current(pod).is_some();
        let absent = self
            .known
            .correct(missing, their_own, |pod| sandboxes.has(pod));
        self.known.merge(
            own,
            facts,
            &absent,
            |pod| sandboxes.has(pod),
            lives_here,
            self.clock.now(),
        );
        self.restore_from_devices(&forgotten)
    }

    /// Makes the store say of a pod what is so here; or learns that the pod lives elsewhere by now.
    fn uphold_record(&mut self, pod: &PodKey) -> bool {
        let Ok(effective) = self.effective().cloned() else {
            return false;
        };
        let living: Vec<_> = self
            .sandboxes
            .of(pod)
            .filter(|state| !state.leaving)
            .cloned()
            .collect();
        let Some(latest) = living
            .iter()
            .max_by_key(|state| (state.created, state.id.clone()))
        else {
            return true;
        };
        let ours = sandboxes::record(latest, &effective);
        let said = self.known.record(pod);
        if said == Some(&ours) {
            self.sandboxes.supersede(&latest.id, false);
            return true;
        }
        let elsewhere = said
            .is_some_and(|said| said.created > ours.created && said.sandbox() != Some(&latest.id));
        let published = if elsewhere {
            Ok(Published::Superseded)
        } else {
            let Ok(store) = self.store() else {
                return false;
            };
            self.runtime.block_on(store.publish(&ours, Publish::Again))
        };
        match published {
            Ok(Published::Stored { created }) => {
                self.sandboxes.supersede(&latest.id, false);
                self.known.set(pod, Some(PodRecord { created, ..ours }));
                true
            }
            Ok(Published::Superseded) => {
                tracing::warn!(%pod, sandbox = %latest.id, "the pod has a later sandbox on another \
                                                            node; this one is left alone");
                for state in &living {
                    self.sandboxes.supersede(&state.id, true);
                }
                true
            }
            Err(error) => {
                tracing::warn!(%pod, %error, "cannot publish the pod's location");
                self.store_failed(&error);
                false
            }
        }
    }

    /// Pods that have no sandbox here any more are of interest only as far as they are neighbours.
    pub(super) fn forget_pods(&mut self, pods: &BTreeSet<PodKey>) {
        let around = self.known.with_neighbours(pods);
        for other in &around {
            if !self.sandboxes.has(other) && !self.is_peer(other) {
                self.known.set(other, None);
            }
        }
        self.tell_interest_in(&around);
    }

    /// Whether a pod is a neighbour of one of this node's.
    fn is_peer(&self, pod: &PodKey) -> bool {
        self.known
            .neighbours(pod)
            .iter()
            .any(|neighbour| self.sandboxes.has(neighbour))
    }

    /// Tells the watch what has become of these pods. Only they can have become of interest, or
    /// have ceased to be, when they are all whose records or sandboxes have changed, with their
    /// neighbours before and after: what it costs does not grow with the pods of the node.
    ///
    /// A pod that lives here and on another node, or did, may change its record without being asked
    /// for: with those whose records have changed come the neighbours that these had and have.
    fn tell_interest_in(&mut self, pods: &BTreeSet<PodKey>) {
        if !self.informed {
            return self.tell_interest();
        }
        let touched = self.known.take_touched();
        let pods: BTreeSet<&PodKey> = pods.iter().chain(&touched).collect();
        self.interest.send_if_modified(|interest| {
            let mut changed = false;
            for pod in &pods {
                let is_own = self.sandboxes.has(pod);
                changed |= put(&mut interest.own, pod, is_own);
                changed |= put(&mut interest.peers, pod, !is_own && self.is_peer(pod));
            }
            changed
        });
        debug_assert_eq!(
            *self.interest.borrow(),
            self.whole_interest(),
            "after {pods:?}"
        );
    }

    /// The same for all pods there are.
    pub(super) fn tell_interest(&mut self) {
        self.known.take_touched();
        let interest = self.whole_interest();
        self.interest.send_if_modified(|current| {
            let changed = *current != interest;
            *current = interest;
            changed
        });
    }

    fn whole_interest(&self) -> Interest {
        let own = self.sandboxes.pods();
        let peers = own
            .iter()
            .flat_map(|pod| self.known.neighbours(pod))
            .filter(|pod| !own.contains(pod))
            .collect();
        Interest { own, peers }
    }

    /// The store has news.
    pub(super) fn changed(&mut self, change: Change) {
        let pods = match change {
            Change::All => return self.begin_resync(),
            Change::Pods(pods) => pods,
        };
        let mut concerned = self.known.with_neighbours(&pods);
        concerned.retain(|pod| self.sandboxes.has(pod));
        if concerned.is_empty() {
            return;
        }
        let read = self.refresh_facts(&concerned);
        if !(read & self.reconcile(&Scope::Links(concerned))) {
            self.look_again_soon();
        }
        self.tell();
    }

    /// Sees to it that every link between two nodes has a VNI.
    pub(super) fn claim_vnis(&mut self, links: &[Link]) -> bool {
        let claims: Vec<VniClaim> = links
            .iter()
            .filter(|link| {
                self.known.vni(link.id).is_none() && wiring::needs_vni(link, &self.places(link))
            })
            .map(|link| VniClaim {
                link: link.id,
                pods: End::BOTH.map(|end| link.endpoint(end).pod.clone()),
                fixed: link.vni.or(self.known.former_vni(link.id)),
            })
            .collect();
        self.claim(claims, links)
    }

    fn claim(&mut self, claims: Vec<VniClaim>, links: &[Link]) -> bool {
        if claims.is_empty() {
            return true;
        }
        let (mut without_former, mut worked) = (Vec::new(), true);
        let Ok(store) = self.store() else {
            return false;
        };
        match self.runtime.block_on(store.claim_vnis(&claims)) {
            Ok(grants) => {
                for (link, grant) in grants {
                    self.taken_vnis.remove(&link);
                    match grant {
                        VniGrant::Granted(vni) => self.known.set_vni(link, vni),
                        VniGrant::TakenBy(_)
                            if links.iter().any(|l| l.id == link && l.vni.is_none()) =>
                        {
                            self.known.forget_former_vni(link);
                            let same = claims.iter().find(|claim| claim.link == link);
                            without_former.extend(same.map(|claim| VniClaim {
                                fixed: None,
                                ..claim.clone()
                            }));
                        }
                        VniGrant::TakenBy(owner) => {
                            let fixed = claims
                                .iter()
                                .find(|claim| claim.link == link)
                                .and_then(|claim| claim.fixed);
                            self.taken_vnis
                                .extend(fixed.map(|vni| (link, (vni, owner))));
                        }
                        VniGrant::Exhausted => tracing::error!(%link, "all VNIs are taken"),
                        VniGrant::NotDeclared => {
                            // It ended since it was read of, or the store has lost its declaration:
                            // to be read again.
                            tracing::info!(%link, "no VNI yet: the store knows of no declaration \
                                                   of the link");
                            worked = false;
                        }
                    }
                }
                worked & self.claim(without_former, links)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot claim VNIs");
                self.store_failed(&error);
                false
            }
        }
    }
}

/// Sees to it that a set has a pod or has it not; gives whether that changed it.
fn put(set: &mut BTreeSet<PodKey>, pod: &PodKey, is_in: bool) -> bool {
    match (is_in, set.contains(pod)) {
        (true, false) => set.insert(pod.clone()),
        (false, true) => set.remove(pod),
        _ => false,
    }
}
