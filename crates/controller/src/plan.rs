//! The pure core: from what the API has to what is to be written.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use ratchet_api::{Accepted, Condition, Link, TopologyStatus, VNIBlock, meshnet::Status};
use ratchet_model::Vni;

use crate::{
    book::Book,
    changes,
    conditions::{self, Judgement},
    config::Config,
    derived::Derived,
    events::{self, Warning},
    memory::{BETWEEN_LOOKS, Memory, Orphan},
    meshnet, quarantine,
    snapshot::{Key, Snapshot},
    wanted::Wanted,
};

/// The finalizer of Links that have a VNI: the Link stays until its VNI may be freed.
pub const FINALIZER: &str = "ratchet.dev/vni";

/// A Link that is wanted again waits so long for its nodes to be clean.
const TO_BE_CLEAN: SignedDuration = SignedDuration::from_secs(5);

/// What is to be written, in this order: blocks, Links, statuses.
#[derive(Debug, Default)]
pub struct Plan {
    /// Blocks of VNIs. One with a resourceVersion is replaced, another one is created.
    pub blocks: Vec<VNIBlock>,
    /// Changes of Links.
    pub links: Vec<LinkChange>,
    /// The conditions `Accepted` of Links.
    pub accepted: Vec<(Key, Condition)>,
    /// The statuses of Topologies.
    pub topologies: Vec<(Key, TopologyStatus)>,
    /// Warnings that are to be posted, as events.
    pub warnings: Vec<Warning>,
    /// The statuses of meshnet's Topologies.
    pub meshnet: Vec<(Key, Status)>,
    /// Entries that seem to have no Link: ask the API, and tell [`Memory::confirm`].
    pub orphans: Vec<Orphan>,
    /// When to plan again, if nothing changes before.
    pub again: Option<SignedDuration>,
}

impl Plan {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
            && self.links.is_empty()
            && self.accepted.is_empty()
            && self.topologies.is_empty()
            && self.meshnet.is_empty()
    }

    /// Plans again after this time, or sooner.
    pub(crate) fn again_in(&mut self, time: SignedDuration) {
        self.again = Some(self.again.map_or(time, |again| again.min(time)));
    }
}

/// A change of a Link.
#[derive(Debug, Clone)]
pub struct LinkChange {
    /// What is done.
    pub what: Change,
    /// The number of the block of its VNI, if that must be written before.
    pub after: Option<u32>,
}

/// What is done with a Link.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is created.
    Create(Box<Link>),
    /// It is replaced, if it still has this resourceVersion.
    Replace(Box<Link>),
    /// It is deleted, if it still has this uid.
    Delete {
        /// The Link.
        key: Key,
        /// Its uid.
        uid: Option<String>,
    },
}

/// Plans what is to be written.
pub fn plan(snapshot: &Snapshot, config: &Config, memory: &mut Memory, now: Timestamp) -> Plan {
    let derived = Derived::of(memory.derived.take(), snapshot, config, now);
    memory.derived = Some(derived.clone());
    let mut planner = Planner {
        snapshot,
        memory,
        now,
        book: Book::of(snapshot, config.automatic_vnis, now),
        plan: Plan::default(),
        judgements: BTreeMap::new(),
    };
    planner.see_nodes();
    for (key, wanted) in &derived.wanted {
        planner.want(key, wanted.clone());
    }
    planner.end_others(&derived.wanted);
    planner.drop_orphans(&derived.wanted);
    planner.finish(&derived)
}

struct Planner<'s> {
    snapshot: &'s Snapshot,
    memory: &'s mut Memory,
    now: Timestamp,
    book: Book,
    plan: Plan,
    judgements: BTreeMap<Key, Judgement>,
}

impl<'s> Planner<'s> {
    /// Watches over the nodes on which Links that are being deleted may have devices.
    fn see_nodes(&mut self) {
        let mut named = BTreeSet::new();
        for link in self.snapshot.links.values() {
            if link.metadata.deletion_timestamp.is_some() {
                named.extend([&link.spec.a.node, &link.spec.b.node].into_iter().flatten());
            }
        }
        let named = named.into_iter().map(String::as_str);
        self.memory.see_nodes(self.snapshot, named, self.now);
    }

