//! Nodes, pods, agents and the store of a benchmark: nodes and pods are network namespaces, agents
//! and the plugin are the binary under test.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ratchet_protocol::{Client, Request};
use serde_json::{Value, json};

use crate::{
    Bench,
    world::{Netns, Process, eventually, unique},
};

/// Where Debian's plugins are.
pub const PLUGINS: &str = "/usr/lib/cni";
/// How long a state may take to be reached.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// The kind of store that the nodes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// A file.
    Sqlite,
    /// A real etcd with its data on disk.
    Etcd,
}

/// Nodes on one underlay. The fields are dropped in this order.
pub struct Site {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// etcd, if that is the store.
    pub etcd: Option<Etcd>,
    /// The namespace of the underlay's switch.
    pub underlay: Netns,
    /// The directory of all files.
    _dir: tempfile::TempDir,
}

/// A node: a namespace with eth0 on the underlay, and an agent.
pub struct Node {
    agent: Process,
    /// The namespace.
    pub netns: Netns,
    start: Start,
    config: Value,
    /// CNI_PATH.
    path: String,
}

/// How a node's agent is started.
struct Start {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// The file of its log; `None` to show the log to the user.
    log: Option<PathBuf>,
    socket: PathBuf,
}

/// One sandbox of a pod.
pub struct Pod {
    /// Its namespace.
    pub netns: Netns,
    /// The pod's name.
    pub name: String,
    id: String,
    links: Option<Value>,
}

/// A real etcd on the underlay.
pub struct Etcd {
    _server: Process,
    /// The value of the setting `store`.
    pub url: String,
}

/// Makes the namespace of the underlay's switch, with the address of etcd.
pub fn underlay() -> Result<Netns> {
    let underlay = Netns::new("underlay")?;
    underlay.sh(
        "ip link add br0 type bridge && ip addr add 10.92.0.254/16 dev br0 && ip link set br0 up",
    )?;
    Ok(underlay)
}

impl Site {
    /// Makes `nodes` nodes, each with an agent that answers.
    pub fn new(bench: &Bench, nodes: usize, storage: Storage) -> Result<Self> {
        let dir = tempfile::tempdir_in(&bench.scratch)?;
        let underlay = underlay()?;
        let etcd = match storage {
            Storage::Sqlite => None,
            Storage::Etcd => Some(Etcd::start(&underlay, dir.path(), &[])?),
        };
        let file = format!("sqlite:{}", dir.path().join("store.db").display());
        let store = etcd.as_ref().map_or(file, |etcd| etcd.url.clone());
        let nodes =
            (1..=nodes).map(|number| Node::new(bench, number, &underlay, dir.path(), &store));
        Ok(Self {
            nodes: nodes.collect::<Result<_>>()?,
            etcd,
            underlay,
            _dir: dir,
        })
    }
}

impl Etcd {
    /// Starts etcd on the underlay's own address and waits until it accepts connections.
    pub fn start(underlay: &Netns, dir: &Path, arguments: &[&str]) -> Result<Self> {
        let client = "http://10.92.0.254:2379";
        let mut command = underlay.command("etcd")?;
        command
            .arg("--log-level=error")
            .arg(format!("--data-dir={}", dir.join("etcd").display()));
        command
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"));
        command.args([
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--quota-backend-bytes=4294967296",
        ]);
        command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server =
            Process::start(&mut command).context("etcd is needed: apt-get install etcd-server")?;
        eventually("etcd", TIMEOUT, || {
            underlay.inside(|| Ok(TcpStream::connect(("10.92.0.254", 2379)).is_ok()))
        })?;
        Ok(Self {
            _server: server,
            url: "etcd://10.92.0.254:2379".into(),
        })
    }
}

impl Start {
    /// Starts the agent in this namespace and waits until it answers.
    fn agent(&self, netns: &Netns) -> Result<Process> {
        let mut command = netns.command(&self.program)?;
        command.args(&self.arguments).stdout(Stdio::null());
        if let Some(log) = &self.log {
            command.stderr(File::create(log)?);
        }
        let mut agent = Process::start(&mut command)?;
        eventually("the agent", TIMEOUT, || {
            if !agent.is_alive()? {
                let log = self
                    .log
                    .as_ref()
                    .and_then(|log| fs::read_to_string(log).ok());
                bail!("the agent ended: {}", log.unwrap_or_default());
            }
            Ok(Client::call(&self.socket, &Request::Hello, TIMEOUT).is_ok())
        })?;
        Ok(agent)
    }
}

