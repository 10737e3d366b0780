//! A cluster for tests: nodes and pods are network namespaces, agents and the plugin are the built
//! binary.
//!
//! Names are unique to the process and the cluster, so that tests run side by side; everything is
//! taken down on drop, also when a test panics.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ratchet_protocol::{Client, LinkState, Links, Reply, Request};
use serde_json::{Value, json};

pub mod etcd;

pub const RATCHET: &str = env!("CARGO_BIN_EXE_ratchet");

/// How long anything may take to come about.
pub const DEADLINE: Duration = Duration::from_secs(20);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Polls until something is so.
#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => panic!("{what} did not come about: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Runs a command that must succeed, and gives what it printed.
#[track_caller]
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A named network namespace, deleted on drop.
#[derive(Debug)]
pub struct Netns {
    pub name: String,
}

impl Netns {
    pub fn new(label: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces: run them as root"
        );
        let name = format!(
            "rt-{}-{}-{label}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        sh(&format!(
            "ip netns add {name} && ip -n {name} link set lo up"
        ));
        Self { name }
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command to be run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let netns = File::open(self.path()).unwrap();
        // SAFETY: setns is a plain system call and safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
                Ok(())
            });
        }
        command
    }

    /// Runs a shell line inside.
    pub fn run(&self, line: &str) -> Output {
        self.command("sh").arg("-c").arg(line).output().unwrap()
    }

    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The network devices inside, by name, as `ip -d -j` shows them; without `lo`.
    pub fn links(&self) -> BTreeMap<String, Value> {
        let links: Vec<Value> = serde_json::from_str(&self.sh("ip -d -j addr show")).unwrap();
        let named = links
            .into_iter()
            .map(|link| (link["ifname"].as_str().unwrap().to_owned(), link));
        named.filter(|(name, _)| name != "lo").collect()
    }

    pub fn ping(&self, address: &str) -> bool {
        self.run(&format!("ping -c1 -W3 {address}"))
            .status
            .success()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .stderr(Stdio::null())
            .status();
    }
}

/// Nodes on a common underlay, a store and a directory that they share.
///
/// The nodes come first: an agent is stopped through its socket, which is in the directory.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub store: String,
    underlay: Netns,
    pub dir: tempfile::TempDir,
}

/// A node: a namespace with eth0 on the underlay, and perhaps an agent.
pub struct Node {
    pub netns: Netns,
    pub name: String,
    pub address: String,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub log: PathBuf,
    pub agent: Option<Child>,
    /// The binary that agents and the plugin are started from.
    pub program: PathBuf,
    /// Variables of the agents that are started here (not of those that the plugin starts).
    pub environment: BTreeMap<&'static str, PathBuf>,
    store: String,
    /// What its agents find in place of files of /etc.
    pub etc: BTreeMap<&'static str, PathBuf>,
    /// How many files its agents may have open, unless they ask for more.
    pub open_files: Option<u64>,
    /// Further keys of the config.
    keys: BTreeMap<String, Value>,
}

impl Cluster {
    pub fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = format!("sqlite:{}", dir.path().join("store.db").display());
        let underlay = Netns::new("underlay");
        underlay.sh("ip link add br0 type bridge && ip link set br0 up");
        let nodes = (0..count)
            .map(|n| Node::new(n, &underlay, dir.path(), &store))
            .collect();
        Self {
            dir,
            store,
            underlay,
            nodes,
        }
    }

    /// The same with an agent on every node.
    pub fn with_agents(count: usize) -> Self {
        let mut cluster = Self::new(count);
        for node in &mut cluster.nodes {
            node.start_agent();
        }
        cluster
    }

    /// Rows of all tables of the store, for the claim that nothing is left.
    pub fn store_rows(&self) -> String {
        let path = self.dir.path().join("store.db");
        let script = format!(
            "import sqlite3; c = sqlite3.connect('{}'); \
             t = [r[0] for r in c.execute(\"select name from sqlite_master where type='table' and \
             name not like 'sqlite%'\")]; \
             print([(n, r) for n in t for r in c.execute('select * from ' + n)])",
            path.display()
        );
        let output = Command::new("python3")
            .arg("-c")
            .arg(script)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a key of a node's config is before a test sets it.
    pub fn defaults(node: &Node, key: &str) -> Value {
        let mut config = node.base_config();
        config[key].take()
    }

    /// Asserts that nothing of any pod is left anywhere. It may take a moment: a DEL succeeds
    /// although the store is busy, and the agent tells it later.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        for node in &self.nodes {
            eventually(&format!("an empty {}", node.name), || {
                let mut left: Vec<String> = node
                    .netns
                    .links()
                    .into_keys()
                    .filter(|name| name != "eth0")
                    .collect();
                for dir in ["sandboxes", "attachments"] {
                    let find = format!(
                        "find {}/{dir} -type f ! -name '*.lock' 2>/dev/null || true",
                        node.state_dir.display()
                    );
                    left.extend(sh(&find).lines().map(str::to_owned));
                }
                if left.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{left:?} is left"))
                }
            });
        }
    }
}

