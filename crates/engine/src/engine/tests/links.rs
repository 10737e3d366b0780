//! A store that says what pods declare, as the Kubernetes API does with its Links.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use async_trait::async_trait;
use ratchet_model::{
    DeclaredEnd, DeclaredLink, End, Identity, LinkId, NodeName, SandboxId,
    declaration::Declaration, device::LinkKind, record::Facts,
};
use ratchet_store::{
    EndReport, NodeRemoval, Published, RemovalReason, Store, StoreError, StoreScope, Underlay,
    VniClaim, VniGrant, Watch,
};

use super::*;

/// What tests and store share.
#[derive(Default)]
struct Said {
    declared: Mutex<BTreeMap<PodKey, Declaration>>,
    reports: Mutex<Vec<EndReport>>,
    underlay: Mutex<Option<Underlay>>,
}

impl Said {
    /// From now on a pod declares these links.
    fn declare(&self, pod: &str, links: &str) {
        let annotations = [("ratchet.dev/links".to_owned(), links.to_owned())].into();
        let declaration = declare(&key(pod), &Texts::new(), &annotations);
        let declaration = declaration.unwrap().unwrap();
        self.declared.lock().unwrap().insert(key(pod), declaration);
    }

    /// From now on this is the pod of a slot that has a link with the pod `m`.
    fn set_slot(&self, pod: &str) {
        let end =
            |pod: &str, interface: &str| DeclaredEnd::bare(key(pod), interface.parse().unwrap());
        let declares = |local: DeclaredEnd, remote, end| {
            let (pod, link) = (local.pod.clone(), LinkId::of_object("default", "t-1"));
            let link = DeclaredLink {
                identity: Some(Identity { link, local: end }),
                ..DeclaredLink::new(local, remote)
            };
            (pod.clone(), Declaration::of_store(pod, vec![link]))
        };
        let (slot, m) = (end(pod, "eth1"), end("m", "to-slot"));
        *self.declared.lock().unwrap() = [
            declares(slot.clone(), m.clone(), End::A),
            declares(m, slot, End::Z),
        ]
        .into();
    }

    /// The ends that the engine told of last: pod, whether it is up, and which device it is.
    fn ends(&self) -> Vec<(String, bool, Option<LinkKind>)> {
        let reports = self.reports.lock().unwrap();
        let end = |end: &EndReport| (end.pod.name().to_owned(), end.reason.is_none(), end.kind);
        reports.iter().map(end).collect()
    }
}

struct Declaring(Arc<dyn Store>, Arc<Said>);

#[async_trait]
impl Store for Declaring {
    fn declares(&self) -> bool {
        true
    }

    async fn publish_underlay(&self, _: &NodeName, underlay: Underlay) -> Result<(), StoreError> {
        *self.1.underlay.lock().unwrap() = Some(underlay);
        Ok(())
    }

    fn report(&self, ends: Vec<EndReport>) {
        *self.1.reports.lock().unwrap() = ends;
    }

    async fn read(&self, own: &BTreeSet<PodKey>) -> Result<Facts, StoreError> {
        let said = self.1.declared.lock().unwrap().clone();
        let nothing = |pod: &PodKey| Declaration {
            pod: pod.clone(),
            links: Vec::new(),
            accept: None,
        };
        let of = |pod: &PodKey| said.get(pod).cloned().unwrap_or_else(|| nothing(pod));
        let declared = own.iter().map(|pod| (pod.clone(), of(pod))).collect();
        Ok(Facts {
            declared: Some(declared),
            ..self.0.read(own).await?
        })
    }

    fn scope(&self) -> StoreScope {
        self.0.scope()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    async fn publish(&self, record: &PodRecord, how: Publish) -> Result<Published, StoreError> {
        self.0.publish(record, how).await
    }

    async fn remove_pod(&self, pod: &PodKey, sandbox: &SandboxId) -> Result<(), StoreError> {
        self.0.remove_pod(pod, sandbox).await
    }

    async fn located_on(&self, node: &NodeName) -> Result<Vec<PodRecord>, StoreError> {
        self.0.located_on(node).await
    }

    async fn claim_vnis(
        &self,
        node: &NodeName,
        claims: &[VniClaim],
    ) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
        self.0.claim_vnis(node, claims).await
    }

