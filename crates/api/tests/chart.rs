//! The Helm chart: by default it installs what `deploy/ratchet.yaml` does, and with meshnet what
//! `deploy/meshnet` does. The chart has no objects of its own: its folder `files` is made from
//! these. To write it again:
//!
//!     WRITE=1 cargo test -p ratchet-api --test chart
#![allow(clippy::unwrap_used, clippy::too_many_lines)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ratchet_api_server::{on_a_server, programs, tool};
use serde::Deserialize;
use serde_json::{Value, json};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");
const AGAIN: &str = "WRITE=1 cargo test -p ratchet-api --test chart";

/// Without a cluster, Helm takes its own version's for the cluster's.
const VERSION: [&str; 2] = ["--kube-version", "1.34.0"];

/// Kind, namespace and name.
type Id = (String, String, String);

fn deploy(path: &str) -> PathBuf {
    Path::new(DEPLOY).join(path)
}

/// The objects of a text in YAML, each once.
fn objects(text: &[u8]) -> BTreeMap<Id, Value> {
    let mut all = BTreeMap::new();
    for document in serde_yaml_ng::Deserializer::from_slice(text) {
        let object = Value::deserialize(document).unwrap();
        if object.is_null() {
            continue;
        }
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = (
            text(&object["kind"]),
            text(&metadata["namespace"]),
            text(&metadata["name"]),
        );
        assert!(all.insert(id.clone(), object).is_none(), "{id:?} twice");
    }
    all
}

fn kustomize(programs: &Path, folder: &str) -> BTreeMap<Id, Value> {
    let mut kubectl = Command::new(programs.join("kubectl"));
    let output = kubectl.arg("kustomize").arg(deploy(folder)).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    objects(&output.stdout)
}

fn template(helm: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(helm);
    command.args(["template", "ratchet"]);
    command.arg(deploy("helm/ratchet"));
    command.args(VERSION).args(arguments).output().unwrap()
}

fn made(helm: &Path, arguments: &[&str]) -> BTreeMap<Id, Value> {
    let output = template(helm, arguments);
    assert!(output.status.success(), "{output:?}");
    objects(&output.stdout)
}

/// The same objects. Those of Helm have one thing more: definitions stay when it uninstalls.
fn assert_same(chart: BTreeMap<Id, Value>, expected: &BTreeMap<Id, Value>) {
    let names = |of: &BTreeMap<Id, Value>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&chart), names(expected));
    for (id, mut object) in chart {
        if id.0 == "CustomResourceDefinition" {
            let annotations = object["metadata"]["annotations"].as_object_mut().unwrap();
            assert_eq!(
                annotations.remove("helm.sh/resource-policy"),
                Some(json!("keep"))
            );
            if annotations.is_empty() {
                object["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .remove("annotations");
            }
        }
        assert_eq!(object, expected[&id], "{id:?}");
    }
}

#[test]
fn the_charts_files_are_those_that_kubectl_applies() {
    let read = |path: &str| std::fs::read_to_string(deploy(path)).unwrap();
    let meshnet = ["crd", "rights", "health"].map(|name| read(&format!("meshnet/{name}.yaml")));
    let meshnet = meshnet
        .each_ref()
        .map(|text| text.trim_end())
        .join("\n---\n");
    for (name, text) in [
        ("ratchet.yaml", read("ratchet.yaml")),
        ("meshnet.yaml", meshnet + "\n"),
    ] {
        let path = deploy("helm/ratchet/files").join(name);
        if std::env::var_os("WRITE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "{name} is not up to date: {AGAIN}");
    }
    let chart = read("helm/ratchet/Chart.yaml");
    let version = env!("CARGO_PKG_VERSION");
    assert!(chart.contains(&format!("\nversion: {version}\nappVersion: {version}\n")));
}

#[test]
fn the_chart_makes_the_objects_that_kustomize_makes() {
    let (Some(helm), Some(programs)) = (tool("helm"), programs()) else {
        return;
    };
    let base = kustomize(&programs, "base");
    let one_file = std::fs::read(deploy("ratchet.yaml")).unwrap();
    assert_eq!(objects(&one_file), base);
    assert_same(made(&helm, &[]), &base);
    let with_meshnet = kustomize(&programs, "meshnet");
    assert!(with_meshnet.len() > base.len());
    assert_same(
        made(&helm, &["--set", "meshnet.enabled=true"]),
        &with_meshnet,
    );
}

fn pod_of(objects: &BTreeMap<Id, Value>, kind: &str, name: &str) -> Value {
    let id = (kind.to_owned(), "ratchet".to_owned(), name.to_owned());
    objects[&id]["spec"]["template"]["spec"].clone()
}

#[test]
fn each_value_changes_what_it_names() {
    let Some(helm) = tool("helm") else { return };
    let settings = "image=r.example/x:2,imagePullPolicy=Never,logLevel=debug,agent.mtu=1400,\
        agent.parentInterface=eth1,agent.networkConfig=none,agent.cniDir=/a/b,agent.cniBinDir=/c,\
        controller.replicas=3,createNamespace=false,agent.resources.limits.memory=1Gi,\
        controller.resources.requests.cpu=2,meshnet.enabled=true,meshnet.definition=false";
    let json = r#"agent.tolerations=[],imagePullSecrets=[{"name":"s"}]"#;
    let of_controller = r#"controller.tolerations=[{"operator":"Exists"}]"#;
    let json = format!("{json},{of_controller}");
    let objects = made(&helm, &["--set", settings, "--set-json", &json]);
    let agent = pod_of(&objects, "DaemonSet", "ratchet-agent");
    let controller = pod_of(&objects, "Deployment", "ratchet-controller");
    for pod in [&agent, &controller] {
        assert_eq!(pod["containers"][0]["image"], "r.example/x:2");
        assert_eq!(pod["containers"][0]["imagePullPolicy"], "Never");
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "s"}]));
        let env = pod["containers"][0]["env"].as_array().unwrap();
        assert_eq!(
            env.last().unwrap(),
            &json!({"name": "RATCHET_LOG", "value": "debug"})
        );
    }
    let arguments = agent["containers"][0]["args"].as_array().unwrap();
    let has = |argument: &str| arguments.contains(&json!(argument));
    assert!(has("--mtu=1400") && has("--parent-interface=eth1") && !has("--install"));
    assert_eq!(agent["tolerations"], json!([]));
    assert_eq!(controller["tolerations"], json!([{"operator": "Exists"}]));
    let resources = |pod: &Value| pod["containers"][0]["resources"].clone();
    assert_eq!(resources(&agent), json!({"limits": {"memory": "1Gi"}}));
    assert_eq!(resources(&controller), json!({"requests": {"cpu": 2}}));
    let volumes = agent["volumes"].as_array().unwrap();
    let path = |name: &str| {
        let volume = volumes.iter().find(|volume| volume["name"] == name);
        volume.unwrap()["hostPath"]["path"].clone()
    };
    assert_eq!(path("configs"), "/a/b");
    assert_eq!(path("programs"), "/c");
    assert_eq!(path("state"), "/var/lib/ratchet");
    let controller = &objects[&(
        "Deployment".to_owned(),
        "ratchet".to_owned(),
        "ratchet-controller".to_owned(),
    )];
    assert_eq!(controller["spec"]["replicas"], 3);
    let health = &objects[&(
        "DaemonSet".to_owned(),
        "meshnet".to_owned(),
        "meshnet".to_owned(),
    )];
    let image = &health["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "r.example/x:2");
    let has_no = |kind: &str, name: &str| {
        assert!(!objects.contains_key(&(kind.to_owned(), String::new(), name.to_owned())));
    };
    has_no("Namespace", "ratchet");
    has_no("CustomResourceDefinition", "topologies.networkop.co.uk");
}

