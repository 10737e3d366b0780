//! `ratchet doctor` on healthy nodes and on nodes with mistakes.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ratchet_api_server::{Server, create_definitions, programs};
use serde_json::{Value, json};

use support::{Cluster, Node, RATCHET, eventually};

/// A runtime's two directories for a node: network configs, and plugins.
struct Runtime {
    net: PathBuf,
    bin: PathBuf,
}

impl Runtime {
    fn new(cluster: &Cluster) -> Self {
        let (net, bin) = (
            cluster.dir.path().join("net.d"),
            cluster.dir.path().join("bin"),
        );
        fs::create_dir(&net).unwrap();
        fs::create_dir(&bin).unwrap();
        symlink(RATCHET, bin.join("ratchet")).unwrap();
        symlink("/usr/lib/cni/loopback", bin.join("loopback")).unwrap();
        fs::write(
            net.join("10-ratchet.conf"),
            cluster.nodes[0].config().to_string(),
        )
        .unwrap();
        Self { net, bin }
    }

    /// Runs the doctor on the node. Returns its exit status and its output.
    fn doctor(&self, node: &Node) -> (Option<i32>, String) {
        let mut command = node.netns.command(RATCHET);
        command
            .arg("doctor")
            .arg("--cni-dir")
            .arg(&self.net)
            .arg("--cni-bin")
            .arg(&self.bin);
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    }
}

#[track_caller]
fn assert_reports(report: &(Option<i32>, String), code: i32, lines: &[&str]) {
    for line in lines {
        assert!(
            report.1.contains(line),
            "expected {line:?} in:\n{}",
            report.1
        );
    }
    assert_eq!(report.0, Some(code), "{}", report.1);
}

/// The example files for users are valid configs, and the documentation shows one of them.
#[test]
fn the_examples_are_valid_configs() {
    let cluster = Cluster::new(1);
    let runtime = Runtime::new(&cluster);
    fs::remove_file(runtime.net.join("10-ratchet.conf")).unwrap();
    for name in ["ratchet-child", "flannel", "bridge", "portmap"] {
        symlink(RATCHET, runtime.bin.join(name)).unwrap();
    }
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    for name in ["10-ratchet.conf", "10-ratchet.conflist"] {
        let text = fs::read_to_string(deploy.join(name)).unwrap();
        let file = runtime.net.join(name);
        fs::write(
            &file,
            text.replace("/opt/cni/bin", runtime.bin.to_str().unwrap()),
        )
        .unwrap();
        let (_, report) = runtime.doctor(&cluster.nodes[0]);
        for words in [
            format!("✓ CNI config: {name} is the first"),
            format!("✓ config's keys: {name} is valid"),
        ] {
            assert!(report.contains(&words), "expected {words:?} in:\n{report}");
        }
        assert!(report.contains("✓ plugins: "), "{report}");
        fs::remove_file(file).unwrap();
    }
    let example: Value =
        serde_json::from_str(include_str!("../../../deploy/10-ratchet.conf")).unwrap();
    let documentation = include_str!("../../../docs/kubernetes.md");
    let block: String = documentation
        .lines()
        .skip_while(|line| *line != "    {")
        .take_while(|line| line.starts_with("  "))
        .collect();
    assert_eq!(serde_json::from_str::<Value>(&block).unwrap(), example);
}

#[test]
fn a_healthy_node_passes_and_each_mistake_is_named() {
    let mut cluster = Cluster::with_agents(1);
    let runtime = Runtime::new(&cluster);
    let healthy = runtime.doctor(&cluster.nodes[0]);
    assert_reports(
        &healthy,
        0,
        &[
            "✓ rights: root",
            "✓ veth devices",
            "✓ VXLAN devices",
            "✓ underlay: tunnels start at 10.91.0.1 on eth0",
            "✓ MTU: the underlay has 1500, which leaves 1450 for links",
            "✓ UDP 4789: free",
            "✓ CNI config: 10-ratchet.conf is the first",
            "✓ plugins: ratchet, loopback",
            "✓ agent: version",
            "managed",
            "✓ agent and config: they agree",
            "✓ store: sqlite:",
            "✓ socket's directory",
            "✓ socket:",
            "✓ state directory",
        ],
    );
    assert!(!healthy.1.contains('✗'), "{}", healthy.1);

    // The config of another network sorts before Ratchet's.
    let other = runtime.net.join("05-bridge.conf");
    fs::write(
        &other,
        r#"{"cniVersion":"1.0.0","name":"b","type":"bridge"}"#,
    )
    .unwrap();
    assert_reports(
        &runtime.doctor(&cluster.nodes[0]),
        1,
        &["✗ CNI config: 05-bridge.conf (bridge) comes before"],
    );
    fs::remove_file(other).unwrap();

    // A device and a program that occupy the tunnels' port.
    cluster.nodes[0]
        .netns
        .sh("ip link add ovs0 type vxlan dstport 4789 external && ip link set ovs0 up");
    assert_reports(
        &runtime.doctor(&cluster.nodes[0]),
        1,
        &["✗ UDP 4789: VXLAN device ovs0"],
    );
    cluster.nodes[0].netns.sh("ip link del ovs0");
    let script = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); \
                  s.bind(('', 4789)); print(); sys.stdout.flush(); sys.stdin.read()";
    let mut program = cluster.nodes[0]
        .netns
        .command("python3")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(program.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    assert_reports(
        &runtime.doctor(&cluster.nodes[0]),
        1,
        &["✗ UDP 4789: python3 (pid"],
    );
    drop(program.stdin.take());
    program.wait().unwrap();

    // The config's parent address is neither the node's nor the agent's.
    cluster.nodes[0].set("parent_address", json!("10.91.0.77"));
    fs::write(
        runtime.net.join("10-ratchet.conf"),
        cluster.nodes[0].config().to_string(),
    )
    .unwrap();
    let differs = "✗ agent and config: parent_address is 10.91.0.1 for the agent and 10.91.0.77 in \
                   the config";
    assert_reports(&runtime.doctor(&cluster.nodes[0]), 1, &[differs]);
    cluster.nodes[0].stop_agent();
    let nowhere = "✗ underlay: parent_address 10.91.0.77 is not on parent interface eth0, which \
                   has 10.91.0.1/24";
    assert_reports(
        &runtime.doctor(&cluster.nodes[0]),
        1,
        &[nowhere, "! agent: none answers", "✓ store: sqlite:"],
    );
}

