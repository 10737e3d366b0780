//! An API server in memory, as far as the controller uses one: resourceVersions, finalizers,
//! generations, and the rules of the CRDs that matter here.

use std::sync::Arc;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
    jiff::{SignedDuration, Timestamp},
};
use ratchet_api::{
    EndState, Link, LinkEndStatus, LinkGrant, LinkGrantFrom, LinkGrantSpec, LinkGrantTo,
    LinkStatus, NodeUnderlay, NodeUnderlaySpec, Topology, TopologySpec, VNIBlock, meshnet,
};
use ratchet_controller::{
    Change, Config, Key, LinkChange, Memory, Plan, Pod, PodState, Snapshot, plan,
};
use ratchet_model::{PodKey, Quotas};
use serde_json::{Value, json};

/// The API, with all its objects, and a clock.
pub struct Fake {
    pub all: Snapshot,
    pub now: Timestamp,
    pub config: Config,
    version: u64,
}

/// How far a plan is written.
#[derive(Debug, Default)]
pub struct Progress {
    done: usize,
    /// The blocks that the API has refused.
    refused: Vec<String>,
}

/// A key from `namespace/name`.
pub fn key(text: &str) -> Key {
    let (namespace, name) = text.split_once('/').unwrap();
    Key {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn pod_key(text: &str) -> PodKey {
    text.parse().unwrap()
}

impl Fake {
    /// An API with the nodes n1, n2 and n3 and their underlays.
    pub fn new() -> Self {
        let mut fake = Self {
            all: Snapshot::default(),
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            config: Config::default(),
            version: 0,
        };
        for number in 1..=3 {
            fake.add_node(&format!("n{number}"), &format!("10.0.0.{number}"));
        }
        fake
    }

    fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn metadata(&mut self, key: &Key) -> ObjectMeta {
        let version = self.next();
        ObjectMeta {
            namespace: Some(key.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(key.name.clone()),
            uid: Some(format!("uid-{version}")),
            resource_version: Some(version.to_string()),
            generation: Some(1),
            creation_timestamp: Some(Time(self.now)),
            ..ObjectMeta::default()
        }
    }

    pub fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    pub fn add_node(&mut self, node: &str, vtep: &str) {
        let addresses = [vtep.parse().unwrap()].into();
        self.all.nodes.insert(node.to_owned(), Arc::new(addresses));
        let spec = NodeUnderlaySpec {
            vtep: vtep.to_owned(),
            mtu: 1450,
            port: 4789,
            version: "1".to_owned(),
        };
        let underlay = Arc::new(NodeUnderlay::new(node, spec));
        self.all.underlays.insert(node.to_owned(), underlay);
    }

    /// A running pod without labels. An empty node: it is not scheduled.
    pub fn pod(&mut self, name: &str, node: &str) {
        self.pod_with(name, node, &json!({}));
    }

    /// A running pod with some metadata.
    pub fn pod_with(&mut self, name: &str, node: &str, with: &Value) {
        let state = PodState {
            node: Some(node.to_owned()),
            phase: "Running".to_owned(),
            ..PodState::default()
        };
        self.pod_in(name, with, state);
    }

    pub fn pod_in(&mut self, name: &str, with: &Value, state: PodState) {
        let own = self.metadata(&key(name));
        let mut metadata: ObjectMeta = serde_json::from_value(with.clone()).unwrap();
        metadata.namespace = own.namespace;
        metadata.name = own.name;
        metadata.uid = own.uid;
        metadata.creation_timestamp = own.creation_timestamp;
        match Pod::read(metadata, state, &Quotas::default()) {
            Some(pod) => self.all.pods.insert(pod_key(name), Arc::new(pod)),
            None => self.all.pods.remove(&pod_key(name)),
        };
    }

    pub fn delete_pod(&mut self, name: &str) {
        self.all.pods.remove(&pod_key(name));
    }

    pub fn change_pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        let pod = self.all.pods.get_mut(&pod_key(name)).unwrap();
        change(Arc::make_mut(pod));
    }

    /// A pod that declares links by the annotation.
    pub fn annotated(&mut self, name: &str, node: &str, links: &str) {
        let with = json!({"annotations": {"ratchet.dev/links": links}});
        self.pod_with(name, node, &with);
    }

    /// Creates a Topology, or changes its spec.
    pub fn topology(&mut self, name: &str, spec: &Value) {
        let spec: TopologySpec = serde_json::from_value(spec.clone()).unwrap();
        let key = key(name);
        let mut topology = Topology::new(&key.name, spec);
        topology.metadata = match self.all.topologies.get(&key) {
            None => self.metadata(&key),
            Some(present) => ObjectMeta {
                generation: present.metadata.generation.map(|g| g + 1),
                ..present.metadata.clone()
            },
        };
        self.all.topologies.insert(key, Arc::new(topology));
    }

    /// Creates a Topology of meshnet, or changes its links.
    pub fn meshnet(&mut self, name: &str, links: &Value) {
        let key = key(name);
        let mut topology = match self.all.meshnet.get(&key) {
            Some(present) => (**present).clone(),
            None => meshnet::Topology {
                metadata: self.metadata(&key),
                ..meshnet::Topology::default()
            },
        };
        topology.spec.links = serde_json::from_value(links.clone()).unwrap();
        topology.metadata.resource_version = Some(self.next().to_string());
        self.all.meshnet.insert(key, Arc::new(topology));
    }

    pub fn grant(&mut self, name: &str, from: &str, selector: Option<Value>) {
        let key = key(name);
        let spec = LinkGrantSpec {
            from: vec![LinkGrantFrom {
                namespace: from.to_owned(),
            }],
            to: vec![LinkGrantTo {
                pod_selector: selector.map(|selector| serde_json::from_value(selector).unwrap()),
            }],
        };
        let mut grant = LinkGrant::new(&key.name, spec);
        grant.metadata = self.metadata(&key);
        self.all.grants.insert(key, Arc::new(grant));
    }

    /// Plans and writes until there is nothing to write.
    #[track_caller]
    pub fn settle(&mut self, memory: &mut Memory) {
        for _ in 0..20 {
            let plan = plan(&self.all, &self.config, memory, self.now);
            if plan.is_empty() && plan.orphans.is_empty() {
                return;
            }
            for orphan in plan.orphans.clone() {
                memory.confirm(orphan);
            }
            self.write(&plan, usize::MAX);
        }
        panic!("the controller does not come to rest");
    }

    /// Writes the first steps of a plan: a controller that ends in the middle.
    pub fn write(&mut self, plan: &Plan, steps: usize) {
        self.go_on(plan, &mut Progress::default(), steps);
    }

    /// Writes the next steps of a plan, as the controller does: a Link whose block is refused is
    /// left out.
    pub fn go_on(&mut self, plan: &Plan, progress: &mut Progress, steps: usize) {
        let first = progress.done;
        progress.done = first.saturating_add(steps);
        let mut number = 0;
        let mut is_due = || {
            number += 1;
            (first..progress.done).contains(&(number - 1))
        };
        for block in &plan.blocks {
            if is_due() && !self.write_block(block) {
                progress.refused.push(block.metadata.name.clone().unwrap());
            }
        }
        for change in &plan.links {
            let waits = change.after.map(|number| number.to_string());
            let may = !waits.is_some_and(|number| progress.refused.contains(&number));
            if is_due() && may {
                self.write_link(change);
            }
        }
        for (key, condition) in &plan.accepted {
            if let Some(link) = self.all.links.get(key).filter(|_| is_due()) {
                let mut link = (**link).clone();
                let status = link.status.get_or_insert_default();
                status.conditions = vec![condition.clone()];
                self.store(link);
            }
        }
        for (key, status) in &plan.topologies {
            if let Some(topology) = self.all.topologies.get_mut(key).filter(|_| is_due()) {
                Arc::make_mut(topology).status = Some(status.clone());
            }
        }
        for (key, status) in &plan.meshnet {
            let version = self.next().to_string();
            if let Some(topology) = self.all.meshnet.get_mut(key).filter(|_| is_due()) {
                let topology = Arc::make_mut(topology);
                topology.metadata.resource_version = Some(version);
                topology.status = status.clone();
            }
        }
    }

    fn write_block(&mut self, block: &VNIBlock) -> bool {
        let number: u32 = block.metadata.name.as_ref().unwrap().parse().unwrap();
        let present = self.all.blocks.get(&number);
        let version = present.and_then(|block| block.metadata.resource_version.clone());
        if block.metadata.resource_version != version {
            return false;
        }
        let mut block = block.clone();
        block.metadata.resource_version = Some(self.next().to_string());
        self.all.blocks.insert(number, Arc::new(block));
        true
    }

    fn write_link(&mut self, change: &LinkChange) {
        match &change.what {
            Change::Create(link) => {
                let key = Key::of(&link.metadata);
                if self.all.links.contains_key(&key) {
                    return;
                }
                let mut link = (**link).clone();
                link.metadata = ObjectMeta {
                    labels: link.metadata.labels.clone(),
                    annotations: link.metadata.annotations.clone(),
                    finalizers: link.metadata.finalizers.clone(),
                    owner_references: link.metadata.owner_references.clone(),
                    ..self.metadata(&key)
                };
                check(&link);
                self.all.links.insert(key, Arc::new(link));
            }
            Change::Replace(link) => self.replace(link),
            Change::Delete { key, uid } => self.delete(key, uid.as_deref()),
        }
    }

    fn replace(&mut self, link: &Link) {
        let key = Key::of(&link.metadata);
        let Some(present) = self.all.links.get(&key).cloned() else {
            return;
        };
        if present.metadata.resource_version != link.metadata.resource_version {
            return;
        }
        let is_changed = present.spec != link.spec;
        if is_changed {
            check(link);
            assert!(present.spec.vni.is_none() || present.spec.vni == link.spec.vni);
        }
        let mut link = link.clone();
        link.status.clone_from(&present.status);
        let generation = present.metadata.generation.unwrap();
        link.metadata.generation = Some(generation + i64::from(is_changed));
        let is_leaving = link.metadata.deletion_timestamp.is_some();
        if is_leaving && link.metadata.finalizers.iter().flatten().next().is_none() {
            self.all.links.remove(&key);
            return;
        }
        self.store(link);
    }

    pub fn delete(&mut self, key: &Key, uid: Option<&str>) {
        let Some(present) = self.all.links.get(key).cloned() else {
            return;
        };
        if uid.is_some() && present.metadata.uid.as_deref() != uid {
            return;
        }
        if present
            .metadata
            .finalizers
            .iter()
            .flatten()
            .next()
            .is_none()
        {
            self.all.links.remove(key);
        } else if present.metadata.deletion_timestamp.is_none() {
            let mut link = (*present).clone();
            link.metadata.deletion_timestamp = Some(Time(self.now));
            link.metadata.generation = link.metadata.generation.map(|g| g + 1);
            self.store(link);
        }
    }

    fn store(&mut self, mut link: Link) {
        link.metadata.resource_version = Some(self.next().to_string());
        self.all
            .links
            .insert(Key::of(&link.metadata), Arc::new(link));
    }

    /// The one Link whose name begins like this.
    #[track_caller]
    pub fn link(&self, prefix: &str) -> Link {
        let mut found = self.all.links.iter();
        let mut found = found
            .by_ref()
            .filter(|(key, _)| key.to_string().starts_with(prefix));
        let link = found.next();
        let Some((_, link)) = link else {
            panic!("no Link {prefix}: {:#?}", self.all.links.keys());
        };
        assert!(found.next().is_none(), "several Links {prefix}");
        (**link).clone()
    }

    /// Each agent does what the Links of its node say: up, or removed.
    pub fn agents(&mut self) {
        let links: Vec<Arc<Link>> = self.all.links.values().cloned().collect();
        for link in links {
            let is_leaving = link.metadata.deletion_timestamp.is_some();
            let state = if is_leaving {
                EndState::Removed
            } else {
                EndState::Up
            };
            self.say(&link, state);
        }
    }

    /// The agents say this of both ends of a Link.
    fn say(&mut self, link: &Link, state: EndState) {
        self.say_of(link, state, link.metadata.generation.unwrap());
    }

    /// The same of an earlier generation.
    pub fn say_of(&mut self, link: &Link, state: EndState, generation: i64) {
        let said = |end: &ratchet_api::LinkEnd| {
            Some(LinkEndStatus {
                node: end.node.clone()?,
                pod_uid: end.pod_uid.clone()?,
                sandbox: Some(format!("sandbox-of-{}", end.pod_uid.as_ref()?)),
                observed_generation: generation,
                state,
                kind: None,
                mtu: None,
                reason: None,
                message: None,
            })
        };
        let before = link.status.clone().unwrap_or_default();
        let status = LinkStatus {
            a: said(&link.spec.a).or(before.a.clone()),
            b: said(&link.spec.b).or(before.b.clone()),
            conditions: before.conditions.clone(),
        };
        if link.status.as_ref() != Some(&status) {
            let status = Some(status);
            self.store(Link {
                status,
                ..link.clone()
            });
        }
    }

    pub fn accepted(&self, prefix: &str) -> String {
        let link = self.link(prefix);
        let conditions = link.status.unwrap_or_default().conditions;
        conditions.first().map_or(String::new(), |condition| {
            format!("{}: {}", condition.reason, condition.message)
        })
    }

    /// No VNI is on two Links.
    #[track_caller]
    pub fn check_vnis(&self) {
        let mut seen = std::collections::BTreeMap::new();
        for (key, link) in &self.all.links {
            if let Some(vni) = link.spec.vni
                && let Some(other) = seen.insert(vni, key)
            {
                panic!("VNI {vni} is on {key} and on {other}");
            }
        }
    }
}

/// The rules of the CRD.
fn check(link: &Link) {
    let (a, b) = (&link.spec.a, &link.spec.b);
    let is_apart = a.node.is_some() && b.node.is_some() && a.node != b.node;
    assert!(!is_apart || link.spec.vni.is_some(), "{:?}", link.spec);
    for end in [a, b] {
        assert_eq!(end.node.is_some(), end.pod_uid.is_some());
        assert!(end.vtep.is_none() || end.node.is_some());
    }
    let owners: &[OwnerReference] = link
        .metadata
        .owner_references
        .as_deref()
        .unwrap_or_default();
    assert_eq!(owners.len(), usize::from(link.spec.topology.is_some()));
}