#[test]
fn a_wrong_value_is_refused_with_what_is_expected() {
    let Some(helm) = tool("helm") else { return };
    for (settings, expected) in [
        (
            "agnt.mtu=1400",
            "at '': additional properties 'agnt' not allowed",
        ),
        (
            "agent.mut=1400",
            "at '/agent': additional properties 'mut' not allowed",
        ),
        ("agent.mtu=67", "at '/agent/mtu': minimum: got 67, want 68"),
        (
            "agent.mtu=big",
            "at '/agent/mtu': got string, want null or integer",
        ),
        ("agent.parentInterface=an/eth0", "expected the name of an"),
        (
            "agent.networkConfig=wrapper",
            "must be one of 'conflist', 'none'",
        ),
        (
            "agent.cniDir=etc/cni",
            "expected the full path of a directory",
        ),
        (
            "agent.resources.limit.cpu=1",
            "additional properties 'limit' not allowed",
        ),
        ("agent.resources.limits.memory=much", "does not match"),
        (
            "agent.tolerations=all",
            "at '/agent/tolerations': got string, want null or array",
        ),
        (
            "image=ratchet",
            "image: expected a name with a tag or a digest",
        ),
        ("imagePullPolicy=always", "must be one of '', 'Always'"),
        (
            "controller.replicas=-1",
            "at '/controller/replicas': minimum: got -1, want 0",
        ),
        ("meshnet=true", "at '/meshnet': got boolean, want object"),
        ("createNamespace=no", "at '/createNamespace': got string"),
    ] {
        let output = template(&helm, &["--set", settings]);
        let error = String::from_utf8(output.stderr).unwrap();
        let is_refused = !output.status.success() && error.contains(expected);
        assert!(is_refused, "{settings}: {error}");
    }
    let output = template(&helm, &["--namespace", "ratchet"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("leave out --namespace, or set createNamespace=false"),
        "{error}"
    );
    let old = template(&helm, &["--kube-version", "1.31.0"]);
    let error = String::from_utf8(old.stderr).unwrap();
    assert!(error.contains("requires kubeVersion: >=1.33.0"), "{error}");
}

/// The API server takes what Helm installs, changes and removes. Users' objects stay.
#[test]
fn helm_installs_upgrades_and_removes() {
    let Some(helm) = tool("helm") else { return };
    on_a_server(async |server, programs| {
        let home = std::env::temp_dir().join(format!("ratchet-chart-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let kubeconfig = home.join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&helm);
            let output = command
                .args(arguments)
                .env("KUBECONFIG", &kubeconfig)
                .env("HOME", &home)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        let chart = deploy("helm/ratchet").display().to_string();
        let get = |arguments: &[&str]| {
            let words: Vec<&str> = ["get"].iter().chain(arguments).copied().collect();
            server.kubectl(&programs, &words)
        };
        run(&["install", "ratchet", &chart]);
        let agents = ["daemonset", "-n", "ratchet", "-o", "name"];
        assert_eq!(get(&agents), "daemonset.apps/ratchet-agent\n");
        run(&["upgrade", "ratchet", &chart, "--set", "agent.mtu=1400"]);
        assert!(get(&["daemonset", "-n", "ratchet", "-o", "yaml"]).contains("--mtu=1400"));
        run(&["uninstall", "ratchet"]);
        let definitions = get(&["crds", "-o", "name"]);
        assert_eq!(definitions.lines().count(), 5, "{definitions}");
        let policies = get(&["validatingadmissionpolicies", "-o", "name"]);
        assert_eq!(policies, "");
        std::fs::remove_dir_all(&home).unwrap();
    });
}
