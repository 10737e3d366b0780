//! A change that takes several transactions, and what happens between two of them: claims from
//! stale facts, other sandboxes, the agent's death. A process makes the change, and stops or dies
//! after each of its transactions in turn. Without `RATCHET_LONG=1`, only after every second one:
//! one in two only reads.
#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "these are tests: a panic is how they fail"
)]

mod etcd_server;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    process::{Command, Stdio},
    sync::Arc,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use ratchet_model::{DeclaredEnd, DeclaredLink, LinkId, PodRecord, record::living_links};
use ratchet_store::{Publish, Store, StoreUrl, VniClaim, VniGrant};
use ratchet_store_contract::{block_on, helpers::*};

use etcd_server::EtcdServer;

/// What the child process needs to know.
const URL: &str = "RATCHET_PARTS_URL";
const CHANGE: &str = "RATCHET_PARTS_CHANGE";

/// More than one transaction holds.
const MANY: usize = 120;

/// A change of the pod `hub`'s record.
#[derive(Clone)]
enum Change {
    Remove,
    Publish(Box<PodRecord>),
}

/// Not a test: makes a change in a process that the tests below stop and kill.
#[test]
fn child_process() {
    let (Ok(url), Ok(change)) = (env::var(URL), env::var(CHANGE)) else {
        return;
    };
    let url: StoreUrl = url.parse().unwrap();
    block_on(async {
        let store = open(&url).await;
        match &change[..] {
            "" => remove_pod(&*store, "hub").await,
            record => drop(
                store
                    .publish(&serde_json::from_str(record).unwrap(), Publish::Again)
                    .await
                    .unwrap(),
            ),
        }
    });
}

/// Pods, and what the hub's change must not touch.
struct Scene {
    server: EtcdServer,
    store: Arc<dyn Store>,
    /// The living pods, with the hub.
    records: Vec<PodRecord>,
    /// The links with a VNI before the change.
    links: Vec<DeclaredLink>,
}

/// The n-th of many links between two pods.
fn nth(pod: &str, peer: &str, n: usize) -> DeclaredLink {
    let end = |pod: &str| DeclaredEnd::bare(key(pod), format!("eth{n}").parse().unwrap());
    DeclaredLink::new(end(pod), end(peer))
}

fn declaring(name: &str, links: Vec<DeclaredLink>) -> PodRecord {
    PodRecord {
        links,
        ..record(name, &[])
    }
}

fn peers() -> Vec<String> {
    (0..MANY).map(|n| format!("peer{n}")).collect()
}

/// Hubs with many links of different kinds. Each has the living pod `friend`, whose record and link
/// with the hub stay.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The hub declares links with many gone pods.
    ManyPeers,
    /// It declares many with one gone pod, and its record is removed with that pod's.
    OnePeer,
    /// The same, but its record is kept because of another pod.
    Kept,
    /// Many gone pods declare one link each.
    Declarers,
    /// One gone pod declares many, and is kept because of another pod.
    KeptDeclarer,
    /// Both declare them.
    Both,
}

const KINDS: [Kind; 6] = [
    Kind::ManyPeers,
    Kind::OnePeer,
    Kind::Kept,
    Kind::Declarers,
    Kind::KeptDeclarer,
    Kind::Both,
];

impl Kind {
    /// The records, in the order of publication. The pods after the hub are removed before the
    /// change. The hub is on its own node.
    fn records(self) -> Vec<PodRecord> {
        let mut records = self.records_on_one_node();
        for location in records
            .iter_mut()
            .filter(|record| record.pod == key("hub"))
            .flat_map(|hub| &mut hub.location)
        {
            location.node = "node2".parse().unwrap();
        }
        records
    }

    fn records_on_one_node(self) -> Vec<PodRecord> {
        let many = |pod: &str, peer: &str| (0..MANY).map(|n| nth(pod, peer, n)).collect::<Vec<_>>();
        let friend = record("friend", &[]);
        let with_friend = |name: &str, mut links: Vec<DeclaredLink>| {
            links.insert(links.len() / 2, link(name, "friend"));
            declaring(name, links)
        };
        let names = peers();
        let one_each = || names.iter().map(|name| link("hub", name)).collect();
        match self {
            Kind::ManyPeers => vec![friend, declaring("hub", one_each())],
            Kind::OnePeer => vec![friend, declaring("hub", many("hub", "peer"))],
            Kind::Kept => vec![friend, with_friend("hub", many("hub", "peer"))],
            Kind::Declarers => {
                let declarers = names.iter().map(|name| record(name, &["hub"]));
                [friend, record("hub", &[])]
                    .into_iter()
                    .chain(declarers)
                    .collect()
            }
            Kind::KeptDeclarer => vec![
                friend,
                record("hub", &[]),
                with_friend("peer", many("peer", "hub")),
            ],
            Kind::Both => {
                vec![
                    friend,
                    declaring("hub", many("hub", "peer")),
                    declaring("peer", many("peer", "hub")),
                ]
            }
        }
    }
}