    async fn release_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError> {
        self.0.release_vnis(node, vnis).await
    }

    async fn held_vnis(&self, node: &NodeName) -> Result<BTreeMap<Vni, LinkId>, StoreError> {
        self.0.held_vnis(node).await
    }

    async fn block_vnis(&self, node: &NodeName, vnis: &BTreeSet<Vni>) -> Result<(), StoreError> {
        self.0.block_vnis(node, vnis).await
    }

    async fn register_node(
        &self,
        node: &NodeName,
        timeout: Option<Duration>,
    ) -> Result<(), StoreError> {
        self.0.register_node(node, timeout).await
    }

    async fn deregister_node(&self, node: &NodeName) -> Result<(), StoreError> {
        self.0.deregister_node(node).await
    }

    async fn lost_nodes(&self) -> Result<BTreeSet<NodeName>, StoreError> {
        self.0.lost_nodes().await
    }

    async fn remove_node(
        &self,
        node: &NodeName,
        reason: RemovalReason,
    ) -> Result<NodeRemoval, StoreError> {
        self.0.remove_node(node, reason).await
    }

    async fn watch(&self) -> Result<Box<dyn Watch>, StoreError> {
        self.0.watch().await
    }
}

/// An engine that has started with such a store.
fn start(node: &Node, said: &Arc<Said>) -> Engine {
    let (commands, _inbox) = mpsc::channel();
    let said = said.clone();
    let setup = Setup {
        open_store: Arc::new(move |settings| {
            let said = said.clone();
            Box::pin(async move {
                let store: Arc<dyn Store> = Arc::new(Declaring(open_store(settings).await?, said));
                Ok(store)
            })
        }),
        ..node.setup(&commands)
    };
    let mut engine = Engine::new(setup).unwrap();
    engine.start();
    engine.work();
    engine
}

/// The store has news of these pods.
fn news(engine: &mut Engine, pods: &[&str]) {
    engine.refresh_and_reconcile(pods.iter().map(|pod| key(pod)).collect());
    engine.tell();
    engine.work();
}

#[test]
fn links_of_the_store_are_made_told_of_and_removed() {
    on_a_node(|node| {
        let said = Arc::new(Said::default());
        let mut engine = start(node, &said);
        let vtep = said
            .underlay
            .lock()
            .unwrap()
            .map(|underlay| underlay.vtep.to_string());
        assert_eq!(vtep.as_deref(), Some("10.0.0.1"), "before there is a pod");
        said.declare("a", "[{interface: to-b, peer: b/to-a}]");
        let [a, b] = [Netns::new("a"), Netns::new("b")];
        add(&mut engine, "a", &a, &[]).unwrap();
        engine.work();
        assert_eq!(said.ends(), [("a".to_owned(), false, None)]);
        add(&mut engine, "b", &b, &[]).unwrap();
        engine.work();
        assert_eq!([a.devices(), b.devices()], [["to-b"], ["to-a"]]);
        let veth = Some(LinkKind::Veth);
        assert_eq!(
            said.ends(),
            [("a".to_owned(), true, veth), ("b".to_owned(), true, veth)]
        );

        said.declare("a", "[]");
        news(&mut engine, &["a"]);
        assert_eq!([a.devices(), b.devices()], [[""; 0], [""; 0]]);
        assert_eq!(said.ends(), []);
        del(&mut engine, "a");
        del(&mut engine, "b");
    });
}

#[test]
fn a_link_that_cannot_be_made_fails_no_add() {
    on_a_node(|node| {
        let said = Arc::new(Said::default());
        let mut engine = start(node, &said);
        let [a, b] = [Netns::new("a"), Netns::new("b")];
        ip(&format!(
            "-n {} link add to-b type veth peer name mine",
            a.name()
        ));
        said.declare("a", "[{interface: to-b, peer: b/to-a}]");
        add(&mut engine, "b", &b, &[]).unwrap();
        let attached = add(&mut engine, "a", &a, &[]).unwrap();
        assert_eq!(attached.pending.len(), 1, "{:?}", attached.pending);
        engine.work();
        let ends = said.ends();
        assert!(ends.iter().all(|(_, is_up, _)| !is_up), "{ends:?}");
        assert_eq!(ends.len(), 2);
        del(&mut engine, "a");
        del(&mut engine, "b");
    });
}