impl Node {
    fn new(
        bench: &Bench,
        number: usize,
        underlay: &Netns,
        dir: &Path,
        store: &str,
    ) -> Result<Self> {
        let name = format!("node{number}");
        let netns = Netns::new(&name)?;
        let address = format!("10.92.{}.{}", 1 + number / 250, 1 + number % 250);
        connect(&netns, underlay, number, &address)?;
        let (state_dir, socket) = (dir.join(&name), dir.join(format!("{name}.run/agent.sock")));
        let log_level = if bench.logs { "info" } else { "warn" };
        let options: [(&str, &OsStr); 7] = [
            ("--store", store.as_ref()),
            ("--node", name.as_ref()),
            ("--parent-interface", "eth0".as_ref()),
            ("--parent-address", address.as_ref()),
            ("--log-level", log_level.as_ref()),
            ("--socket", socket.as_ref()),
            ("--state-dir", state_dir.as_ref()),
        ];
        let options = options
            .into_iter()
            .flat_map(|(option, value)| [option.into(), value.to_owned()]);
        let start = Start {
            program: bench.ratchet.clone(),
            arguments: std::iter::once("agent".into()).chain(options).collect(),
            log: (!bench.logs).then(|| dir.join(format!("{name}.log"))),
            socket: socket.clone(),
        };
        let agent = start.agent(&netns)?;
        let config = json!({
            "cniVersion": "1.0.0", "name": "rb-net", "type": "ratchet", "store": store,
            "node": name, "parent_interface": "eth0", "parent_address": address,
            "socket": socket, "state_dir": state_dir,
            "delegate": {"type": "rb-noop"},
        });
        let path = format!("{}:{PLUGINS}", bench.scratch.display());
        Ok(Self {
            agent,
            netns,
            start,
            config,
            path,
        })
    }

    /// The agent's process id.
    pub fn agent(&self) -> u32 {
        self.agent.id()
    }

    /// Ends the agent and starts another one with the same state; it answers when this returns.
    pub fn restart(&mut self) -> Result<()> {
        self.agent.end();
        self.agent = self.start.agent(&self.netns)?;
        Ok(())
    }

    /// The config with another delegate.
    pub fn config_with(&self, delegate: Value) -> Value {
        let mut config = self.config.clone();
        config["delegate"] = delegate;
        config
    }

    /// Calls a plugin in this node's namespace as a runtime does. Returns the time from before its
    /// start until after its end, and its output.
    pub fn call(
        &self,
        program: &Path,
        verb: &str,
        pod: &Pod,
        config: &Value,
    ) -> Result<(Duration, Output)> {
        let mut config = config.clone();
        if let Some(links) = &pod.links {
            let annotations = json!({"ratchet.dev/links": links.to_string()});
            config["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": annotations});
        }
        let mut command = self.netns.command(program)?;
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &pod.id)
            .env("CNI_NETNS", pod.netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.path)
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}",
                    pod.name
                ),
            );
        let (time, output) = timed_call(&mut command, config.to_string().as_bytes())?;
        if !output.status.success() {
            let printed = String::from_utf8_lossy(&output.stdout);
            bail!(
                "{verb} of {} with {}: {} {}",
                pod.name,
                program.display(),
                output.status,
                printed.trim()
            );
        }
        Ok((time, output))
    }

    /// Calls Ratchet's plugin for a pod. Returns the time it took.
    pub fn ratchet(&self, verb: &str, pod: &Pod) -> Result<Duration> {
        Ok(self.call(&self.start.program, verb, pod, &self.config)?.0)
    }
}

/// Connects a node to the underlay: eth0 with this address.
fn connect(node: &Netns, underlay: &Netns, number: usize, address: &str) -> Result<()> {
    let to = node.name();
    underlay.sh(&format!(
        "ip link add v{number} type veth peer name eth0 netns {to} && \
         ip link set v{number} master br0 up"
    ))?;
    node.sh(&format!(
        "ip addr add {address}/16 dev eth0 && ip link set eth0 up && \
         ip route add default dev eth0"
    ))?;
    Ok(())
}

/// Runs a program with this standard input. Returns the time it took, and its output.
pub fn timed_call(command: &mut Command, stdin: &[u8]) -> Result<(Duration, Output)> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let begun = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program need not read its input.
        let _ = pipe.write_all(stdin);
    }
    let output = child.wait_with_output()?;
    Ok((begun.elapsed(), output))
}

impl Pod {
    /// A pod that declares no links.
    pub fn new(name: &str) -> Result<Self> {
        Self::with(name, Some(json!([])))
    }

    /// A pod that declares these links.
    pub fn with_links(name: &str, links: Value) -> Result<Self> {
        Self::with(name, Some(links))
    }

    /// A pod that Ratchet has nothing to do with.
    pub fn unmanaged(name: &str) -> Result<Self> {
        Self::with(name, None)
    }

    fn with(name: &str, links: Option<Value>) -> Result<Self> {
        let id = format!("{:08x}{:08x}", std::process::id(), unique());
        Ok(Self {
            netns: Netns::new("pod")?,
            name: name.to_owned(),
            id,
            links,
        })
    }
}

/// Declares `count` links to a pod, with one address per end. The interfaces are l0, l1, … at both
/// ends.
pub fn links_to(peer: &str, count: usize) -> Value {
    let link = |number| {
        let [own, other] = subnet(number);
        json!({
            "interface": format!("l{number}"), "peer": format!("{peer}/l{number}"),
            "addresses": [own], "peerAddresses": [other],
        })
    };
    (0..count).map(link).collect()
}

/// The addresses of the two ends of a link, by the link's number.
pub fn subnet(number: usize) -> [String; 2] {
    let (high, low) = (number / 256, number % 256);
    [1, 2].map(|end| format!("10.{high}.{low}.{end}/24"))
}