    /// A Link that is wanted.
    fn want(&mut self, key: &Key, mut wanted: Wanted) {
        let present = self.snapshot.links.get(key);
        let is_leaving = |link: &Link| link.metadata.deletion_timestamp.is_some();
        if present.is_some_and(|link| is_leaving(link)) {
            let judgement = Judgement::leaving();
            self.judgements.insert(key.clone(), judgement);
            return;
        }
        let keeps = match present.and_then(|link| link.spec.read_vni().ok().flatten()) {
            Some(vni) => self.keep_vni(key, &wanted, vni),
            None => {
                self.give_vni(key, &mut wanted);
                true
            }
        };
        let judgement = Judgement::of(&wanted, present.map(|link| &**link));
        self.judgements.insert(key.clone(), judgement);
        let vni = wanted.spec.read_vni().ok().flatten();
        match present {
            Some(link) if !keeps => self.delete(key, link),
            _ if self.is_early(key, &wanted, present.map(|link| &**link)) => {}
            Some(link) => {
                if let Some(changed) = changes::replacement(link, &wanted) {
                    self.change(Change::Replace(Box::new(changed)), vni);
                }
            }
            None => {
                let link = changes::creation(key, &wanted);
                self.change(Change::Create(Box::new(link)), vni);
            }
        }
    }

    /// Whether a Link is not written yet. Pods of one apply and their nodes come one after another,
    /// and a Link that was written in between is written again. While it has no pod at all, nobody
    /// needs it: its Topology's status says so.
    fn is_early(&mut self, key: &Key, wanted: &Wanted, present: Option<&Link>) -> bool {
        if !wanted.waits_for_pods() || present.is_some_and(|it| !wanted.keeps_places_of(&it.spec)) {
            return false;
        }
        if present.is_none() && !wanted.has_pod {
            return true;
        }
        let since = self.memory.troubled_since(key, wanted.accepted, self.now);
        let lasted = self.now.duration_since(since);
        let is_early = lasted < conditions::PATIENCE;
        if is_early {
            self.plan.again_in(conditions::PATIENCE - lasted);
        }
        is_early
    }

    /// Keeps the VNI of a Link, and notes which nodes its ends leave. Returns false if the Link
    /// must be made again: another VNI is declared, or another Link has this one.
    fn keep_vni(&mut self, key: &Key, wanted: &Wanted, vni: Vni) -> bool {
        let Some(link) = self.snapshot.links.get(key) else {
            return true;
        };
        if wanted.vni.is_some_and(|declared| declared != vni) {
            return false;
        }
        if !self.book.adopt(key, link.metadata.uid.as_deref(), vni) {
            let owner = self.book.owner(vni).map(ToOwned::to_owned);
            let is_its = owner.is_some_and(|owner| self.has(&owner, vni));
            if is_its {
                return false;
            }
            self.book.take_over(key, link.metadata.uid.as_deref(), vni);
        }
        for node in quarantine::left_nodes(link, [&wanted.spec.a, &wanted.spec.b]) {
            self.book.note_former(vni, node);
        }
        true
    }

    /// Whether a Link has a VNI.
    fn has(&self, link: &str, vni: Vni) -> bool {
        let key = link.split_once('/').map(|(namespace, name)| Key {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        });
        let link = key.and_then(|key| self.snapshot.links.get(&key));
        link.is_some_and(|link| link.spec.vni == Some(vni.number()))
    }

    /// Gives a Link a VNI, if it needs one.
    fn give_vni(&mut self, key: &Key, wanted: &mut Wanted) {
        if !wanted.needs_vni() {
            return;
        }
        let link = self.snapshot.links.get(key);
        let uid = link.and_then(|link| link.metadata.uid.as_deref());
        match self.book.give(key, uid, wanted.vni) {
            Ok(vni) => wanted.spec.vni = Some(vni.number()),
            Err(Accepted::VNITaken) => {
                let vni = wanted.vni.map(|vni| vni.to_string()).unwrap_or_default();
                let owner = wanted.vni.and_then(|vni| self.book.owner(vni));
                let owner = owner.unwrap_or("another link");
                let message = format!(
                    "VNI {vni} is asked for, but Link {owner} has it, or had it until lately: ask \
                     for another one or for none"
                );
                wanted.refuse(Accepted::VNITaken, message);
            }
            Err(reason) => {
                let message = "no VNI is free: delete links, or widen the controller's range";
                wanted.refuse(reason, message.to_owned());
            }
        }
    }