#[test]
fn an_agent_that_starts_knows_the_links_from_disk() {
    on_a_node(|node| {
        let said = Arc::new(Said::default());
        let mut engine = start(node, &said);
        said.declare("a", "[{interface: to-b, peer: b/to-a}]");
        let [a, b] = [Netns::new("a"), Netns::new("b")];
        add(&mut engine, "a", &a, &[]).unwrap();
        add(&mut engine, "b", &b, &[]).unwrap();
        drop(engine);
        let setup = Setup {
            open_store: Arc::new(|_| {
                let text = "the API is away".to_owned();
                Box::pin(async { Err(StoreError::Unavailable(text)) })
            }),
            ..node.setup(&mpsc::channel().0)
        };
        let mut engine = Engine::new(setup).unwrap();
        engine.start();
        engine.work();
        assert_eq!([a.devices(), b.devices()], [["to-b"], ["to-a"]]);
        // A DEL leaves the survivor its interface.
        del(&mut engine, "b");
        assert_eq!(a.devices(), ["to-b"]);
        drop(engine);
        let mut engine = start(node, &said);
        del(&mut engine, "a");
    });
}

#[test]
fn a_slots_pod_is_replaced_and_the_other_ends_interface_stays() {
    for restarts in [false, true] {
        on_a_node(move |node| {
            let said = Arc::new(Said::default());
            said.set_slot("a-old");
            let mut engine = start(node, &said);
            let [m, old, new, last] = ["m", "old", "new", "last"].map(Netns::new);
            add(&mut engine, "m", &m, &[]).unwrap();
            add(&mut engine, "a-old", &old, &[]).unwrap();
            assert_eq!([m.devices(), old.devices()], [["to-slot"], ["eth1"]]);
            // Index and address.
            let stays = || {
                let line = ip(&format!("-n {} -o link show to-slot", m.name()));
                let mac = line.split("link/ether ").nth(1).unwrap()[..17].to_owned();
                (number(&line).to_owned(), mac)
            };
            let before = stays();
            let replace = |engine: &mut Engine, by: &str, pods: &[&str]| {
                said.set_slot(by);
                if restarts {
                    *engine = start(node, &said);
                    assert_eq!(stays(), before, "by {by}");
                }
                // This store only knows the peers once the pod is published.
                for _ in 0..2 {
                    news(engine, pods);
                }
                assert_eq!(stays(), before, "restarts: {restarts}, by {by}");
            };

            // The names sort otherwise with the new pod.
            add(&mut engine, "z-new", &new, &[]).unwrap();
            assert_eq!(new.devices(), [""; 0]);
            replace(&mut engine, "z-new", &["a-old", "m", "z-new"]);
            assert_eq!(old.devices(), [""; 0]);
            assert_eq!(new.devices(), ["eth1"]);
            let mut ends = said.ends();
            ends.sort_by(|one, other| one.0.cmp(&other.0));
            let veth = Some(LinkKind::Veth);
            let both = ["m", "z-new"].map(|pod| (pod.to_owned(), true, veth));
            assert_eq!(ends, both);
            del(&mut engine, "a-old");
            assert_eq!(new.devices(), ["eth1"], "what is gone has no part in it");

            // The next one is on another node, and so is the one after it.
            for far in ["far-1", "far-2"] {
                publish_far(node, far);
                replace(&mut engine, far, &["m", "z-new", "far-1", "far-2"]);
                assert_eq!(new.devices(), [""; 0]);
                let vxlan = Some(LinkKind::Vxlan);
                assert_eq!(said.ends(), [("m".to_owned(), true, vxlan)]);
            }
            del(&mut engine, "z-new");

            // It goes before there is another one, and that one comes before it has the link.
            replace(&mut engine, "gone", &["m", "far-2"]);
            add(&mut engine, "last", &last, &[]).unwrap();
            replace(&mut engine, "last", &["m", "last"]);
            assert_eq!([m.devices(), last.devices()], [["to-slot"], ["eth1"]]);
            del(&mut engine, "m");
            del(&mut engine, "last");
            assert_eq!(devices(&ip("-o link show")), [""; 0]);
        });
    }
}
