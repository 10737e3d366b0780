//! The Links with an end on this node, the pods that this node has published, and the facts that
//! follow from both. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_api::{EndState, Kind, LinkEndStatus, end, schema::MESSAGE};
use ratchet_model::{
    DeclaredLink, LinkId, Location, Mtu, NodeName, PodKey, PodRecord, Reason, SandboxId, Vni,
    declaration::{Accept, Declaration},
    device::LinkKind,
    record::Facts,
    text::bounded,
};

use super::known::{KnownEnd, KnownLink, LinkKey, Side};
use crate::{EndReport, Publish, Published, VniClaim, VniGrant};

/// What the engine says of this node's ends, by link and pod.
pub(super) type Reports = BTreeMap<(LinkId, PodKey), EndReport>;

/// An end of a Link.
pub(super) type EndKey = (LinkKey, Side);

/// What an agent knows of its node's links.
#[derive(Debug)]
pub(super) struct Links {
    node: NodeName,
    by_key: BTreeMap<LinkKey, KnownLink>,
    /// The Links of a pod.
    by_pod: BTreeMap<PodKey, BTreeSet<LinkKey>>,
    by_id: BTreeMap<LinkId, LinkKey>,
    /// This node's pods, as its agent has published them.
    own: BTreeMap<PodKey, PodRecord>,
    /// The VNIs of which this node may have devices, and of which links.
    held: BTreeMap<Vni, LinkId>,
    /// Links whose statuses may have to be written.
    touched: BTreeSet<LinkKey>,
}

impl Links {
    /// Of a node, before anything is known.
    pub fn of(node: NodeName) -> Self {
        Self {
            node,
            by_key: BTreeMap::new(),
            by_pod: BTreeMap::new(),
            by_id: BTreeMap::new(),
            own: BTreeMap::new(),
            held: BTreeMap::new(),
            touched: BTreeSet::new(),
        }
    }

    /// The Links whose statuses may have changed since this was last asked.
    pub fn take_touched(&mut self) -> BTreeSet<LinkKey> {
        std::mem::take(&mut self.touched)
    }

    /// What is said of a link's end may have changed.
    pub fn touch(&mut self, link: LinkId) {
        self.touched.extend(self.by_id.get(&link).cloned());
    }

    /// The node.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Takes a Link as it is now; `None`: it is gone, or has no end here any more. Returns the pods
    /// whose facts have changed.
    pub fn set(&mut self, key: &LinkKey, link: Option<KnownLink>) -> BTreeSet<PodKey> {
        let before = self.remove(key);
        self.touched.insert(key.clone());
        let is_same = match (&before, &link) {
            (None, None) => true,
            (Some(before), Some(link)) => before.says_the_same_as(link),
            _ => false,
        };
        let both = before.iter().chain(&link);
        let pods = both.flat_map(|link| link.pods().cloned()).collect();
        if let Some(link) = link {
            self.insert(link);
        }
        match is_same {
            true => BTreeSet::new(),
            false => pods,
        }
    }

    /// Takes all Links there are. Returns the pods whose facts have changed.
    pub fn replace(&mut self, links: Vec<KnownLink>) -> BTreeSet<PodKey> {
        let keys: BTreeSet<&LinkKey> = links.iter().map(|link| &link.key).collect();
        let known = self.by_key.keys();
        let gone: Vec<LinkKey> = known.filter(|key| !keys.contains(key)).cloned().collect();
        let mut changed: BTreeSet<PodKey> = BTreeSet::new();
        for key in gone {
            changed.extend(self.set(&key, None));
        }
        for link in links {
            changed.extend(self.set(&link.key.clone(), Some(link)));
        }
        changed
    }

    /// A node that has just started may have devices of all its links' VNIs.
    pub fn suppose_all_held(&mut self) {
        let held = self.by_key.values().filter(|link| {
            let mut ends = link.ends.iter().filter(|end| end.is_on(&self.node));
            ends.any(|end| !end.is_removed())
        });
        let held = held.filter_map(|link| Some((link.vni?, link.id)));
        self.held = held.collect();
    }

    fn insert(&mut self, link: KnownLink) {
        for pod in link.pods() {
            let links = self.by_pod.entry(pod.clone()).or_default();
            links.insert(link.key.clone());
        }
        self.by_id.insert(link.id, link.key.clone());
        self.by_key.insert(link.key.clone(), link);
    }

    fn remove(&mut self, key: &LinkKey) -> Option<KnownLink> {
        let link = self.by_key.remove(key)?;
        for pod in link.pods() {
            if let Some(links) = self.by_pod.get_mut(pod) {
                links.remove(key);
                if links.is_empty() {
                    self.by_pod.remove(pod);
                }
            }
        }
        if self.by_id.get(&link.id) == Some(key) {
            self.by_id.remove(&link.id);
        }
        Some(link)
    }

