//! A real etcd for a test: on a free port of the loopback interface, with its own data directory, gone with the test.
#![allow(clippy::unwrap_used, reason = "these are tests: a panic is how they fail")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ratchet_store::{HostPort, StoreUrl};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

pub struct EtcdServer {
    child: Child,
    pub directory: TempDir,
    pub port: u16,
    peer_port: u16,
    arguments: Vec<String>,
}

impl EtcdServer {
    /// Starts one that speaks plain HTTP/2.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with more arguments; with certificates among them it speaks TLS.
    pub fn with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Two at once, so that they differ. Somebody else may take them before etcd does: then another two.
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        for _try in 0..5 {
            let [port, peer_port] = [0, 0]
                .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
                .map(|listener| listener.local_addr().unwrap().port());
            let child = spawn(directory.path(), port, peer_port, &arguments);
            let mut server =
                Self { child, directory: tempfile::tempdir().unwrap(), port, peer_port, arguments: arguments.clone() };
            if server.is_up() {
                server.directory = directory;
                return server;
            }
        }
        panic!("etcd does not start");
    }

    fn is_up(&mut self) -> bool {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(begun.elapsed() < DEADLINE, "etcd does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    pub fn url(&self) -> StoreUrl {
        let tls = self.arguments.iter().any(|argument| argument.starts_with("--cert-file"));
        StoreUrl::Etcd { hosts: vec![HostPort { host: "127.0.0.1".into(), port: self.port }], tls }
    }

    /// Stops it; its data remain.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port, with the data it had.
    pub fn start_again(&mut self) {
        self.child = spawn(self.directory.path(), self.port, self.peer_port, &self.arguments);
        assert!(self.is_up(), "etcd does not start again");
    }

    /// Stops it and starts it again with nothing.
    pub fn wipe(&mut self) {
        self.stop();
        self.directory = tempfile::tempdir().unwrap();
        self.start_again();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Runs etcdctl; answers with what it prints.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=127.0.0.1:{}", self.port))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// All keys.
    pub fn keys(&self) -> Vec<String> {
        let listing = self.ctl(&["get", "--prefix", "--keys-only", "/"]);
        listing.lines().filter(|line| !line.is_empty()).map(ToString::to_string).collect()
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _already_waited_for = self.child.wait();
    }
}

fn spawn(data: &Path, port: u16, peer_port: u16, arguments: &[String]) -> Child {
    let scheme = if arguments.iter().any(|argument| argument.starts_with("--cert-file")) { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    // setpriv: also if the test is killed.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "etcd", "--log-level", "error"])
        .arg(format!("--data-dir={}", data.display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=default={peer}"))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd and setpriv must be installed: apt-get install etcd-server etcd-client util-linux")
}
