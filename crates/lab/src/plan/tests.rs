//! Names, addresses and config of a plan, and the reasons to refuse one.

use super::*;

fn plan(text: &str, cidr: &str) -> Result<Plan> {
    let manifest = Manifest::parse("f.yaml", text).unwrap();
    let args = UpArgs {
        file: "f.yaml".into(),
        name: "t".into(),
        underlay_cidr: cidr.parse().unwrap(),
        nodes: 2,
        cni_path: "/cni".into(),
        log_level: "info".into(),
    };
    Plan::new(&manifest, &args, Path::new("/bin/sh"))
}

fn pod(name: &str, more: &str) -> String {
    format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}{more}}}\n")
}

#[test]
fn the_plugins_config_is_what_a_runtime_would_give() {
    let more = ", labels: {ratchet: 'true', app: x}, annotations: {a: b}";
    let plan = plan(&pod("a", more), "10.89.0.0/24").unwrap();
    let config = &plan.inputs[0].config;
    assert_eq!(
        config["store"],
        "sqlite:/run/ratchet/lab/t/store/ratchet.db"
    );
    assert_eq!(
        config["socket"],
        "/run/ratchet/lab/t/nodes/node1/agent.sock"
    );
    assert_eq!(config["parent_address"], "10.89.0.1");
    assert_eq!(
        config["args"]["cni"]["labels"][1],
        json!({"key": "ratchet", "value": "true"})
    );
    assert_eq!(
        config["runtimeConfig"]["io.kubernetes.cri.pod-annotations"],
        json!({"a": "b"})
    );
    assert_eq!(plan.state.pods[0].container_id.len(), 64);
    assert_eq!(plan.state.pods[0].uid.len(), 36);
    assert!(
        plan.state.cni_path.starts_with("/cni:/"),
        "{}",
        plan.state.cni_path
    );
}

#[test]
fn names_follow_from_lab_namespace_and_pod() {
    let plan = plan(
        &(pod("a", "") + &pod("a", ", namespace: blue")),
        "10.89.0.0/24",
    )
    .unwrap();
    let names: Vec<_> = plan
        .state
        .namespaces()
        .iter()
        .map(|netns| netns.name.clone())
        .collect();
    assert_eq!(
        names,
        ["t-a", "t-blue-a", "t-node1", "t-node2", "t-underlay"]
    );
}

#[test]
fn two_things_in_one_namespace_are_refused() {
    let error = plan(&pod("node1", ""), "10.89.0.0/24")
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "pod default/node1 and node node1 would both be the network namespace t-node1: rename \
         one of them"
    );
    assert!(
        plan(
            &(pod("b-a", "") + &pod("a", ", namespace: b")),
            "10.89.0.0/24"
        )
        .is_err()
    );
}

#[test]
fn an_underlay_too_small_says_so_and_ipv6_leaves_the_anycast_address_out() {
    let two = pod("a", "") + &pod("b", "");
    assert!(
        plan(&two, "10.89.0.1/32")
            .unwrap_err()
            .to_string()
            .contains("1 addresses for 2 nodes")
    );
    assert_eq!(
        plan(&two, "fd00::/64").unwrap().state.nodes[0]
            .address
            .to_string(),
        "fd00::1"
    );
}

#[test]
fn a_mount_point_this_machine_lacks_is_a_manifest_error() {
    let text = |path: &str| {
        format!(
            "{}spec:\n  containers: [{{volumeMounts: [{{name: v, mountPath: {path}}}]}}]\n  \
             volumes: [{{name: v, configMap: {{name: c}}}}]\n\
             ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\n",
            pod("a", "")
        )
    };
    let error = plan(&text("/no/such"), "10.89.0.0/24")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "f.yaml: document 1 (Pod/a): spec.containers[0].volumeMounts[0].mountPath: \
             expected a directory"
        ),
        "{error}"
    );
    assert!(plan(&text("/run/anything"), "10.89.0.0/24").is_ok());
    assert!(plan(&text("/etc"), "10.89.0.0/24").is_ok());
}
