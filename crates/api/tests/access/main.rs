//! Who may do what with the API: the rights and policies of `deploy/base` on a real API server.
//! Each account tries what it may and what it must not do, with a token of its own.
#![allow(clippy::unwrap_used, clippy::too_many_lines)]

mod agents;
mod controller;
mod tenants;
mod tries;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use kube::{
    Client,
    api::{Patch, PatchParams, PostParams},
    core::Request,
};
use ratchet_api_server::{Server, on_a_server, programs};
use serde_json::{Value, json};

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/base");
const ONE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/ratchet.yaml");
const OLD_RBAC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/rbac.yaml");
const OURS: &str = "/apis/ratchet.dev/v1alpha1";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const DEADLINE: Duration = Duration::from_secs(120);

/// The path of the objects of a kind of ours in a namespace.
fn ours(namespace: &str, plural: &str) -> String {
    format!("{OURS}/namespaces/{namespace}/{plural}")
}

/// The path of the objects of a core kind in a namespace.
fn core(namespace: &str, plural: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{plural}")
}

/// A Link with its ends on two nodes, as the controller writes it.
fn link(name: &str, node_of_a: &str, node_of_b: &str) -> Value {
    let end = |pod: &str, node: &str| {
        json!({"namespace": "team-a", "pod": pod, "interface": "eth1",
            "podUID": format!("uid-{pod}"), "node": node, "vtep": "192.0.2.1"})
    };
    json!({
        "apiVersion": "ratchet.dev/v1alpha1", "kind": "Link",
        "metadata": {"name": name, "finalizers": ["ratchet.dev/vni"]},
        "spec": {"declaredBy": "Topology", "topology": "lab", "vni": 11,
            "a": end("r1", node_of_a), "b": end("r2", node_of_b)},
    })
}

/// The administrator's part: what it does must succeed.
async fn create(admin: &Client, path: &str, object: &Value) -> Value {
    let request = Request::new(path).create(&PostParams::default(), object.to_string().into());
    admin.request(request.unwrap()).await.unwrap()
}

async fn get(client: &Client, path: &str, name: &str) -> kube::Result<Value> {
    let request = Request::new(path).get(name, &kube::api::GetParams::default());
    client.request(request.unwrap()).await
}

async fn merge(admin: &Client, path: &str, name: &str, change: Value) {
    let parameters = PatchParams::default();
    let request = Request::new(path).patch(name, &parameters, &Patch::Merge(change));
    let _changed: Value = admin.request(request.unwrap()).await.unwrap();
}

async fn account(admin: &Client, namespace: &str, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    create(admin, &core(namespace, "serviceaccounts"), &object).await;
}

/// A token of an account, bound to a pod if there is one.
async fn token(admin: &Client, namespace: &str, account: &str, pod: Option<&str>) -> String {
    let mut spec = json!({"expirationSeconds": 3600});
    if let Some(pod) = pod {
        spec["boundObjectRef"] = json!({"apiVersion": "v1", "kind": "Pod", "name": pod});
    }
    let object = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": spec});
    let path = format!("{}/{account}/token", core(namespace, "serviceaccounts"));
    let answer = create(admin, &path, &object).await;
    answer["status"]["token"].as_str().unwrap().to_owned()
}

/// Waits until something is true.
async fn until(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_true().await {
        assert!(
            Instant::now() < deadline,
            "after {DEADLINE:?} not yet: {what}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What users apply. Doing it again changes nothing.
async fn install(server: &Server, programs: &std::path::Path) {
    server.kubectl(programs, &["apply", "-f", ONE_FILE]);
    let output = server.kubectl(programs, &["apply", "-k", BASE]);
    let mut lines = output.lines();
    assert!(lines.all(|line| line.ends_with(" unchanged")), "{output}");
    // What an etcd needs may be applied besides.
    server.kubectl(programs, &["apply", "-f", OLD_RBAC]);
    let namespace = get(&server.client, "/api/v1/namespaces", "ratchet").await;
    let labels = &namespace.unwrap()["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "privileged");
}

/// `deploy/ratchet.yaml` is what the base makes.
#[test]
fn the_one_file_is_made_from_the_base() {
    let Some(programs) = programs() else { return };
    let output = Command::new(programs.join("kubectl"))
        .args(["kustomize", BASE])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let again = "WRITE=1 cargo test -p ratchet-api --test access one_file";
    let made = String::from_utf8(output.stdout).unwrap();
    let made = format!("# Made from deploy/base. To write it again: {again}\n{made}");
    if std::env::var_os("WRITE").is_some() {
        std::fs::write(ONE_FILE, &made).unwrap();
    }
    let committed = std::fs::read_to_string(ONE_FILE).unwrap_or_default();
    assert!(
        committed == made,
        "deploy/ratchet.yaml is not up to date: {again}"
    );
}

/// One server for all, since it takes some seconds to start.
#[test]
fn each_account_may_do_its_work_and_no_more() {
    on_a_server(async |mut server, programs| {
        install(&server, &programs).await;
        server.start_controllers(
            &programs,
            "clusterrole-aggregation-controller,garbage-collector-controller,namespace-controller",
        );
        for name in ["team-a", "team-b"] {
            let object = json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name}});
            create(&server.client, "/api/v1/namespaces", &object).await;
        }
        agents::run(&server).await;
        controller::run(&server).await;
        tenants::run(&server).await;
    });
}
