//! A node with its own containerd. It has its own network, mount, process and UTS namespaces, and
//! its files are on a tmpfs in them. When the first process of these namespaces is killed, the
//! kernel removes everything else.

use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

use super::{
    cri::Cri,
    image::{self, IMAGE},
};
use crate::support::{Netns, RATCHET, eventually, sh};

/// Prepares the namespaces for containerd. `/etc`, `/opt` and `/var/lib` are overlays on the
/// machine's directories, so that writes stay in the node.
const SET_UP: &str = r#"
set -e
mount -t tmpfs tmpfs /run
for dir in etc opt var/lib; do
    mkdir -p /run/over/$dir/upper /run/over/$dir/work
    over=/run/over/$dir
    mount -t overlay overlay -o lowerdir=/$dir,upperdir=$over/upper,workdir=$over/work /$dir
done
rm -rf /etc/cni /opt/cni /var/lib/cni /var/lib/ratchet
mkdir -p /etc/cni/net.d /opt/cni/bin /var/lib/cni
cp /usr/lib/cni/* "$RATCHET" /opt/cni/bin
ln -s ratchet /opt/cni/bin/ratchet-child
hostname node
cat >/run/config.toml <<EOF
version = 2
root = "/run/containerd-root"
state = "/run/containerd"
oom_score = 0
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$IMAGE"
  restrict_oom_score_adj = true
EOF
touch /run/ready
while :; do sleep 1000; done
"#;

/// The file of an SQLite store.
pub const DATABASE: &str = "/var/lib/ratchet/ratchet.db";
/// The host name of etcd, from the article.
pub const ETCD_HOST: &str = "etcd-client.ratchet.svc.cluster.local";

pub struct Node {
    pub cri: Option<Cri>,
    containerd: Option<Child>,
    /// unshare(1), which lives as long as the node.
    holder: Child,
    /// The first process in the node's namespaces.
    pid: u32,
    netns: Netns,
    cgroup: String,
    dir: tempfile::TempDir,
}

impl Node {
    pub fn new(label: &str) -> Self {
        let netns = Netns::new(label);
        // The underlay has no other node, only a device with the article's address.
        netns.sh("ip link add eth0 type veth peer name uplink && \
             ip addr add 192.168.1.73/24 dev eth0 && \
             ip link set eth0 up && ip link set uplink up");
        let dir = tempfile::tempdir().unwrap();
        let mut command = netns.command("unshare");
        command.args([
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        ]);
        command
            .args(["sh", "-c", SET_UP])
            .env("RATCHET", RATCHET)
            .env("IMAGE", IMAGE);
        // SAFETY: prctl is a plain system call, safe between fork and exec.
        unsafe {
            // Nothing may be left when this process is killed either.
            command.pre_exec(|| {
                Ok(nix::sys::prctl::set_pdeathsig(
                    nix::sys::signal::Signal::SIGKILL,
                )?)
            });
        }
        let log = File::create(dir.path().join("set-up.log")).unwrap();
        let holder = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let id = holder.id();
        let cgroup = format!("/{}", netns.name);
        let mut node = Self {
            cri: None,
            containerd: None,
            holder,
            pid: 0,
            netns,
            cgroup,
            dir,
        };
        node.pid = eventually("the node's namespaces", || {
            let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))
                .map_err(|e| e.to_string())?;
            let pid = children
                .trim()
                .parse()
                .map_err(|_| format!("unshare has children {children:?}"))?;
            let is_ready = PathBuf::from(format!("/proc/{pid}/root/run/ready")).exists();
            if is_ready {
                Ok(pid)
            } else {
                Err(node.log("set-up.log"))
            }
        });
        node.start_containerd();
        let archive = image::archive(node.dir.path());
        std::fs::copy(archive, node.root("/run/image.tar")).unwrap();
        for namespace in ["k8s.io", "default"] {
            node.sh(&format!("ctr -n {namespace} images import /run/image.tar"));
        }
        node
    }

    /// A path of the node, from outside.
    pub fn root(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }

    /// The parent of all cgroups of the node's containers.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    fn start_containerd(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("containerd.log"))
            .unwrap();
        let mut command =
            self.command("exec containerd --config /run/config.toml --log-level warn");
        self.containerd = Some(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap(),
        );
        let socket = self.root("/run/containerd/containerd.sock");
        self.cri = Some(eventually("containerd", || {
            Cri::connect(&socket)
                .map_err(|error| format!("{error}; log: {}", self.log("containerd.log")))
        }));
    }

    /// Starts an etcd on the node, under the article's name.
    pub fn start_etcd(&self) {
        self.sh(&format!("echo '127.0.0.1 {ETCD_HOST}' >>/etc/hosts"));
        // etcd ends with the node.
        self.sh(
            "etcd --log-level error --unsafe-no-fsync --data-dir /run/etcd >/run/etcd.log 2>&1 \
                 </dev/null &",
        );
        eventually("etcd", || {
            let output = self.run("ETCDCTL_API=3 etcdctl endpoint health");
            if output.status.success() {
                Ok(())
            } else {
                Err(format!("{output:?}"))
            }
        });
    }

    pub fn cri(&self) -> &Cri {
        self.cri.as_ref().unwrap()
    }

    /// A command that runs a shell line on the node.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "-t",
            &self.pid.to_string(),
            "-n",
            "-m",
            "-u",
            "-p",
            "--wd=/",
            "sh",
            "-c",
            line,
        ]);
        command
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(line).stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let output = self.run(line);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{line}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Makes this the only network config of containerd. containerd watches the directory, so it
    /// loads the config later: see [`Cri::wait_for_network`].
    pub fn configure(&self, file: &str, config: &Value) {
        let dir = self.root("/etc/cni/net.d");
        for entry in std::fs::read_dir(&dir).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        std::fs::write(dir.join(file), config.to_string()).unwrap();
    }

    /// Kills the agent with SIGKILL. Returns whether there was one.
    pub fn kill_agent(&self) -> bool {
        let pids = self.pids_of("ratchet");
        for pid in &pids {
            let pid = nix::unistd::Pid::from_raw(*pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        eventually("the end of the agent", || {
            if self.pids_of("ratchet").is_empty() {
                Ok(())
            } else {
                Err("alive".into())
            }
        });
        !pids.is_empty()
    }

    /// The node's processes whose name starts with `name`, without zombies.
    fn pids_of(&self, name: &str) -> Vec<i32> {
        let namespace = |proc: &Path| std::fs::read_link(proc.join("ns/pid")).ok();
        let own = namespace(Path::new(&format!("/proc/{}", self.pid)));
        let is_it = |proc: &Path| {
            let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
            let is_zombie = status.lines().any(|line| line.starts_with("State:\tZ"));
            status.starts_with(&format!("Name:\t{name}")) && !is_zombie && namespace(proc) == own
        };
        let entries = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(Result::ok)
            .map(|entry| entry.path());
        let named = entries.filter(|proc| is_it(proc));
        named
            .filter_map(|proc| proc.file_name()?.to_str()?.parse().ok())
            .collect()
    }

    /// Everything of pods on the node that has a name: namespaces, devices, leases, files, mounts,
    /// processes, cgroups and the rows of the store.
    pub fn traces(&self) -> BTreeSet<String> {
        let mut traces = BTreeSet::new();
        let mut note = |what: &str, lines: String| {
            traces.extend(
                lines
                    .lines()
                    .filter(|line| !line.is_empty())
                    .map(|line| format!("{what}: {line}")),
            );
        };
        note("netns", self.sh("ls /run/netns 2>/dev/null || true"));
        note(
            "device",
            self.netns
                .links()
                .into_keys()
                .collect::<Vec<_>>()
                .join("\n"),
        );
        let leases = "find /var/lib/cni -type f ! -name lock ! -name 'last_reserved_ip*'";
        note("lease", self.sh(leases));
        note(
            "state",
            self.sh(
                "find /var/lib/ratchet/attachments /var/lib/ratchet/sandboxes -type f \
                     2>/dev/null || true",
            ),
        );
        note(
            "mount",
            self.sh("cut -d' ' -f5 /proc/self/mountinfo | sort"),
        );
        for name in ["containerd-shim", "sleep", "ratchet-child"] {
            let pids = self.pids_of(name);
            note(
                "process",
                pids.iter().map(|pid| format!("{name} {pid}\n")).collect(),
            );
        }
        note(
            "cgroup",
            sh(&format!(
                "find /sys/fs/cgroup -mindepth 2 -path '*{}/*' -type d",
                self.cgroup
            )),
        );
        note("row", self.rows());
        traces
    }

    /// The contents of the store, SQLite or etcd.
    fn rows(&self) -> String {
        // This runs in the node's mount namespace: SQLite cannot open a file by /proc/PID/root.
        let script = format!(
            "import os, sqlite3; \
             c = sqlite3.connect('{DATABASE}') if os.path.exists('{DATABASE}') else exit(); \
             [print(t, r) for t in ('pods', 'declared', 'vnis') \
             for r in c.execute('select * from ' + t)]"
        );
        let rows = self.sh(&format!("python3 -c \"{script}\""));
        let has_etcd = self.root("/run/etcd").exists();
        if has_etcd {
            rows + &self.sh("ETCDCTL_API=3 etcdctl get --prefix --keys-only /")
        } else {
            rows
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.cri = None;
        // When the first process is killed, the kernel kills the others of its namespace:
        // containerd, shims, containers, the agent.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        if let Some(mut containerd) = self.containerd.take() {
            // This child is nsenter, which waits for containerd.
            let _ = containerd.wait();
        }
        // The kernel refuses to remove a cgroup with processes.
        let rmdir = format!(
            "find /sys/fs/cgroup -depth -type d -path '*{}*' -exec rmdir {{}} ';'",
            self.cgroup
        );
        eventually("the end of the node's cgroups", || {
            let _ = Command::new("sh")
                .args(["-c", &rmdir])
                .stderr(Stdio::null())
                .status();
            let left = sh(&format!(
                "find /sys/fs/cgroup -type d -path '*{}*'",
                self.cgroup
            ));
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        if std::thread::panicking() {
            eprintln!("--- containerd:\n{}", self.log("containerd.log"));
        }
    }
}