impl Node {
    fn new(number: usize, underlay: &Netns, dir: &Path, store: &str) -> Self {
        let name = format!("node{}", number + 1);
        let netns = Netns::new(&name);
        let address = format!("10.91.0.{}", number + 1);
        underlay.sh(&format!(
            "ip link add v{number} type veth peer name eth0 netns {} && ip link set v{number} \
             master br0 up",
            netns.name
        ));
        netns.sh(&format!(
            "ip addr add {address}/24 dev eth0 && ip link set eth0 up && ip route \
                           add default dev eth0"
        ));
        let state_dir = dir.join(&name);
        Self {
            socket: dir.join(format!("{name}.run")).join("agent.sock"),
            log: dir.join(format!("{name}.log")),
            agent: None,
            program: PathBuf::from(RATCHET),
            environment: BTreeMap::new(),
            store: store.to_owned(),
            etc: BTreeMap::new(),
            open_files: None,
            keys: BTreeMap::new(),
            netns,
            name,
            address,
            state_dir,
        }
    }

    pub fn start_agent(&mut self) {
        self.start_agent_with(&[]);
    }

    pub fn start_agent_with(&mut self, extra: &[&str]) {
        self.spawn_agent(extra);
        // One that the plugin started may go on answering for a moment.
        let pid = self.agent.as_ref().map(Child::id);
        eventually("the agent", || match self.agent_pid() {
            answering if answering == pid => Ok(()),
            answering => Err(format!(
                "{answering:?} answers, not {pid:?}; log: {}",
                self.log_text()
            )),
        });
    }

