//! A real etcd for a test, on a free port of the loopback interface, with its own data directory.
//! Both end with the test.
#![allow(
    clippy::unwrap_used,
    reason = "these are tests: a panic is how they fail"
)]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    fs::{self, File},
    os::unix::net::UnixDatagram,
    path::Path,
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use ratchet_store::{HostPort, StoreUrl};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

pub struct EtcdServer {
    child: Child,
    /// Its data, its log, and the socket on which it reports that it is ready.
    directory: TempDir,
    pub port: u16,
    arguments: Vec<String>,
}

impl EtcdServer {
    /// Starts an etcd without TLS.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts an etcd with more arguments. With certificates among them, it uses TLS.
    pub fn with(arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut ended = String::new();
        // If the ports are in use, try the next two.
        for _try in 0..5 {
            let (directory, port) = (tempfile::tempdir().unwrap(), next_port());
            match start(directory.path(), port, &arguments) {
                Ok(child) => {
                    return Self {
                        child,
                        directory,
                        port,
                        arguments,
                    };
                }
                Err(log) => ended = log,
            }
        }
        panic!("etcd does not start: {ended}");
    }

    pub fn url(&self) -> StoreUrl {
        let tls = self
            .arguments
            .iter()
            .any(|argument| argument.starts_with("--cert-file"));
        StoreUrl::Etcd {
            hosts: vec![HostPort {
                host: "127.0.0.1".into(),
                port: self.port,
            }],
            tls,
        }
    }

    /// Stops it and keeps its data.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port, with its data.
    pub fn start_again(&mut self) {
        self.child =
            start(self.directory.path(), self.port, &self.arguments).expect("etcd starts again");
    }

    /// Stops it and starts it again without data.
    pub fn wipe(&mut self) {
        self.stop();
        self.directory = tempfile::tempdir().unwrap();
        self.start_again();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A directory for files of the test, which is removed at the end.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs etcdctl. Returns its output.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=127.0.0.1:{}", self.port))
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Puts a file's content into a key.
    pub fn put_file(&self, key: &str, file: &Path) {
        let status = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=127.0.0.1:{}", self.port))
            .args(["put", key])
            .stdin(File::open(file).unwrap())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// All keys.
    pub fn keys(&self) -> Vec<String> {
        let listing = self.ctl(&["get", "--prefix", "--keys-only", "/"]);
        listing
            .lines()
            .filter(|line| !line.is_empty())
            .map(ToString::to_string)
            .collect()
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _already_waited_for = self.child.wait();
    }
}

/// The first of two ports that no other test gets. They are below `ip_local_port_range`, so that no
/// outgoing connection gets them either.
fn next_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let of_this_process = process::id().wrapping_mul(100);
    let port = of_this_process.wrapping_add(2 * GIVEN.fetch_add(1, Ordering::Relaxed)) % 20_000;
    10_000 + u16::try_from(port).unwrap()
}

/// Starts an etcd and waits until it is ready. If it ends instead, returns its log.
///
/// A listener on the port would not be enough: it may be another process, or an etcd that is about
/// to fail.
fn start(directory: &Path, port: u16, arguments: &[String]) -> Result<Child, String> {
    let scheme = if arguments
        .iter()
        .any(|argument| argument.starts_with("--cert-file"))
    {
        "https"
    } else {
        "http"
    };
    let (client, peer) = (
        format!("{scheme}://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{}", port + 1),
    );
    let (log, ready) = (directory.join("log"), directory.join("ready"));
    let _of_the_last_start = fs::remove_file(&ready);
    let socket = UnixDatagram::bind(&ready).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    // setpriv: etcd ends also if the test is killed.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "etcd", "--log-level", "error"])
        .arg(format!("--data-dir={}", directory.join("data").display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=default={peer}"))
        .args(arguments)
        // It sends READY=1, as to systemd (sd_notify(3)), when it is a member and answers.
        .env("NOTIFY_SOCKET", &ready)
        .stdout(Stdio::null())
        .stderr(
            File::options()
                .create(true)
                .append(true)
                .open(&log)
                .unwrap(),
        )
        .spawn()
        .expect(
            "etcd and setpriv must be installed: apt-get install etcd-server etcd-client \
                 util-linux",
        );
    let begun = Instant::now();
    while socket.recv(&mut [0; 64]).is_err() {
        let logged = || fs::read_to_string(&log).unwrap_or_default();
        if let Some(status) = child.try_wait().unwrap() {
            return Err(format!("{status}: {}", logged()));
        }
        assert!(
            begun.elapsed() < DEADLINE,
            "etcd does not serve: {}",
            logged()
        );
    }
    Ok(child)
}