/// Enters a node's network, since the API server of tests listens on loopback only.
fn enter(node: &Node) {
    let netns = fs::File::open(node.netns.path()).unwrap();
    nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
}

#[test]
fn a_node_of_kubernetes_is_examined_with_the_eyes_of_its_agent() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::new(1);
    let kubeconfig = cluster.dir.path().join("kubeconfig");
    let node = &mut cluster.nodes[0];
    enter(node);
    node.set_store("kubernetes");
    node.set("kubeconfig", json!(kubeconfig));
    let async_runtime = tokio::runtime::Runtime::new().unwrap();
    let server = async_runtime.block_on(Server::start(&programs));
    fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let runtime = Runtime::new(&cluster);
    let way = "✓ this node runs: with Kubernetes: ";
    let bare = runtime.doctor(&cluster.nodes[0]);
    let lacks = "✗ Ratchet's kinds: the API lacks links, nodeunderlays, topologies, ";
    assert_reports(&bare, 1, &[way, "✓ Kubernetes API: it answers", lacks]);
    assert!(!bare.1.contains(" store: "), "{}", bare.1);

    async_runtime.block_on(create_definitions(&server.client));
    server.kubectl(&programs, &["create", "namespace", "ratchet"]);
    let node = &mut cluster.nodes[0];
    node.start_agent_with(&["--kubeconfig", kubeconfig.to_str().unwrap()]);
    let well = [
        way,
        "✓ Ratchet's kinds: ",
        "✓ agent's rights: ",
        "✓ NodeUnderlay: node1: tunnels end at 10.91.0.1, UDP 4789, with MTU 1450",
        "✓ store: kubernetes: the agent reaches it",
        "! controller: none has led yet: there is no Lease ratchet/ratchet-controller",
    ];
    eventually("the node's underlay", || {
        let report = runtime.doctor(&cluster.nodes[0]);
        let is_there = report.1.contains("✓ NodeUnderlay: ");
        is_there.then_some(()).ok_or(report.1)
    });
    assert_reports(&runtime.doctor(&cluster.nodes[0]), 0, &well);
    let mut controller = Command::new(RATCHET)
        .args(["controller", "--kubeconfig"])
        .arg(&kubeconfig)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("a controller", || {
        let report = runtime.doctor(&cluster.nodes[0]);
        let leads = report.1.contains("✓ controller: ") && report.1.contains(" leads\n");
        leads.then_some(()).ok_or(report.1)
    });
    support::terminate(controller.id());
    controller.wait().unwrap();
    let gone = "! controller: none holds the Lease ratchet/ratchet-controller";
    assert_reports(&runtime.doctor(&cluster.nodes[0]), 0, &[gone]);

    // Another node's death is no affair of the agents.
    let forget = Command::new(RATCHET)
        .args(["forget-node", "node7", "--socket"])
        .arg(&cluster.nodes[0].socket)
        .output()
        .unwrap();
    let error = String::from_utf8(forget.stderr).unwrap();
    assert!(!forget.status.success());
    assert!(error.contains("kubectl delete node node7"), "{error}");

    // An account without rights, and an API that does not answer.
    cluster.nodes[0].stop_agent();
    let mut nobody: Value = serde_json::from_str(&server.kubeconfig()).unwrap();
    nobody["users"][0]["user"]["as"] = json!("nobody");
    fs::write(&kubeconfig, nobody.to_string()).unwrap();
    let may_not = "✗ agent's rights: node node1's agent may not: list links, watch links, patch \
                   links/status, create nodeunderlays, patch nodeunderlays";
    let cannot_tell = ["! NodeUnderlay: ", "! controller: "];
    let report = runtime.doctor(&cluster.nodes[0]);
    assert_reports(&report, 1, &[may_not, cannot_tell[0], cannot_tell[1]]);
    drop(server);
    let report = runtime.doctor(&cluster.nodes[0]);
    assert_reports(&report, 1, &[way, "✗ Kubernetes API: "]);
}
