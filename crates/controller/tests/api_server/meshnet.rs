//! meshnet's objects on a real API server, in the form in which the `kne` command writes and reads
//! them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::Request,
    runtime::{conditions, wait::await_condition},
};
use ratchet_api::{DeclaredBy, EndState, Link, meshnet::Topology};
use serde_json::{Value, json};

use super::{Controller, World, create, eventually, in_a_world, of, ring};

const DEFINITION: &str = include_str!("../../../../deploy/meshnet/crd.yaml");
const NAME: &str = "topologies.networkop.co.uk";

/// An object as Go's types write it: with all their fields, and the status that nobody asked for.
fn object(pod: &str, links: &Value) -> Value {
    json!({
        "kind": "Topology", "apiVersion": "networkop.co.uk/v1beta1",
        "metadata": {"name": pod, "creationTimestamp": null},
        "spec": {"links": links},
        "status": {"skipped": null, "src_ip": "", "net_ns": "", "container_id": ""},
    })
}

/// A link as KNE writes it: without addresses, and numbered from 0.
fn link(uid: u32, local: &str, peer: &str) -> Value {
    let (pod, interface) = peer.split_once(':').unwrap();
    json!({
        "local_intf": local, "local_ip": "", "peer_intf": interface, "peer_ip": "",
        "peer_pod": pod, "uid": uid,
    })
}

/// What the test needs of the API beside [`World`].
struct Meshnet<'w> {
    world: &'w World,
    topologies: Api<Topology>,
}

impl Meshnet<'_> {
    /// Sends an object as it is.
    async fn create(&self, object: &Value) -> kube::Result<Value> {
        let path = "/apis/networkop.co.uk/v1beta1/namespaces/default/topologies";
        let body = serde_json::to_vec(object).unwrap();
        let request = Request::new(path).create(&PostParams::default(), body);
        self.world.client.request(request.unwrap()).await
    }

    /// What `kubectl apply` does with another list of links.
    async fn change(&self, pod: &str, links: &Value) {
        let patch = Patch::Merge(json!({"spec": {"links": links}}));
        let params = PatchParams::default();
        self.topologies.patch(pod, &params, &patch).await.unwrap();
    }

    /// Waits for these Links, as `pod:interface pod:interface`, and returns them.
    async fn links(&self, expected: &[&str]) -> Vec<Link> {
        eventually("the Links", || async {
            let mut links = self.world.all_links().await;
            links.retain(|link| {
                link.spec.declared_by == DeclaredBy::Meshnet
                    && link.metadata.deletion_timestamp.is_none()
            });
            let end = |end: &ratchet_api::LinkEnd| {
                format!(
                    "{}:{}",
                    end.pod.as_deref().unwrap_or_default(),
                    end.interface
                )
            };
            let shown = |link: &Link| format!("{} {}", end(&link.spec.a), end(&link.spec.b));
            links.sort_by_key(shown);
            let is: Vec<String> = links.iter().map(shown).collect();
            match is == expected && links.iter().all(|link| link.spec.b.node.is_some()) {
                true => Ok(links),
                false => Err(format!("{is:?}, expected {expected:?}")),
            }
        })
        .await
    }

    /// Waits for a status.
    async fn status(&self, pod: &str, is: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/apis/networkop.co.uk/v1beta1/namespaces/default/topologies/{pod}");
        eventually("the status", || async {
            let request = Request::new(&path).list(&kube::api::ListParams::default());
            let object: Value = self.world.client.request(request.unwrap()).await.unwrap();
            match is(&object["status"]) {
                true => Ok(object),
                false => Err(object["status"].to_string()),
            }
        })
        .await
    }

    /// The agents do what Links that are being deleted ask for, until all are gone.
    async fn all_gone(&self) {
        eventually("the Links' end", || async {
            let links = self.world.all_links().await;
            for link in &links {
                if link.metadata.deletion_timestamp.is_some() {
                    self.world.say_of_both(link, EndState::Removed).await;
                }
            }
            match links.len() {
                0 => Ok(()),
                left => Err(format!("{left} are left")),
            }
        })
        .await;
    }
}

async fn define(client: &Client, change: impl Fn(&mut Value)) {
    let mut definition: Value = serde_yaml_ng::from_str(DEFINITION).unwrap();
    change(&mut definition);
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("test").force();
    let patch = Patch::Apply(&definition);
    api.patch(NAME, &params, &patch).await.unwrap();
    await_condition(api, NAME, conditions::is_crd_established())
        .await
        .unwrap();
}

#[test]
fn knes_objects_become_links_and_have_a_status() {
    in_a_world(async |world| {
        for (number, pod) in ["r1", "r2", "r3"].iter().enumerate() {
            world.pod(pod, &json!({})).await;
            world.bind(pod, &format!("n{}", number + 1)).await;
        }
        let meshnet = Meshnet {
            world: &world,
            topologies: Api::namespaced(world.client.clone(), "default"),
        };
        let controller = without_the_definition(&meshnet).await;
        life(&meshnet).await;
        controller.stop().await;
        definition_of_2023(&meshnet).await;
    });
}