    /// What this node's end of a Link is to be said to be, if that is not what was said. `reports`
    /// are the ends that are or should be there.
    pub fn unsaid(&self, (key, side): &EndKey, reports: &Reports) -> Option<LinkEndStatus> {
        let link = self.by_key.get(key)?;
        let end = &link.ends[*side as usize];
        let status = self.status(link, end, reports)?;
        (end.status.as_ref() != Some(&status)).then_some(status)
    }

    /// The status of an end, if this node has something to say of it.
    fn status(&self, link: &KnownLink, end: &KnownEnd, reports: &Reports) -> Option<LinkEndStatus> {
        let place = end.place.as_ref().filter(|_| end.is_on(&self.node))?;
        let status = |state| LinkEndStatus {
            node: self.node.to_string(),
            pod_uid: place.pod_uid.clone(),
            sandbox: None,
            observed_generation: link.generation,
            state,
            kind: None,
            mtu: None,
            reason: None,
            message: None,
        };
        let pod = &end.declared.pod;
        if let Some(report) = reports
            .get(&(link.id, pod.clone()))
            .filter(|_| !link.is_ending)
        {
            let state = match &report.reason {
                None => EndState::Up,
                Some(reason) if reason.is_waiting() => EndState::Waiting,
                Some(_) => EndState::Failed,
            };
            let word = report.reason.as_ref().map_or(end::WIRED, Reason::name);
            return Some(LinkEndStatus {
                sandbox: Some(report.sandbox.to_string()),
                kind: report.kind.map(kind),
                mtu: report.mtu.map(Mtu::bytes),
                reason: Some(word.to_owned()),
                message: report
                    .reason
                    .as_ref()
                    .map(|reason| bounded(reason.to_string(), MESSAGE)),
                ..status(state)
            });
        }
        // That nothing is there yet is not worth a write.
        let said = end.status.as_ref();
        let said = said.filter(|said| said.pod_uid == place.pod_uid);
        let was_there = said.is_some_and(|said| said.state != EndState::Removed);
        let is_gone = link.is_ending || was_there && !self.own.contains_key(pod);
        let may_be_there = self.holds(link) || reports.contains_key(&(link.id, pod.clone()));
        let is_removed = is_gone && !may_be_there;
        // The controller wants to hear it once more of a Link that is being deleted.
        let counts = |said: &&LinkEndStatus| {
            let is_of_this = !link.is_ending || said.observed_generation == link.generation;
            said.state == EndState::Removed && is_of_this
        };
        let removed = || LinkEndStatus {
            reason: Some(end::REMOVED.to_owned()),
            ..status(EndState::Removed)
        };
        is_removed.then(|| said.filter(counts).cloned().unwrap_or_else(removed))
    }

    /// The Links of a pod that are wanted, each with the pod's end and the other one.
    fn wanted(&self, pod: &PodKey) -> impl Iterator<Item = (&KnownLink, &KnownEnd, &KnownEnd)> {
        let keys = self.by_pod.get(pod).into_iter().flatten();
        let links = keys.filter_map(|key| self.by_key.get(key));
        let wanted = links.filter(|link| !link.is_ending);
        wanted.flat_map(move |link| {
            let views = link.views().map(|(end, other)| (link, end, other));
            let of_pod = views.into_iter();
            of_pod.filter(move |(_, end, _)| end.declared.pod == *pod)
        })
    }

    /// What concerns these pods of the node.
    pub fn facts(&self, own: &BTreeSet<PodKey>) -> Facts {
        let (mut facts, mut declared) = (Facts::default(), BTreeMap::new());
        for pod in own {
            let mut links: Vec<DeclaredLink> = Vec::new();
            for (link, end, other) in self.wanted(pod) {
                if end.is_on(&self.node) {
                    links.push(link.declared(end, other));
                }
                let peer = &other.declared.pod;
                facts.vnis.extend(link.vni.map(|vni| (link.id, vni)));
                if !facts.records.contains_key(peer) {
                    let record = self.record(other);
                    facts.records.insert(peer.clone(), record);
                }
            }
            declared.insert(pod.clone(), Declaration::of_store(pod.clone(), links));
            // Also of a pod without Links: that it declares nothing is known.
            let record = self.own.get(pod).cloned();
            let record = record.unwrap_or_else(|| self.record_elsewhere(pod, None));
            facts.records.insert(pod.clone(), record);
        }
        Facts {
            declared: Some(declared),
            ..facts
        }
    }

