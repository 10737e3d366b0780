//! A real etcd on the cluster's underlay, in its own namespace, so that each node can be cut off
//! from it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    os::unix::process::CommandExt,
    process::{Child, Stdio},
};

use nix::{
    sys::{prctl, signal::Signal},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{Cluster, Netns, Node, eventually};

/// etcd's address on the underlay.
pub const ADDRESS: &str = "10.91.0.250";
pub const PORT: u16 = 2379;

/// Nodes that share an etcd. The cluster is dropped first: its agents are stopped while etcd still
/// runs.
pub struct EtcdCluster {
    pub cluster: Cluster,
    pub etcd: Etcd,
}

impl EtcdCluster {
    /// Nodes without agents, and a running etcd.
    pub fn new(count: usize) -> Self {
        Self::with(count, |_| Vec::new())
    }

    /// Nodes with an agent each, and a running etcd.
    pub fn with_agents(count: usize) -> Self {
        let mut all = Self::new(count);
        all.cluster.nodes.iter_mut().for_each(Node::start_agent);
        all
    }

    /// As [`EtcdCluster::new`], with further arguments for etcd, which may name files in the
    /// cluster's directory.
    pub fn with(count: usize, arguments: impl FnOnce(&Cluster) -> Vec<String>) -> Self {
        let mut cluster = Cluster::new(count);
        let arguments = arguments(&cluster);
        let etcd = Etcd::start(&cluster, arguments);
        cluster.store = etcd.url();
        for node in &mut cluster.nodes {
            node.set_store(&etcd.url());
        }
        Self { cluster, etcd }
    }
}

pub struct Etcd {
    netns: Netns,
    child: Option<Child>,
    data: TempDir,
    arguments: Vec<String>,
    /// Further arguments of etcdctl, for its credentials.
    pub ctl: Vec<String>,
}

impl Etcd {
    fn start(cluster: &Cluster, arguments: Vec<String>) -> Self {
        let netns = Netns::new("etcd");
        cluster.underlay.sh(&format!(
            "ip link add etcd type veth peer name eth0 netns {} && ip link set etcd master br0 up",
            netns.name
        ));
        netns.sh(&format!(
            "ip addr add {ADDRESS}/24 dev eth0 && ip link set eth0 up"
        ));
        let mut etcd = Self {
            netns,
            child: None,
            data: tempfile::tempdir().unwrap(),
            arguments,
            ctl: Vec::new(),
        };
        etcd.start_again();
        etcd
    }

    fn is_tls(&self) -> bool {
        self.arguments
            .iter()
            .any(|argument| argument.starts_with("--cert-file"))
    }

    pub fn url(&self) -> String {
        format!(
            "{}://{ADDRESS}:{PORT}",
            if self.is_tls() { "etcds" } else { "etcd" }
        )
    }

    /// Starts etcd with its data and waits until it listens.
    ///
    /// It is killed when the calling thread ends (PR_SET_PDEATHSIG).
    pub fn start_again(&mut self) {
        let scheme = if self.is_tls() { "https" } else { "http" };
        let client = format!("{scheme}://{ADDRESS}:{PORT}");
        let peer = "http://127.0.0.1:2380";
        let mut command = self.netns.command("etcd");
        command
            .args(["--log-level", "error", "--unsafe-no-fsync", "--data-dir"])
            .arg(self.data.path());
        command
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"));
        command
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"));
        command
            .arg(format!("--initial-cluster=default={peer}"))
            .args(&self.arguments);
        // SAFETY: prctl is a plain system call, safe between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?));
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.data.path().join("log"))
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child =
            Some(child.expect("etcd must be installed: apt-get install etcd-server etcd-client"));
        eventually("etcd", || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                let log = std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default();
                panic!("etcd ended, {status}: {log}");
            }
            self.inside(|| TcpStream::connect((ADDRESS, PORT)).map(drop))
                .map_err(|error| error.to_string())
        });
    }

    /// Moves etcd to another address of the underlay: the old one does not answer any more. etcd
    /// must listen on all addresses.
    pub fn move_to(&self, address: &str) {
        self.netns.sh(&format!(
            "ip addr add {address}/24 dev eth0; \
             nft 'table inet moved {{ chain input {{ type filter hook input priority 0; \
             iifname eth0 ip daddr {ADDRESS} drop; }}; }}'"
        ));
    }

    /// Kills etcd and keeps its data.
    pub fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Kills etcd and starts it without data.
    pub fn wipe(&mut self) {
        self.stop();
        self.data = tempfile::tempdir().unwrap();
        self.start_again();
    }

    /// Sends a signal, such as SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let netns = File::open(self.netns.path()).unwrap();
        std::thread::scope(|scope| {
            let enter_and_work = move || {
                nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            scope.spawn(enter_and_work).join().unwrap()
        })
    }

    /// Runs etcdctl, which must succeed, and returns its output.
    #[track_caller]
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let scheme = if self.is_tls() { "https" } else { "http" };
        let mut command = self.netns.command("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={scheme}://{ADDRESS}:{PORT}"))
            .args(&self.ctl);
        let output = command.args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "etcdctl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// All keys with their values.
    pub fn everything(&self) -> BTreeMap<String, String> {
        let listing = self.ctl(&["get", "--prefix", ""]);
        let mut lines = listing.lines().map(str::to_owned);
        let mut found = BTreeMap::new();
        while let (Some(key), Some(value)) = (lines.next(), lines.next()) {
            found.insert(key, value);
        }
        found
    }

    /// Waits until etcd has no key.
    #[track_caller]
    pub fn wait_until_empty(&self) {
        eventually("an empty etcd", || {
            let found = self.everything();
            if found.is_empty() {
                Ok(())
            } else {
                Err(format!("{found:#?}"))
            }
        });
    }

    /// etcd's count of its own puts and deletes.
    pub fn writes(&self) -> u64 {
        let text = self.inside(|| {
            let mut stream = TcpStream::connect((ADDRESS, PORT)).unwrap();
            stream
                .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
                .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let count = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            let number: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            format!("{number:.0}").parse().unwrap()
        };
        count("etcd_mvcc_put_total ") + count("etcd_mvcc_delete_total ")
    }

    /// The current revision.
    pub fn revision(&self) -> String {
        let status = self.ctl(&["endpoint", "status", "-w", "json"]);
        let revision = status.split("\"revision\":").nth(1).unwrap();
        revision
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap()
            .to_owned()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Which traffic of a node is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All traffic to and from etcd.
    Etcd,
    /// The answers of etcd; requests arrive.
    Answers,
    /// All traffic on the underlay.
    Underlay,
}

impl Node {
    /// Drops traffic of the node, by nftables.
    pub fn cut(&self, what: Cut) {
        let (input, output) = match what {
            Cut::Etcd => (
                format!("ip saddr {ADDRESS} drop"),
                format!("ip daddr {ADDRESS} drop"),
            ),
            Cut::Answers => (format!("ip saddr {ADDRESS} drop"), String::new()),
            Cut::Underlay => ("iifname eth0 drop".into(), "oifname eth0 drop".into()),
        };
        self.netns.sh(&format!(
            "nft 'table inet cut {{ chain input {{ type filter hook input priority 0; {input}; }}; \
             chain output {{ type filter hook output priority 0; {output}; }}; }}'"
        ));
    }

    /// Ends [`Node::cut`].
    pub fn reconnect(&self) {
        self.netns.sh("nft delete table inet cut");
    }
}
