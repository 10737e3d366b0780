//! Multus and Ratchet: Multus calls Ratchet in its default network and as an attachment, and
//! Ratchet calls Multus.
//!
//! Multus is the real program (3.9.3, the last one with a Go module) with a real
//! API server. What Multus 4 writes into a pod's annotation is asked of the library that it calls
//! for that.
#![allow(clippy::unwrap_used, clippy::too_many_lines, missing_docs)]

mod support;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use ratchet_api_server::{Server, programs, tool};
use serde_json::{Value, json};

use support::{Cluster, Node, Pod, RATCHET, Sandbox};

/// Where Multus puts what it knows of a pod's interfaces.
const STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
const LINKS: &str = "ratchet.dev/links";
const NAMESPACE: &str = "lab";

/// One node with an API server, on which a runtime has Multus, Ratchet and Debian's plugins.
struct World {
    // Dropped first: its agent may be at work with the API.
    cluster: Cluster,
    server: Server,
    programs: PathBuf,
    multus: PathBuf,
    status: PathBuf,
}

impl World {
    /// `None` without Go.
    fn new() -> Option<Self> {
        let (multus, status) = (tool("multus")?, tool("network-status")?);
        let programs = programs()?;
        let cluster = Cluster::new(1);
        // From here on, this thread, and what it starts, is on the node.
        let netns = File::open(cluster.nodes[0].netns.path()).unwrap();
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(Server::start(&programs));
        let mut world = Self {
            cluster,
            server,
            programs,
            multus,
            status,
        };
        let bin = world.dir().join("bin");
        fs::create_dir(&bin).unwrap();
        let link = |of: &Path, name: &str| std::os::unix::fs::symlink(of, bin.join(name)).unwrap();
        link(Path::new(RATCHET), "ratchet");
        link(&world.multus, "multus");
        for name in ["bridge", "host-local", "loopback"] {
            link(&Path::new("/usr/lib/cni").join(name), name);
        }
        fs::write(world.kubeconfig(), world.server.kubeconfig()).unwrap();
        world.apply(&definition());
        world.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
        }));
        world.apply(&json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": NAMESPACE},
        }));
        // Multus passes no annotations on: the agent asks the API for them.
        let kubeconfig = world.kubeconfig().display().to_string();
        let node = &mut world.cluster.nodes[0];
        node.set("kubeconfig", json!(kubeconfig));
        node.set("report_addresses", json!(true));
        node.start_agent_with(&["--kubeconfig", &kubeconfig]);
        Some(world)
    }

    fn dir(&self) -> &Path {
        self.cluster.dir.path()
    }

    fn node(&self) -> &Node {
        &self.cluster.nodes[0]
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    fn apply(&self, object: &Value) {
        let file = self.dir().join("object.json");
        fs::write(&file, object.to_string()).unwrap();
        let file = file.display().to_string();
        self.server
            .kubectl(&self.programs, &["create", "-f", &file]);
    }

    /// A pod of the API, and its sandbox.
    fn pod(&self, name: &str, annotations: &Value) -> Sandbox {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
            "spec": {
                "automountServiceAccountToken": false,
                "containers": [{"name": "c", "image": "i"}],
            },
        }));
        Pod::new(name).in_namespace(NAMESPACE).sandbox()
    }

    /// Two pods with a link. The first one declares it.
    fn pair(&self, more: &Value) -> [Sandbox; 2] {
        let link = "[{interface: in1, peer: b/in1, addresses: [192.168.2.100/24, 'fd00::1/64'], \
                    peerAddresses: [192.168.2.101/24]}]";
        let with = |links: &str| {
            let mut annotations = more.clone();
            annotations[LINKS] = json!(links);
            annotations
        };
        [self.pod("a", &with(link)), self.pod("b", &with("[]"))]
    }

    /// A NetworkAttachmentDefinition.
    fn attachment(&self, namespace: &str, name: &str, config: &Value) {
        self.apply(&json!({
            "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"config": config.to_string()},
        }));
    }

    /// Multus' config, with these keys besides.
    fn multus(&self, more: Value) -> Value {
        let mut config = json!({
            "cniVersion": "0.4.0", "name": "multus-cni-network", "type": "multus",
            "kubeconfig": self.kubeconfig(), "logLevel": "error", "logToStderr": true,
            "cniDir": self.dir().join("multus"), "binDir": self.dir().join("bin"),
            "confDir": self.dir().join("net.d"),
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    fn bridge(&self, name: &str, number: u8) -> Value {
        json!({
            "type": "bridge", "bridge": name, "isGateway": true,
            "ipam": {"type": "host-local", "subnet": format!("10.{number}.0.0/24"),
                "dataDir": self.dir().join("leases")},
        })
    }

    /// Ratchet behind a bridge: what `ratchet agent --install` writes.
    fn chain(&self) -> Value {
        let mut own = self.node().config();
        for key in ["cniVersion", "name", "delegate"] {
            own.as_object_mut().unwrap().remove(key);
        }
        json!({
            "cniVersion": "0.4.0", "name": "cbr0",
            "plugins": [self.bridge("cni0", 77), own],
        })
    }

    /// Calls a plugin as a runtime does.
    fn call(&self, program: &Path, verb: &str, sandbox: &Sandbox, config: &Value) -> Output {
        let mut command = self.node().netns.command(program);
        for (name, value) in self.node().plugin_command(verb, sandbox).get_envs() {
            command.env(name, value.unwrap());
        }
        command.env("CNI_PATH", self.dir().join("bin"));
        run(command, config.to_string().as_bytes())
    }

    #[track_caller]
    fn add(&self, program: &Path, sandbox: &Sandbox, config: &Value) -> Value {
        let output = self.call(program, "ADD", sandbox, config);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn del(&self, program: &Path, sandbox: &Sandbox, config: &Value) {
        let output = self.call(program, "DEL", sandbox, config);
        assert!(output.status.success(), "{output:?}");
    }

    /// What Multus has written into a pod's annotation.
    fn annotation(&self, pod: &str) -> Value {
        let get = ["get", "pod", pod, "-n", NAMESPACE, "-o", "json"];
        let pod = self.server.kubectl(&self.programs, &get);
        let pod: Value = serde_json::from_str(&pod).unwrap();
        let text = pod["metadata"]["annotations"][STATUS].as_str();
        serde_json::from_str(text.unwrap_or("null")).unwrap()
    }

    /// What Multus 4 writes for an attachment with this result.
    fn status_of(&self, name: &str, is_default: bool, result: &Value) -> Value {
        let mut result = result.clone();
        // The same content in the version that the library reads.
        result["cniVersion"] = json!("1.0.0");
        let mut command = Command::new(&self.status);
        command.args([name, &is_default.to_string()]);
        let output = run(command, result.to_string().as_bytes());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Removes the pods of a test, and sees that nothing is left.
    fn end(&self, program: &Path, sandboxes: [Sandbox; 2], config: &Value) {
        for sandbox in &sandboxes {
            self.del(program, sandbox, config);
        }
        // Bridges stay; their ports must be gone.
        let bridges = "for b in cni0 cni1; do ip link show $b >/dev/null 2>&1 || continue; \
                       [ -z \"$(ip -o link show master $b)\" ] && ip link del $b || exit 1; done";
        self.node().netns.sh(bridges);
        self.cluster.assert_nothing_left();
        let delete = [
            "delete",
            "pods",
            "-n",
            NAMESPACE,
            "--all",
            "--grace-period=0",
            "--force",
        ];
        // It warns that containers may still run.
        let mut command = Command::new(self.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        assert!(command.args(delete).output().unwrap().status.success());
    }
}

fn run(mut command: Command, stdin: &[u8]) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

/// The definition of NetworkAttachmentDefinitions, as Multus' manifests have it.
fn definition() -> Value {
    let spec = json!({"type": "object", "properties": {"config": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "network-attachment-definitions.k8s.cni.cncf.io"},
        "spec": {
            "group": "k8s.cni.cncf.io", "scope": "Namespaced",
            "names": {"kind": "NetworkAttachmentDefinition", "shortNames": ["net-attach-def"],
                "plural": "network-attachment-definitions",
                "singular": "network-attachment-definition"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// Interface and addresses of each entry.
fn interfaces(status: &Value) -> Vec<(String, Vec<String>)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = status.as_array().unwrap().iter();
    entries
        .map(|entry| {
            let addresses = entry["ips"].as_array().into_iter().flatten();
            (text(&entry["interface"]), addresses.map(text).collect())
        })
        .collect()
}

fn entry(interface: &str, addresses: &[&str]) -> (String, Vec<String>) {
    let addresses = addresses.iter().map(ToString::to_string).collect();
    (interface.to_owned(), addresses)
}

fn mac(sandbox: &Sandbox, interface: &str) -> String {
    let line = format!("cat /sys/class/net/{interface}/address");
    let line = format!("mount -t sysfs none /sys && {line}");
    let mut unshare = sandbox.netns.command("unshare");
    let output = unshare.args(["-m", "sh", "-c", &line]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn multus_calls_ratchet_in_its_default_network_and_lists_its_links() {
    let Some(world) = World::new() else { return };
    let multus = world.multus.clone();
    let chain = world.chain();
    // Multus' own installation writes the first network into its config. clusterNetwork names a
    // network of the node, a directory with one, or a NetworkAttachmentDefinition of kube-system.
    let net_d = world.dir().join("net.d");
    fs::create_dir(&net_d).unwrap();
    fs::write(net_d.join("00-ratchet.conflist"), chain.to_string()).unwrap();
    world.attachment("kube-system", "defined", &chain);
    for shape in [
        json!({"delegates": [chain]}),
        json!({"clusterNetwork": "cbr0"}),
        json!({"clusterNetwork": net_d}),
        json!({"clusterNetwork": "defined"}),
    ] {
        let config = world.multus(shape);
        let [a, b] = world.pair(&json!({}));
        world.add(&multus, &b, &config);
        let result = world.add(&multus, &a, &config);
        world.node().wait_for_links(1);
        assert!(a.netns.run("ping -c1 -W2 192.168.2.101").status.success());

        let status = world.status_of("cbr0", true, &result);
        let own = result["ips"][0]["address"].as_str().unwrap();
        let own = own.split('/').next().unwrap();
        let expected = [
            entry("eth0", &[own]),
            entry("in1", &["192.168.2.100", "fd00::1"]),
        ];
        assert_eq!(interfaces(&status), expected, "{result}");
        assert_eq!(status[0]["default"], true);
        assert_eq!(status[1]["default"], Value::Null);
        assert_eq!(status[1]["mac"], json!(mac(&a, "in1")));
        // Before 4.1, Multus lists one interface of an attachment: the last one.
        let old = world.annotation("a");
        let expected = [entry("in1", &[own, "192.168.2.100", "fd00::1"])];
        assert_eq!(interfaces(&old), expected);
        // The peer of a link that comes later is not there yet.
        let old = interfaces(&world.annotation("b"));
        assert_eq!(old[0].0, "eth0");
        world.end(&multus, [a, b], &config);
    }
}

#[test]
fn multus_calls_ratchet_as_an_attachment() {
    let Some(world) = World::new() else { return };
    let multus = world.multus.clone();
    let mut own = world.node().config();
    own["cniVersion"] = json!("0.4.0");
    own["name"] = json!("links");
    own.as_object_mut().unwrap().remove("delegate");
    own["boot_network"] = json!({"type": "loopback"});
    world.attachment(NAMESPACE, "links", &own);
    let bridge = world.bridge("cni0", 77);
    let mut network = bridge;
    network["name"] = json!("cbr0");
    network["cniVersion"] = json!("0.4.0");
    let config = world.multus(json!({"delegates": [network]}));
    let [a, b] = world.pair(&json!({NETWORKS: "links"}));
    world.add(&multus, &b, &config);
    let result = world.add(&multus, &a, &config);
    world.node().wait_for_links(1);
    // The runtime is told of the default network only.
    assert_eq!(result["ips"].as_array().unwrap().len(), 1, "{result}");
    let old = interfaces(&world.annotation("a"));
    assert_eq!(old[0].0, "eth0");
    assert_eq!(old[1].0, "in1");
    let links = &old[1].1;
    assert!(links.contains(&"192.168.2.100".to_owned()), "{links:?}");
    assert!(links.contains(&"fd00::1".to_owned()), "{links:?}");
    world.end(&multus, [a, b], &config);
}

#[test]
fn ratchet_calls_multus() {
    let Some(world) = World::new() else { return };
    let ratchet = PathBuf::from(RATCHET);
    let mut network = world.bridge("cni0", 77);
    network["name"] = json!("cbr0");
    network["cniVersion"] = json!("0.4.0");
    let mut extra = world.bridge("cni1", 78);
    extra["cniVersion"] = json!("0.4.0");
    world.attachment(NAMESPACE, "extra", &extra);
    let mut config = world.node().config();
    config["cniVersion"] = json!("0.4.0");
    config["delegate"] = world.multus(json!({"delegates": [network]}));
    config["report_addresses"] = json!(false);

    // A pod that is not Ratchet's, and pods that are: Multus makes all but the links.
    let other = world.pod("other", &json!({NETWORKS: "extra@net7"}));
    world.add(&ratchet, &other, &config);
    other.netns.sh("ip link show eth0 && ip link show net7");
    let [a, b] = world.pair(&json!({NETWORKS: "extra"}));
    world.add(&ratchet, &b, &config);
    let result = world.add(&ratchet, &a, &config);
    world.node().wait_for_links(1);
    a.netns
        .sh("ip link show eth0 && ip link show net1 && ip link show in1");
    // Without the key, the links' addresses are not the pod's.
    assert_eq!(result["ips"].as_array().unwrap().len(), 1, "{result}");
    let status = interfaces(&world.annotation("a"));
    let names: Vec<_> = status.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["eth0", "net1"]);
    world.del(&ratchet, &other, &config);
    let left = other.netns.sh("ip -o link");
    assert_eq!(left.lines().count(), 1, "{left}");
    world.end(&ratchet, [a, b], &config);
}