    /// The record of the pod of an end: its agent's own, or what its Links say of it.
    fn record(&self, end: &KnownEnd) -> PodRecord {
        let pod = &end.declared.pod;
        if let Some(record) = self.own.get(pod) {
            return record.clone();
        }
        let location = end.place.as_ref().and_then(|place| {
            let (vtep, mtu) = place.tunnels?;
            let is_elsewhere = place.node != self.node;
            is_elsewhere.then(|| {
                Some(Location {
                    node: place.node.clone(),
                    vtep,
                    sandbox: place.pod_uid.parse().ok()?,
                    mtu,
                    leaving: false,
                })
            })?
        });
        self.record_elsewhere(pod, location)
    }

    /// The record of a pod that this node has not published: it declares its Links.
    fn record_elsewhere(&self, pod: &PodKey, location: Option<Location>) -> PodRecord {
        let links = self.wanted(pod);
        let links = links.map(|(link, end, other)| link.declared(end, other));
        PodRecord {
            accept: Accept::anyone(),
            ..PodRecord::new(pod.clone(), location, 0, links.collect())
        }
    }

    /// The pods of this node: those that its agent has published, and those whose sandboxes an
    /// agent before it has told of in their Links.
    pub fn located(&self) -> Vec<PodRecord> {
        let mut located = self.own.clone();
        let ends = self.by_key.values().flat_map(|link| &link.ends);
        for end in ends.filter(|end| end.is_on(&self.node)) {
            let (pod, location) = (&end.declared.pod, end.location());
            if location.is_some() && !located.contains_key(pod) {
                located.insert(pod.clone(), self.record_elsewhere(pod, location));
            }
        }
        located.into_values().collect()
    }

    /// Notes a pod of this node.
    pub fn publish(&mut self, record: &PodRecord, how: Publish) -> Published {
        let mut created = record.created;
        if let Some(before) = self.own.get(&record.pod)
            && before.sandbox() != record.sandbox()
        {
            if how == Publish::Again && before.created > created {
                return Published::Superseded;
            }
            created = created.max(before.created + 1);
        }
        let record = PodRecord {
            created,
            ..record.clone()
        };
        self.own.insert(record.pod.clone(), record);
        Published::Stored { created }
    }

    /// Forgets a sandbox. Returns whether it was its pod's.
    pub fn remove_pod(&mut self, pod: &PodKey, sandbox: &SandboxId) -> bool {
        let is_its = self
            .own
            .get(pod)
            .is_some_and(|own| own.sandbox() == Some(sandbox));
        if is_its {
            self.own.remove(pod);
            let links = self.by_pod.get(pod).into_iter().flatten();
            self.touched.extend(links.cloned());
        }
        is_its
    }

    /// A pod that is elsewhere by now, with the other pods of its Links.
    pub fn of_moved(&self, pod: &PodKey) -> BTreeSet<PodKey> {
        let is_elsewhere = |end: &KnownEnd| end.place.is_some() && !end.is_on(&self.node);
        let links = self.wanted(pod).filter(|(_, end, _)| is_elsewhere(end));
        links.flat_map(|(link, ..)| link.pods().cloned()).collect()
    }

    /// The VNIs that the controller has given to links. From now on this node may have devices of
    /// them.
    pub fn claim(&mut self, claims: &[VniClaim]) -> BTreeMap<LinkId, VniGrant> {
        let mut grant = |claim: &VniClaim| {
            let link = self.by_key.get(self.by_id.get(&claim.link)?)?;
            let vni = link.vni.filter(|_| !link.is_ending)?;
            self.held.insert(vni, claim.link);
            Some(VniGrant::Granted(vni))
        };
        let grants = claims.iter().map(|claim| {
            let grant = grant(claim).unwrap_or(VniGrant::NotDeclared);
            (claim.link, grant)
        });
        grants.collect()
    }

    /// This node has no devices of these VNIs.
    pub fn release(&mut self, vnis: &BTreeSet<Vni>) {
        for vni in vnis {
            if let Some(link) = self.held.remove(vni) {
                self.touch(link);
            }
        }
    }

    /// The VNIs of which this node may have devices.
    pub fn held(&self) -> &BTreeMap<Vni, LinkId> {
        &self.held
    }

    /// Whether this node may have a tunnel of a Link.
    fn holds(&self, link: &KnownLink) -> bool {
        let holder = link.vni.and_then(|vni| self.held.get(&vni));
        holder == Some(&link.id)
    }
}

fn kind(kind: LinkKind) -> Kind {
    match kind {
        LinkKind::Veth => Kind::Veth,
        LinkKind::Vxlan => Kind::Vxlan,
    }
}

#[cfg(test)]
mod tests;
