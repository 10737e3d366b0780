//! The controller and a real API server: from pods, nodes' underlays and a Topology to Links.
#![allow(clippy::unwrap_used, clippy::too_many_lines)]

mod meshnet;
mod taint;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use clap::Parser;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Binding, Namespace, Node, Pod, ServiceAccount},
    events::v1::Event,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use ratchet_api::{
    EndState, Link, LinkEnd, LinkEndStatus, NodeUnderlay, Topology, TopologyStatus, VNIBlock,
};
use ratchet_api_server::{Server, create_definitions, programs};
use ratchet_controller::{Options, lead};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};
use tracing_subscriber::EnvFilter;

const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

/// A controller, as a task of this process.
struct Controller {
    task: JoinHandle<anyhow::Result<()>>,
    stop: oneshot::Sender<()>,
}

impl Controller {
    fn start(client: &Client, identity: &str, arguments: &[&str]) -> Self {
        let words = ["controller", "--namespace=default"];
        let line = Line::parse_from(words.iter().chain(arguments));
        let (stop, stopped) = oneshot::channel();
        let (client, identity) = (client.clone(), identity.to_owned());
        let task = tokio::spawn(async move {
            let stop = async { drop(stopped.await) };
            lead(client, &line.options, &identity, stop).await
        });
        Self { task, stop }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

/// Creates an object from JSON.
async fn create<K>(api: Api<K>, object: Value) -> K
where
    K: Resource + Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

fn of(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "ratchet.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    })
}

/// Asks until the answer is Ok.
async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    ask: impl Fn() -> F,
) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) if Instant::now() > end => panic!("{what}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// What a test needs of the API.
struct World {
    client: Client,
}

impl World {
    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    fn links(&self) -> Api<Link> {
        Api::namespaced(self.client.clone(), "default")
    }

    fn topologies(&self) -> Api<Topology> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn node(&self, number: u8) {
        let name = format!("n{number}");
        let address = format!("10.0.0.{number}");
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        });
        let nodes: Api<Node> = Api::all(self.client.clone());
        create(nodes.clone(), node.clone()).await;
        let status = Patch::Merge(json!({"status": node["status"]}));
        let params = PatchParams::default();
        nodes.patch_status(&name, &params, &status).await.unwrap();
        let spec = json!({
            "vtep": address, "mtu": 1450, "port": 4789, "version": "1",
        });
        let underlay = of("NodeUnderlay", &name, &spec);
        create::<NodeUnderlay>(Api::all(self.client.clone()), underlay).await;
    }

    async fn pod(&self, name: &str, annotations: &Value) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {
                "automountServiceAccountToken": false,
                "containers": [{"name": "c", "image": "i"}],
            },
        });
        create(self.pods(), pod).await;
    }

    /// What a scheduler does.
    async fn bind(&self, pod: &str, node: &str) {
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let binding: Binding = serde_json::from_value(binding).unwrap();
        let answer: Result<Value, _> = self
            .pods()
            .create_subresource("binding", pod, &PostParams::default(), &binding)
            .await;
        answer.unwrap();
    }

    async fn delete_pod(&self, pod: &str) {
        let now = DeleteParams::default().grace_period(0);
        self.pods().delete(pod, &now).await.unwrap();
    }

    async fn all_links(&self) -> Vec<Link> {
        self.links()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
    }

    async fn one_link(&self, is: impl Fn(&Link) -> bool + Copy) -> Link {
        eventually("a Link", || async move {
            let links = self.all_links().await;
            match &links[..] {
                [link] if is(link) => Ok(link.clone()),
                links => Err(format!("{links:#?}")),
            }
        })
        .await
    }

    async fn status(&self, name: &str, is: impl Fn(&TopologyStatus) -> bool + Copy) {
        eventually("the status of the Topology", || async move {
            let status = self.topologies().get(name).await.unwrap().status;
            match status {
                Some(status) if is(&status) => Ok(()),
                status => Err(format!("{status:#?}")),
            }
        })
        .await;
    }

    /// Waits for so many events of a reason.
    async fn events(&self, reason: &str, count: usize) -> Vec<Event> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        eventually(reason, || async {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let of = |event: &Event| event.reason.as_deref() == Some(reason);
            let found: Vec<Event> = all.into_iter().filter(of).collect();
            match found.len() >= count {
                true => Ok(found),
                false => Err(format!("{found:#?}")),
            }
        })
        .await
    }

    /// What the agents of both ends do.
    async fn say(&self, link: &Link, state: EndState) {
        let ends = [("a", &link.spec.a), ("b", &link.spec.b)];
        for (name, of) in ends {
            self.say_of(link, name, of, state).await;
        }
    }

    /// The same, as far as the ends have nodes and the Link is still there.
    async fn say_of_both(&self, link: &Link, state: EndState) {
        for (name, of) in [("a", &link.spec.a), ("b", &link.spec.b)] {
            let found = self
                .links()
                .get_opt(link.metadata.name.as_ref().unwrap())
                .await;
            if of.node.is_some() && found.unwrap().is_some() {
                self.say_of(link, name, of, state).await;
            }
        }
    }

    async fn say_of(&self, link: &Link, end: &str, of: &LinkEnd, state: EndState) {
        let said = LinkEndStatus {
            node: of.node.clone().unwrap(),
            pod_uid: of.pod_uid.clone().unwrap(),
            sandbox: of.pod.as_ref().map(|pod| format!("sandbox-{pod}")),
            observed_generation: link.metadata.generation.unwrap(),
            state,
            kind: None,
            mtu: None,
            reason: None,
            message: None,
        };
        let name = link.metadata.name.clone().unwrap();
        let mut object = of_link(&name);
        object["status"] = json!({end: said});
        let params = PatchParams::apply(&format!("ratchet-{end}")).force();
        let patch = Patch::Apply(&object);
        let answer = self.links().patch_status(&name, &params, &patch).await;
        match answer {
            // It has gone meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            answer => drop(answer.unwrap()),
        }
    }
}