impl Scene {
    async fn new(server: EtcdServer) -> Self {
        let store = open(&server.url()).await;
        Self {
            server,
            store,
            records: Vec::new(),
            links: Vec::new(),
        }
    }

    /// Publishes pods, claims VNIs for their links, and removes some pods.
    async fn set(&mut self, kind: Kind) {
        self.records = kind.records();
        let mut links = BTreeMap::new();
        for record in &self.records {
            publish(&*self.store, record).await;
            links.extend(record.links.iter().map(|link| (link.id(), link.clone())));
        }
        self.links = links.into_values().collect();
        self.claim().await;
        for record in self
            .records
            .iter()
            .filter(|record| !["friend", "hub"].contains(&record.pod.name()))
        {
            remove_pod(&*self.store, record.pod.name()).await;
        }
    }

    /// Claims all links, as an agent does that has not read for a while.
    async fn claim(&self) -> BTreeMap<LinkId, VniGrant> {
        claim_all(
            &*self.store,
            &self.links.iter().map(VniClaim::new).collect::<Vec<_>>(),
        )
        .await
    }

    /// Makes the change in a process that is stopped or killed at its n-th point. Returns whether
    /// it has reached that point.
    async fn change(
        &self,
        change: &Change,
        n: usize,
        stop: bool,
        meanwhile: impl AsyncFnOnce(&Self),
    ) -> bool {
        let script = self.server.directory().join("script");
        fs::write(&script, format!("{n}{}\n", if stop { " stop" } else { "" })).unwrap();
        #[expect(
            clippy::zombie_processes,
            reason = "waitpid waits for it, since that tells of a stop, too"
        )]
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_process"])
            .env(URL, self.server.url().to_string())
            .env(
                CHANGE,
                match change {
                    Change::Remove => String::new(),
                    Change::Publish(record) => serde_json::to_string(record).unwrap(),
                },
            )
            .env("RATCHET_FAILPOINT_SCRIPT", &script)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap() {
            WaitStatus::Stopped(..) => {
                meanwhile(self).await;
                kill(pid, Signal::SIGCONT).unwrap();
                assert!(
                    matches!(waitpid(pid, None).unwrap(), WaitStatus::Exited(_, 0)),
                    "the change has failed"
                );
                true
            }
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => true,
            status => {
                assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
                false
            }
        }
    }

    /// Checks that every link with a VNI is declared and has a living pod, and that no other VNI is
    /// in use.
    async fn assert_order(&self, story: &str) {
        let pods: BTreeSet<_> = self
            .records
            .iter()
            .map(|record| record.pod.clone())
            .collect();
        let facts = self.store.read(&pods).await.unwrap();
        let living: BTreeSet<String> = living_links(&facts.records)
            .into_keys()
            .map(|link| link.to_string())
            .collect();
        let keys = self.server.keys();
        let numbered: BTreeSet<String> = keys
            .iter()
            .filter_map(|key| key.strip_prefix("/ratchet/links/"))
            .map(str::to_owned)
            .collect();
        let stale: Vec<_> = numbered.difference(&living).collect();
        assert!(
            stale.is_empty(),
            "{story}: {} VNIs are in use without a link",
            stale.len()
        );
        assert!(
            facts
                .records
                .values()
                .all(|record| record.location.as_ref().is_none_or(|at| !at.leaving)),
            "{story}"
        );
        assert_eq!(facts.records[&key("friend")], self.records[0], "{story}");
        let with_friend = self
            .links
            .iter()
            .filter(|link| link.remote.pod == key("friend"));
        assert!(
            with_friend
                .into_iter()
                .all(|link| numbered.contains(&link.id().to_string())),
            "{story}"
        );
    }

    /// Removes all pods. Nothing may be left.
    async fn clear(&self, story: &str) {
        for node in ["node1", "node2"] {
            self.store
                .remove_node(&node.parse().unwrap(), FORGET)
                .await
                .unwrap();
        }
        assert_eq!(self.server.keys(), [""; 0], "{story}");
    }
}

