//! Two nodes, pods that are added and deleted by plugins that are killed, and the check that
//! nothing is left.

use std::{
    fmt,
    fs::File,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Cluster, Netns, Pod, Sandbox, eventually};

/// The kind of pod, which decides the steps of ADD and DEL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Not Ratchet's: only the delegate runs.
    NotOurs,
    /// Linked to itself.
    Loop,
    /// Linked to an existing pod of this node.
    Veth,
    /// Linked to an existing pod of another node.
    Vxlan,
    /// Linked to a pod that does not exist.
    Lonely,
    /// Set up by another plugin of the runtime's list first.
    Chained,
    /// A foreign interface has the name of the link's: ADD fails and undoes its work.
    Conflict,
}

impl Shape {
    pub const ALL: [Self; 7] = [
        Self::NotOurs,
        Self::Loop,
        Self::Veth,
        Self::Vxlan,
        Self::Lonely,
        Self::Chained,
        Self::Conflict,
    ];
}

/// How a plugin is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kill {
    /// By a failpoint, at this step.
    At(String),
    /// This long after its start.
    After(Duration),
    Never,
}

pub struct Call<'a> {
    pub verb: &'a str,
    pub kill: &'a Kill,
    pub shape: Shape,
    pub has_netns: bool,
}

pub struct Outcome {
    pub is_killed: bool,
    pub is_good: bool,
    stdout: String,
    stderr: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.is_killed { "killed" } else { "ended" };
        write!(
            f,
            "{how}; stdout {:?}, stderr {:?}",
            self.stdout.trim(),
            self.stderr.trim()
        )
    }
}

pub struct World {
    cluster: Cluster,
    /// One namespace for all sandboxes, so that a leftover of one disturbs the next.
    netns: Option<Netns>,
    peer: Option<Sandbox>,
    leases: PathBuf,
}

impl World {
    pub fn new() -> Self {
        let cluster = Cluster::with_agents(2);
        let leases = cluster.dir.path().join("leases");
        Self {
            netns: None,
            peer: None,
            leases,
            cluster,
        }
    }

    /// Makes a sandbox, and adds its peer if the shape has one.
    pub fn begin(&mut self, run: u64, shape: Shape) -> Sandbox {
        let victim = format!("victim-{run}");
        let link = |peer: &str| {
            format!(
                "[{{interface: eth1, peer: {peer}, addresses: [10.0.0.1/24], peerAddresses: \
                 [10.0.0.2/24]}}]"
            )
        };
        let pod = match shape {
            Shape::NotOurs => Pod::new(&victim),
            Shape::Loop => Pod::with_links(&victim, &link(&format!("{victim}/eth2"))),
            Shape::Lonely | Shape::Chained => Pod::with_links(&victim, &link("missing")),
            Shape::Veth | Shape::Vxlan | Shape::Conflict => {
                Pod::with_links(&victim, &link(&format!("peer-{run}")))
            }
        };
        if let Some(node) = peers_node(shape) {
            let peer = Pod::with_links(&format!("peer-{run}"), "[]").sandbox();
            self.cluster.nodes[node].add(&peer);
            self.peer = Some(peer);
        }
        let netns = self.netns.take().unwrap_or_else(|| Netns::new("victim"));
        let sandbox = Sandbox {
            netns,
            id: format!("c{:x}x{run}", std::process::id()),
            pod,
        };
        if shape == Shape::Conflict {
            sandbox.netns.sh("ip link add eth1 type bridge");
        }
        sandbox
    }

    /// Removes the pod's namespace with everything in it.
    pub fn lose_netns(&self, sandbox: &mut Sandbox) {
        // The next pod gets a new namespace. The old name is not used again.
        sandbox.netns = Netns::new("victim");
    }