/// What is not meshnet's does not wait for its definition, which may come later.
async fn without_the_definition(meshnet: &Meshnet<'_>) -> Controller {
    let world = meshnet.world;
    let controller = Controller::start(&world.client, "one", &["--meshnet"]);
    create(world.topologies(), of("Topology", "ring", &ring(1..2))).await;
    world.one_link(|link| link.spec.vni.is_some()).await;
    world
        .topologies()
        .delete("ring", &DeleteParams::default())
        .await
        .unwrap();
    meshnet.all_gone().await;
    define(&world.client, |_| {}).await;
    controller
}

/// Create, wait, rewire, delete.
async fn life(meshnet: &Meshnet<'_>) {
    let world = meshnet.world;
    let lab = [
        (
            "r1",
            json!([link(0, "eth1", "r2:eth1"), link(1, "eth2", "r2:eth2")]),
        ),
        (
            "r2",
            json!([
                link(0, "eth1", "r1:eth1"),
                link(1, "eth2", "r1:eth2"),
                link(2, "eth3", "r3:eth1"),
            ]),
        ),
        ("r3", json!([link(2, "eth1", "r2:eth3")])),
    ];
    for (pod, links) in &lab {
        meshnet.create(&object(pod, links)).await.unwrap();
    }
    let all = ["r1:eth1 r2:eth1", "r1:eth2 r2:eth2", "r2:eth3 r3:eth1"];
    let links = meshnet.links(&all).await;
    let mut vnis: Vec<_> = links.iter().map(|link| link.spec.vni.unwrap()).collect();
    vnis.dedup();
    assert_eq!(vnis.len(), 3, "{vnis:?}");
    for link in &links {
        world.say_of_both(link, EndState::Up).await;
    }
    let r1 = meshnet
        .status("r1", |status| status["src_ip"] == "10.0.0.1")
        .await;
    let status = &r1["status"];
    assert_eq!(status["container_id"], "sandbox-r1");
    assert_ne!(status["net_ns"], "");
    assert!(status.get("plumbing_error").is_none(), "{status}");
    let managers = r1["metadata"]["managedFields"].as_array().unwrap();
    let ours = managers
        .iter()
        .find(|by| by["manager"] == "ratchet-meshnet");
    assert_eq!(ours.unwrap()["subresource"], "status");

    // Rewired: eth2 of r1 goes to r3. The first link stays, with all that it is.
    let before = links[0].clone();
    meshnet
        .change(
            "r1",
            &json!([link(0, "eth1", "r2:eth1"), link(1, "eth2", "r3:eth2")]),
        )
        .await;
    meshnet
        .change(
            "r2",
            &json!([link(0, "eth1", "r1:eth1"), link(2, "eth3", "r3:eth1")]),
        )
        .await;
    meshnet
        .change(
            "r3",
            &json!([link(1, "eth2", "r1:eth2"), link(2, "eth1", "r2:eth3")]),
        )
        .await;
    let all = ["r1:eth1 r2:eth1", "r1:eth2 r3:eth2", "r2:eth3 r3:eth1"];
    let links = meshnet.links(&all).await;
    assert_eq!(
        (&links[0].metadata.uid, &links[0].spec),
        (&before.metadata.uid, &before.spec)
    );

    // What Ratchet does not make, and its end.
    let macvlan = link(3, "eth3", "localhost:eth0");
    meshnet
        .change(
            "r3",
            &json!([
                link(1, "eth2", "r1:eth2"),
                link(2, "eth1", "r2:eth3"),
                macvlan
            ]),
        )
        .await;
    meshnet
        .status("r3", |status| {
            let error = status["plumbing_error"].as_str().unwrap_or_default();
            error.starts_with("uid 3 (eth3 to localhost:eth0): Unsupported: ")
        })
        .await;
    meshnet
        .change(
            "r3",
            &json!([link(1, "eth2", "r1:eth2"), link(2, "eth1", "r2:eth3")]),
        )
        .await;
    meshnet
        .status("r3", |status| status.get("plumbing_error").is_none())
        .await;

    for (pod, _) in &lab {
        meshnet
            .topologies
            .delete(pod, &DeleteParams::default())
            .await
            .unwrap();
    }
    meshnet.all_gone().await;
}

/// meshnet's definition before KNE's has no `container_id` and no `plumbing_error`.
async fn definition_of_2023(meshnet: &Meshnet<'_>) {
    let world = meshnet.world;
    define(&world.client, |definition| {
        let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let status = &mut schema["properties"]["status"]["properties"];
        let status = status.as_object_mut().unwrap();
        status.remove("plumbing_error");
        status.remove("container_id");
    })
    .await;
    let controller = Controller::start(&world.client, "two", &["--meshnet"]);
    let links = json!([
        link(0, "eth1", "r2:eth1"),
        link(1, "eth2", "localhost:eth0")
    ]);
    meshnet.create(&object("r1", &links)).await.unwrap();
    let links = meshnet.links(&["r1:eth1 r2:eth1"]).await;
    world.say_of_both(&links[0], EndState::Up).await;
    let r1 = meshnet
        .status("r1", |status| status["src_ip"] == "10.0.0.1")
        .await;
    assert!(r1["status"].get("plumbing_error").is_none());
    controller.stop().await;
    // Without the option its Links go, and other things go on.
    let controller = Controller::start(&world.client, "three", &[]);
    meshnet.all_gone().await;
    controller.stop().await;
}