    fn change(&mut self, what: Change, vni: Option<Vni>) {
        let vni = vni.filter(|vni| self.book.is_changed(*vni));
        let after = vni.map(|vni| VNIBlock::place_of(vni).0);
        self.plan.links.push(LinkChange { what, after });
    }

    fn delete(&mut self, key: &Key, link: &Link) {
        let what = Change::Delete {
            key: key.clone(),
            uid: link.metadata.uid.clone(),
        };
        self.change(what, None);
    }

    /// Links that are not wanted, or are being deleted.
    fn end_others(&mut self, wanted: &BTreeMap<Key, Wanted>) {
        for (key, link) in &self.snapshot.links {
            if link.metadata.deletion_timestamp.is_some() {
                self.end(key, link, wanted.contains_key(key));
            } else if !wanted.contains_key(key) {
                self.delete(key, link);
            }
        }
    }

    /// Frees the VNI of a Link that is being deleted, when that is time, and lets the Link go.
    ///
    /// If the Link is wanted again, it goes soon. Its VNI is not given to another one for an hour
    /// then, as it is after a move from a node that has not said that it is clean.
    fn end(&mut self, key: &Key, link: &Link, is_wanted: bool) {
        let finalizers = link.metadata.finalizers.iter().flatten();
        if !finalizers
            .into_iter()
            .any(|finalizer| finalizer == FINALIZER)
        {
            return;
        }
        let vni = link.spec.read_vni().ok().flatten();
        if let Some(vni) = vni {
            let unclean = quarantine::unclean_nodes(link, self.snapshot, self.memory, self.now);
            let waited = quarantine::deleted_for(link, self.now).unwrap_or_default();
            let must_wait = !is_wanted || waited < TO_BE_CLEAN;
            if !unclean.is_empty() && must_wait {
                self.plan.again_in(if is_wanted {
                    TO_BE_CLEAN
                } else {
                    BETWEEN_LOOKS
                });
                return;
            }
            for node in unclean {
                self.book.note_former(vni, node);
            }
            self.book.free(&key.to_string(), vni);
        }
        let changed = changes::without_finalizer(link);
        self.change(Change::Replace(Box::new(changed)), vni);
    }

    /// Drops entries without a Link: a controller has ended between writing the one and the other.
    fn drop_orphans(&mut self, wanted: &BTreeMap<Key, Wanted>) {
        let awaited = |link: &str, vni: Vni| {
            let key = link.split_once('/').map(|(namespace, name)| Key {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            });
            key.is_some_and(|key| {
                let link = self.snapshot.links.get(&key);
                let has_none = link.is_none_or(|link| link.spec.vni.is_none());
                has_none && wanted.contains_key(&key) && self.book.of_link(&key) == Some(vni)
            })
        };
        let in_use = self.book.in_use();
        let orphans: BTreeSet<Orphan> = in_use
            .filter(|(vni, link)| !self.has(link, *vni) && !awaited(link, *vni))
            .map(|(vni, link)| (vni, link.to_owned()))
            .collect();
        if !orphans.is_empty() {
            self.plan.again_in(BETWEEN_LOOKS);
        }
        let (unsure, sure) = self.memory.look(&orphans, self.now);
        self.plan.orphans = unsure;
        for (vni, link) in sure {
            self.book.free(&link, vni);
        }
    }

    fn finish(mut self, derived: &Derived) -> Plan {
        self.memory
            .keep_told(|key| self.snapshot.topologies.contains_key(key));
        conditions::links(
            self.snapshot,
            &self.judgements,
            self.memory,
            self.now,
            &mut self.plan,
        );
        conditions::topologies(
            (self.snapshot, derived),
            &self.judgements,
            self.memory,
            self.now,
            &mut self.plan,
        );
        let warned = &mut self.memory.warned;
        events::warn((self.snapshot, derived), warned, self.now, &mut self.plan);
        meshnet::statuses(
            (self.snapshot, derived),
            &self.judgements,
            self.memory,
            self.now,
            &mut self.plan,
        );
        // What running pods need comes before what is new, when there is more than can be written.
        self.plan.links.sort_by_key(|change| match &change.what {
            Change::Replace(_) => 0,
            Change::Create(link) if link.spec.a.node.is_some() && link.spec.b.node.is_some() => 1,
            Change::Create(_) => 2,
            Change::Delete { .. } => 3,
        });
        self.plan.blocks = self.book.changes();
        self.plan
    }
}