    /// Deletes the peer; then nothing may be left. Keeps the namespace for the next pod.
    pub fn end(&mut self, sandbox: Sandbox, shape: Shape, is_lost: bool) -> Result<(), String> {
        let mut left: Vec<String> = Vec::new();
        if let (Some(node), Some(peer)) = (peers_node(shape), self.peer.take()) {
            self.cluster.nodes[node].del(&peer);
            left.extend(
                peer.netns
                    .links()
                    .into_values()
                    .map(|link| format!("in the peer: {link}")),
            );
        }
        if is_lost {
            // The kernel deletes the devices of a removed namespace in the background and does not
            // report the end.
            eventually("no devices of the removed namespace", || {
                let left = self.devices();
                if left.is_empty() {
                    Ok(())
                } else {
                    Err(left.join("\n"))
                }
            });
        }
        left.extend(self.left(&sandbox));
        let log = if left.is_empty() {
            String::new()
        } else {
            self.log_of(&sandbox)
        };
        self.netns = Some(sandbox.netns);
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("left: {left:#?}\nthe agents' logs of it:\n{log}"))
        }
    }

    fn config(&self, sandbox: &Sandbox, shape: Shape) -> Value {
        let lease = |name: &str, subnet: &str| {
            let ipam =
                json!({"type": "host-local", "subnet": subnet, "dataDir": self.leases.join(name)});
            json!({"type": "ptp", "name": name, "ipam": ipam})
        };
        let mut config = self.cluster.nodes[0].config();
        config["log_file"] = json!(self.cluster.nodes[0].log);
        config["log_level"] = json!("debug");
        config["runtimeConfig"] =
            json!({"io.kubernetes.cri.pod-annotations": sandbox.pod.annotations});
        config["delegate"] = lease("delegate", "10.88.0.0/24");
        config["boot_network"] = lease("boot", "10.89.0.0/24");
        if shape == Shape::Chained {
            config
                .as_object_mut()
                .unwrap()
                .retain(|key, _| key != "delegate" && key != "boot_network");
            config["prevResult"] =
                json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.1/24"}]});
        }
        config
    }

    /// Calls the plugin, which ends or is killed.
    pub fn call(&self, sandbox: &Sandbox, call: &Call<'_>) -> Outcome {
        let mut command = self.cluster.nodes[0].plugin_command(call.verb, sandbox);
        if let Kill::At(step) = call.kill {
            command.env("RATCHET_FAILPOINT", step);
        }
        if !call.has_netns {
            command.env("CNI_NETNS", "");
        }
        // Files instead of pipes: reading a pipe would wait for processes that a killed plugin
        // leaves.
        let (stdout, stderr) = (
            self.cluster.dir.path().join("stdout"),
            self.cluster.dir.path().join("stderr"),
        );
        command
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        let mut child = command.spawn().unwrap();
        // It may be killed before it has read its input.
        let _ = child
            .stdin
            .take()
            .unwrap()
            .write_all(self.config(sandbox, call.shape).to_string().as_bytes());
        if let Kill::After(delay) = call.kill {
            std::thread::sleep(*delay);
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        Outcome {
            is_killed: status.signal() == Some(9),
            is_good: status.success(),
            stdout: std::fs::read_to_string(stdout).unwrap(),
            stderr: std::fs::read_to_string(stderr).unwrap(),
        }
    }

    /// Everything of the sandbox that is left.
    fn left(&self, sandbox: &Sandbox) -> Vec<String> {
        // The children of a killed plugin end a moment later.
        let of_sandbox = format!("CNI_CONTAINERID={}", sandbox.id);
        eventually("the end of the embedded plugins", || {
            let left = with_environment(&of_sandbox);
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("processes {left:?} have {of_sandbox}"))
            }
        });
        let mut left: Vec<String> = Vec::new();
        let mut in_pod = sandbox.netns.links();
        if let Some(foreign) = in_pod
            .get("eth1")
            .filter(|link| link["linkinfo"]["info_kind"] == "bridge")
        {
            sandbox.netns.sh(&format!(
                "ip link del {}",
                foreign["ifname"].as_str().unwrap()
            ));
            in_pod.remove("eth1");
        }
        left.extend(
            in_pod
                .into_values()
                .map(|link| format!("in the pod: {link}")),
        );
        left.extend(self.devices());
        for node in &self.cluster.nodes {
            for dir in ["attachments", "sandboxes"] {
                left.extend(
                    files(&node.state_dir.join(dir))
                        .iter()
                        .map(|path| path.display().to_string()),
                );
            }
        }
        let is_lease = |path: &&PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name != "lock" && !name.starts_with("last_reserved_ip")
        };
        left.extend(
            files(&self.leases)
                .iter()
                .filter(is_lease)
                .map(|path| format!("lease {}", path.display())),
        );
        let rows = self.cluster.store_rows();
        left.extend(
            Some(rows)
                .filter(|rows| rows.trim() != "[]")
                .map(|rows| format!("rows {rows}")),
        );
        left
    }

    /// The nodes' devices, without the underlay.
    fn devices(&self) -> Vec<String> {
        let of = |node: &crate::support::Node| {
            let devices = node
                .netns
                .links()
                .into_iter()
                .filter(|(name, _)| name != "eth0");
            devices
                .map(|(_, device)| format!("on {}: {device}", node.name))
                .collect::<Vec<_>>()
        };
        self.cluster.nodes.iter().flat_map(of).collect()
    }

    fn log_of(&self, sandbox: &Sandbox) -> String {
        let logs = self
            .cluster
            .nodes
            .iter()
            .map(crate::support::Node::log_text)
            .collect::<Vec<_>>()
            .join("\n");
        let of_it = logs
            .lines()
            .filter(|line| line.contains(&sandbox.id) || line.contains(&sandbox.pod.name));
        of_it.collect::<Vec<_>>().join("\n")
    }

    pub fn stop_agents(&mut self) {
        for node in &mut self.cluster.nodes {
            node.stop_agent();
        }
    }

    /// The processes of this world.
    pub fn processes(&self) -> Vec<String> {
        let dir = self.cluster.dir.path().to_str().unwrap();
        let lines = processes().filter_map(|proc| std::fs::read(proc.join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains(dir)).collect()
    }
}

fn peers_node(shape: Shape) -> Option<usize> {
    match shape {
        Shape::Veth | Shape::Conflict => Some(0),
        Shape::Vxlan => Some(1),
        _ => None,
    }
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let is_process = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .bytes()
            .all(|b| b.is_ascii_digit())
    };
    entries.map(|entry| entry.path()).filter(is_process)
}

/// The processes with this variable in their environment.
fn with_environment(variable: &str) -> Vec<PathBuf> {
    let has = |proc: &PathBuf| {
        let environment = std::fs::read(proc.join("environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == variable.as_bytes())
    };
    processes().filter(has).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let output = Command::new("find")
        .arg(dir)
        .args(["-type", "f"])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(PathBuf::from)
        .collect()
}