    /// Starts an agent and does not wait for it.
    pub fn spawn_agent(&mut self, extra: &[&str]) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let mut command = self.netns.command(&self.program);
        if !self.etc.is_empty() {
            let etc: Vec<_> = self
                .etc
                .iter()
                .map(|(name, file)| (Path::new("/etc").join(name), file.clone()))
                .collect();
            // SAFETY: unshare and mount are plain system calls; the paths were made before the
            // fork.
            unsafe {
                command.pre_exec(move || Ok(mount_in_place_of(&etc)?));
            }
        }
        if let Some(soft) = self.open_files {
            // SAFETY: two plain system calls.
            unsafe {
                command.pre_exec(move || {
                    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
                    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?)
                });
            }
        }
        command.args([
            "agent",
            "--store",
            &self.store,
            "--node",
            &self.name,
            "--parent-interface",
            "eth0",
        ]);
        command.args(["--parent-address", &self.address, "--log-level", "debug"]);
        command
            .arg("--socket")
            .arg(&self.socket)
            .arg("--state-dir")
            .arg(&self.state_dir)
            .args(extra);
        command.envs(&self.environment);
        self.agent = Some(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap(),
        );
    }

    #[track_caller]
    pub fn wait_for_agent(&self) {
        eventually("the agent", || {
            match Client::call(&self.socket, &Request::Hello, DEADLINE) {
                Ok(Reply::Hello(_)) => Ok(()),
                other => Err(format!("{other:?}; log: {}", self.log_text())),
            }
        });
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL, and wait.
    pub fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// The agent's process, also of one that the plugin started.
    pub fn agent_pid(&self) -> Option<u32> {
        match Client::call(&self.socket, &Request::Hello, DEADLINE) {
            Ok(Reply::Hello(hello)) => Some(hello.pid),
            _ => None,
        }
    }

    /// Stops whatever agent there is.
    pub fn stop_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            terminate(agent.id());
            agent.wait().unwrap();
        } else if let Some(pid) = self.agent_pid() {
            terminate(pid);
            let deadline = Instant::now() + DEADLINE;
            while Path::new(&format!("/proc/{pid}")).exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    pub fn links(&self) -> Links {
        match Client::call(&self.socket, &Request::Links { watch: false }, DEADLINE) {
            Ok(Reply::Links(links)) => links,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until exactly so many links are up and none is in another state.
    #[track_caller]
    pub fn wait_for_links(&self, count: usize) {
        eventually(&format!("{count} links on {}", self.name), || {
            let links = self.links().links;
            let up = links
                .iter()
                .filter(|link| link.state == LinkState::Up)
                .count();
            if up == count && links.len() == count {
                Ok(())
            } else {
                Err(format!("{links:#?}"))
            }
        });
    }

    /// The CNI config of this node.
    pub fn config(&self) -> Value {
        let mut config = self.base_config();
        for (key, value) in &self.keys {
            config[key] = value.clone();
        }
        config
    }

    fn base_config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "test-net",
            "type": "ratchet",
            "store": self.store,
            "node": self.name,
            "parent_interface": "eth0",
            "parent_address": self.address,
            "socket": self.socket,
            "state_dir": self.state_dir,
            "delegate": {"type": "loopback"},
        })
    }

    /// Sets a key of the config.
    pub fn set(&mut self, key: &str, value: Value) {
        self.keys.insert(key.to_owned(), value);
    }

    /// Has the config (and agents started from now on) use another store.
    pub fn set_store(&mut self, url: &str) {
        self.store = url.to_owned();
    }

    /// Calls the plugin as a runtime does.
    pub fn plugin(&self, verb: &str, sandbox: &Sandbox, config: &Value) -> Output {
        self.plugin_with(verb, sandbox, config, |_| ())
    }

    /// The same with something changed about the command.
    pub fn plugin_with(
        &self,
        verb: &str,
        sandbox: &Sandbox,
        config: &Value,
        change: impl FnOnce(&mut Command),
    ) -> Output {
        let mut command = self.plugin_command(verb, sandbox);
        change(&mut command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(config.to_string().as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    pub fn plugin_command(&self, verb: &str, sandbox: &Sandbox) -> Command {
        let mut command = self.netns.command(&self.program);
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &sandbox.id)
            .env("CNI_NETNS", sandbox.netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin:/usr/lib/cni")
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={};\
                     K8S_POD_INFRA_CONTAINER_ID={}",
                    sandbox.pod.name, sandbox.id
                ),
            );
        command
    }

    /// ADD, with what the pod declares put into the config.
    pub fn try_add(&self, sandbox: &Sandbox) -> Result<Value, Value> {
        let output = self.plugin("ADD", sandbox, &sandbox.pod.configure(self.config()));
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {output:?}; agent: {}", self.log_text()));
        if output.status.success() {
            Ok(document)
        } else {
            Err(document)
        }
    }

    #[track_caller]
    pub fn add(&self, sandbox: &Sandbox) -> Value {
        self.try_add(sandbox).unwrap_or_else(|e| {
            panic!(
                "ADD of {}: {e}\nagent: {}",
                sandbox.pod.name,
                self.log_text()
            )
        })
    }

    #[track_caller]
    pub fn del(&self, sandbox: &Sandbox) {
        let output = self.plugin("DEL", sandbox, &sandbox.pod.configure(self.config()));
        assert!(
            output.status.success(),
            "DEL of {}: {output:?}\nagent: {}",
            sandbox.pod.name,
            self.log_text()
        );
    }
}

/// Gives this process a mount namespace of its own with others in place of these files. It sees
/// network namespaces that others mount later on.
fn mount_in_place_of(files: &[(PathBuf, PathBuf)]) -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_SLAVE | MsFlags::MS_REC,
        None::<&str>,
    )?;
    files.iter().try_for_each(|(place, file)| {
        mount(
            Some(file),
            place,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
    })
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop_agent();
        if std::thread::panicking() {
            eprintln!("--- log of {}:\n{}", self.name, self.log_text());
        }
    }
}