fn kind_of(event: &Event) -> &str {
    event.regarding.as_ref().unwrap().kind.as_deref().unwrap()
}

fn of_link(name: &str) -> Value {
    json!({
        "apiVersion": "ratchet.dev/v1alpha1", "kind": "Link", "metadata": {"name": name},
    })
}

fn ring(numbers: impl Iterator<Item = u32>) -> Value {
    let link = |n| json!({"endpoints": [format!("r1:eth{n}"), format!("r2:eth{n}")]});
    json!({"links": numbers.map(link).collect::<Vec<_>>()})
}

fn log() {
    let filter = EnvFilter::new("ratchet_controller=info");
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    // Another test of this process may have done it.
    drop(log.with_test_writer().try_init());
}

/// Runs a test on a prepared server of its own; or not, where its programs may be missing.
fn in_a_world(test: impl AsyncFnOnce(World)) {
    let Some(programs) = programs() else { return };
    log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::start(&programs).await;
        test(prepared(&server).await).await;
    });
}

/// A server with our definitions and three nodes.
async fn prepared(server: &Server) -> World {
    create_definitions(&server.client).await;
    let client = server.client.clone();
    let world = World { client };
    eventually("the namespace", || async {
        let namespaces: Api<Namespace> = Api::all(world.client.clone());
        namespaces
            .get("default")
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    // Nothing but the API server runs here, so nothing else creates it.
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"},
    });
    create::<ServiceAccount>(Api::namespaced(world.client.clone(), "default"), account).await;
    for number in 1..=3 {
        world.node(number).await;
    }
    world
}

#[test]
fn the_controller_makes_links_and_two_of_them_give_no_vni_twice() {
    in_a_world(async |world| {
        let controller = Controller::start(&world.client, "one", &[]);
        life_of_a_link(&world).await;
        controller.stop().await;
        a_forged_lease(&world).await;
        two_at_once(&world).await;
    });
}