/// Stops, or kills, the change after each of its points in turn.
async fn at_each_point(
    kinds: &[Kind],
    change: impl Fn(Kind) -> Change,
    stop: bool,
    meanwhile: impl AsyncFn(&Scene),
    finish: impl AsyncFn(&Scene),
) {
    let step = if env::var("RATCHET_LONG").is_ok() {
        1
    } else {
        2
    };
    let mut scene = Scene::new(EtcdServer::start()).await;
    for kind in kinds {
        for point in (1..).step_by(step) {
            let story = format!("{kind:?}, point {point}");
            scene.set(*kind).await;
            let came_so_far = scene.change(&change(*kind), point, stop, &meanwhile).await;
            if came_so_far {
                finish(&scene).await;
            }
            scene.assert_order(&story).await;
            scene.clear(&story).await;
            if !came_so_far {
                println!("{kind:?}: fewer than {point} points");
                assert!(point > 8, "{story}: this takes one transaction");
                break;
            }
        }
    }
}

async fn nothing(_scene: &Scene) {}

async fn claims(scene: &Scene) {
    scene.claim().await;
}

#[test]
fn claims_between_the_parts_of_a_removal_leave_nothing() {
    block_on(at_each_point(
        &KINDS,
        |_| Change::Remove,
        true,
        claims,
        nothing,
    ));
}

#[test]
fn what_a_dead_agent_has_left_of_a_removal_is_done_by_the_next() {
    let again = async |scene: &Scene| {
        claims(scene).await;
        remove_pod(&*scene.store, "hub").await;
    };
    block_on(at_each_point(
        &KINDS,
        |_| Change::Remove,
        false,
        nothing,
        again,
    ));
}

#[test]
fn what_a_dead_agent_has_left_of_a_removal_is_done_by_the_agent_that_removes_its_node() {
    let gives_up = async |scene: &Scene| {
        claims(scene).await;
        scene
            .store
            .remove_node(&"node2".parse().unwrap(), FORGET)
            .await
            .unwrap();
    };
    block_on(at_each_point(
        &[Kind::OnePeer, Kind::KeptDeclarer],
        |_| Change::Remove,
        false,
        nothing,
        gives_up,
    ));
}

/// The hub keeps only the link with its friend.
fn fewer(_kind: Kind) -> Change {
    let record = declaring("hub", vec![link("hub", "friend")]);
    Change::Publish(Box::new(record))
}

/// The scenes in which only the hub declares the links.
const OWN: [Kind; 3] = [Kind::ManyPeers, Kind::OnePeer, Kind::Kept];

#[test]
fn claims_between_the_parts_of_a_changed_declaration_leave_nothing() {
    block_on(at_each_point(&OWN, fewer, true, claims, nothing));
}

#[test]
fn what_a_dead_agent_has_left_of_a_changed_declaration_is_done_by_the_next() {
    let again = async |scene: &Scene| {
        let Change::Publish(record) = fewer(Kind::Kept) else {
            unreachable!()
        };
        claims(scene).await;
        scene.store.publish(&record, Publish::Again).await.unwrap();
    };
    block_on(at_each_point(&OWN, fewer, false, nothing, again));
}

/// The pod's next sandbox starts, with other links, while the old one is being removed.
#[test]
fn a_new_sandbox_between_the_parts_of_a_removal() {
    let next = PodRecord {
        links: vec![link("hub", "friend"), link("hub", "other")],
        ..record_in("hub", "hub-2", 1, &[])
    };
    let comes = async |scene: &Scene| {
        claims(scene).await;
        publish(&*scene.store, &next).await;
        claims(scene).await;
    };
    let stays = async |scene: &Scene| {
        let found = &read(&*scene.store, &["hub"]).await["hub"];
        assert!(
            found.created == 1 || found.created == 101,
            "{}",
            found.created
        );
        assert_eq!(
            *found,
            PodRecord {
                created: found.created,
                ..next.clone()
            }
        );
    };
    block_on(at_each_point(
        &[Kind::OnePeer, Kind::Kept, Kind::Both],
        |_| Change::Remove,
        true,
        comes,
        stays,
    ));
}

/// A pod at the other end comes back, with or without declarations of the links, claims, and
/// changes its declarations.
#[test]
fn a_peer_that_comes_between_the_parts_of_a_removal() {
    let comes = async |scene: &Scene| {
        publish(&*scene.store, &declaring("peer", Vec::new())).await;
        claims(scene).await;
        let half = (0..MANY / 2).map(|n| nth("peer", "hub", n)).collect();
        scene
            .store
            .publish(&declaring("peer", half), Publish::Again)
            .await
            .unwrap();
        claims(scene).await;
        scene
            .store
            .publish(&declaring("peer", Vec::new()), Publish::Again)
            .await
            .unwrap();
    };
    block_on(at_each_point(
        &[Kind::OnePeer, Kind::Kept],
        |_| Change::Remove,
        true,
        comes,
        nothing,
    ));
}