pub fn terminate(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
}

/// What a pod is and declares.
#[derive(Debug, Clone, Default)]
pub struct Pod {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub annotations: BTreeMap<String, String>,
}

impl Pod {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// A pod with `ratchet.dev/links`.
    pub fn with_links(name: &str, links: &str) -> Self {
        Self {
            annotations: [("ratchet.dev/links".to_owned(), links.to_owned())].into(),
            ..Self::new(name)
        }
    }

    /// A pod with the labels of 2017: itself and its pair, as `address@interface`.
    pub fn primary(name: &str, local: &str, pair: &str, remote: &str) -> Self {
        let (local_ip, local_ifname) = local.split_once('@').unwrap();
        let (pair_ip, pair_ifname) = remote.split_once('@').unwrap();
        Self::new(name)
            .label("ratchet", "true")
            .label("ratchet.pod_name", name)
            .label("ratchet.primary", "true")
            .label("ratchet.local_ip", local_ip)
            .label("ratchet.local_ifname", local_ifname)
            .label("ratchet.pair_name", pair)
            .label("ratchet.pair_ip", pair_ip)
            .label("ratchet.pair_ifname", pair_ifname)
    }

    /// The other pod of a pair.
    pub fn pair(name: &str) -> Self {
        Self::new(name)
            .label("ratchet", "true")
            .label("ratchet.pod_name", name)
            .label("ratchet.primary", "false")
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.retain(|(known, _)| known != key);
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    pub fn configure(&self, mut config: Value) -> Value {
        let labels: Vec<Value> = self
            .labels
            .iter()
            .map(|(key, value)| json!({"key": key, "value": value}))
            .collect();
        config["args"] = json!({"cni": {"labels": labels}});
        config["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": self.annotations});
        config
    }

    /// A sandbox for this pod: a fresh namespace and container id.
    pub fn sandbox(&self) -> Sandbox {
        let id = format!(
            "{}{:08x}{:08x}",
            "ab12",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        Sandbox {
            netns: Netns::new(&self.name),
            id,
            pod: self.clone(),
        }
    }
}

/// One runtime instance of a pod.
pub struct Sandbox {
    pub netns: Netns,
    pub id: String,
    pub pod: Pod,
}

/// The article's cloud router.
pub fn cloud_router() -> [Pod; 4] {
    [
        Pod::primary(
            "centosa",
            "192.168.2.100@in1",
            "quagga-a",
            "192.168.2.101@in2",
        ),
        Pod::primary(
            "quagga-a",
            "192.168.3.100@mid1",
            "quagga-b",
            "192.168.3.101@mid2",
        ),
        Pod::primary(
            "quagga-b",
            "192.168.4.100@out1",
            "centosb",
            "192.168.4.101@out2",
        ),
        Pod::pair("centosb"),
    ]
}

/// A ping that runs all the while; `stop` gives how many were sent and lost.
pub struct Pinger {
    child: Child,
}

impl Pinger {
    /// Begins, once the address answers.
    #[track_caller]
    pub fn start(netns: &Netns, address: &str) -> Self {
        eventually(&format!("an answer from {address}"), || {
            if netns.ping(address) {
                Ok(())
            } else {
                Err("none".into())
            }
        });
        let child = netns
            .command("ping")
            .args(["-i", "0.01", "-W", "2", address])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Stops and asserts that nothing was lost.
    #[track_caller]
    pub fn assert_no_loss(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        let mut text = String::new();
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        self.child.wait().unwrap();
        let summary = BufReader::new(text.as_bytes())
            .lines()
            .map_while(Result::ok)
            .find(|l| l.contains("packet loss"));
        let summary = summary.unwrap_or_else(|| panic!("no summary: {text}"));
        let numbers: Vec<u32> = summary
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|w| w.parse().ok())
            .collect();
        // The last one may still have been on its way when ping was stopped.
        assert!(numbers[0] > 0 && numbers[0] - numbers[1] <= 1, "{summary}");
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