/// A Topology, its pods, their nodes; a pod that starts again; an annotation; the end.
async fn life_of_a_link(world: &World) {
    let topology = of("Topology", "ring", &ring(1..2));
    create(world.topologies(), topology).await;
    for pod in ["r1", "r2"] {
        world.pod(pod, &json!({})).await;
    }
    let unscheduled = |link: &Link| {
        let status = link.status.as_ref();
        status.is_some_and(|status| status.conditions[0].reason == "NotScheduled")
    };
    world.one_link(unscheduled).await;
    // Users are told on both, once.
    let events = world.events("NotScheduled", 2).await;
    let regarding: BTreeSet<_> = events.iter().map(kind_of).collect();
    assert_eq!(regarding, ["Link", "Topology"].into());
    assert!(events.iter().all(|event| event.note.is_some()));
    world.bind("r1", "n1").await;
    world.bind("r2", "n2").await;
    let link = world.one_link(|link| link.spec.vni.is_some()).await;
    assert_eq!(link.spec.vni, Some(11));
    assert_eq!(link.spec.a.vtep.as_deref(), Some("10.0.0.1"));
    assert_eq!(link.spec.b.node.as_deref(), Some("n2"));
    assert_eq!(link.metadata.labels.as_ref().unwrap().len(), 2);
    world.say(&link, EndState::Up).await;
    world
        .status("ring", |status| {
            status.ready == 1 && status.conditions[1].status == "True"
        })
        .await;
    let says = |link: &Link| link.status.as_ref().unwrap().conditions[0].reason.clone();
    let accepted = world.one_link(|link| says(link) == "Resolved").await;
    let status = accepted.status.unwrap();
    assert!(
        status.a.is_some() && status.b.is_some(),
        "the agents' words stay"
    );
    world.say(&link, EndState::Failed).await;
    let events = world.events("Failed", 1).await;
    assert_eq!(kind_of(&events[0]), "Link");
    assert_eq!(events[0].type_.as_deref(), Some("Warning"));
    assert_eq!(world.events("NotScheduled", 2).await.len(), 2, "no more");
    // A pod starts again, on another node.
    world.delete_pod("r2").await;
    world.one_link(|link| link.spec.b.node.is_none()).await;
    world.pod("r2", &json!({})).await;
    world.bind("r2", "n3").await;
    let moved = world
        .one_link(|link| link.spec.b.node.as_deref() == Some("n3"))
        .await;
    assert_eq!(
        (moved.metadata.uid, moved.spec.vni),
        (link.metadata.uid, Some(11))
    );
    // The end: the Link stays until its agents say that nothing is left.
    let now = DeleteParams::default();
    world.topologies().delete("ring", &now).await.unwrap();
    let leaving = world
        .one_link(|link| link.metadata.deletion_timestamp.is_some())
        .await;
    world.say(&leaving, EndState::Removed).await;
    eventually("the Link's end", || async {
        let links = world.all_links().await;
        if links.is_empty() {
            Ok(())
        } else {
            Err(format!("{links:#?}"))
        }
    })
    .await;
    let blocks: Api<VNIBlock> = Api::all(world.client.clone());
    assert!(
        blocks.get("0").await.unwrap().spec.entries[&11]
            .freed
            .is_some()
    );
}

/// Somebody writes another name into the Lease: who had it ends, and does not take it back.
async fn a_forged_lease(world: &World) {
    let controller = Controller::start(&world.client, "two", &["--lease=forged"]);
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "default");
    let holds = |name: &'static str| {
        let leases = leases.clone();
        async move {
            eventually("the Lease", || async {
                let lease = leases.get_opt("forged").await.unwrap();
                let holder = lease.and_then(|lease| lease.spec?.holder_identity);
                if holder.as_deref() == Some(name) {
                    Ok(())
                } else {
                    Err(format!("{holder:?}"))
                }
            })
            .await;
        }
    };
    holds("two").await;
    let forged = json!({"spec": {"holderIdentity": "somebody"}});
    let params = PatchParams::default();
    leases
        .patch("forged", &params, &Patch::Merge(&forged))
        .await
        .unwrap();
    let error = controller.task.await.unwrap().unwrap_err().to_string();
    assert!(
        error.starts_with("somebody has taken the Lease forged"),
        "{error}"
    );
    // Another one takes it when it has not been renewed.
    let controller = Controller::start(&world.client, "three", &["--lease=forged"]);
    holds("three").await;
    controller.stop().await;
    holds("").await;
}

/// Two that both believe they lead.
async fn two_at_once(world: &World) {
    let both = ["--lease=left", "--lease=right"];
    let controllers = both.map(|lease| Controller::start(&world.client, lease, &[lease]));
    for name in ["x1", "x2"] {
        let spec = json!({"links": (0..150).map(|n| json!({"endpoints": [
            format!("r1:{name}-{n}"), format!("r2:{name}-{n}"),
        ]})).collect::<Vec<_>>()});
        create(world.topologies(), of("Topology", name, &spec)).await;
    }
    let links = eventually("all Links", || async {
        let links = world.all_links().await;
        let ready = links.iter().filter(|link| link.spec.vni.is_some()).count();
        if ready == 300 {
            Ok(links)
        } else {
            Err(format!("{ready} of {}", links.len()))
        }
    })
    .await;
    let mut vnis = BTreeMap::new();
    for link in links {
        let name = link.metadata.name.unwrap();
        let other = vnis.insert(link.spec.vni.unwrap(), name.clone());
        assert!(other.is_none(), "{other:?} and {name} have one VNI");
    }
    for controller in controllers {
        controller.stop().await;
    }
}
