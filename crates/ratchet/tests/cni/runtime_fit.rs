//! Points 55 to 58: calls as runtimes make them, and what the plugin may not leave to a runtime.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    bench::{Bench, Call, Seen, annotated, link, names, sandbox, sandbox_of},
    support::{Pod, Sandbox},
};

/// Releases that call plugins in different ways.
const CNITOOLS: [&str; 3] = ["1.1.2", "1.2.3", "1.3.0"];

/// `cnitool`, built from these releases of CNI's Go library. `None`, with a note on stderr, without
/// a Go toolchain.
fn cnitools() -> Option<Vec<PathBuf>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/cnitool.sh");
    let output = Command::new(script).args(CNITOOLS).output().unwrap();
    if output.status.code() == Some(3) && std::env::var_os("CI").is_none() {
        eprintln!(
            "SKIPPED: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        return None;
    }
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(PathBuf::from)
            .collect(),
    )
}

pub fn newest_cnitool() -> Option<PathBuf> {
    cnitools()?.pop()
}

/// A runtime: `cnitool` on the node, with its own network list and cache.
pub struct Cnitool<'a> {
    bench: &'a Bench,
    program: &'a Path,
    conf: PathBuf,
    network: String,
    env: Vec<(&'static str, String)>,
    /// Its PATH; it may contain `$PATH`.
    path: String,
}

impl<'a> Cnitool<'a> {
    pub fn new(bench: &'a Bench, program: &'a Path, list: &Value) -> Self {
        let mut list = list.clone();
        // `null` means that the key is removed.
        for plugin in list["plugins"].as_array_mut().unwrap() {
            plugin
                .as_object_mut()
                .unwrap()
                .retain(|_, value| !value.is_null());
        }
        let conf = bench.dir().join("net.d");
        for dir in [&conf, &bench.dir().join("var-lib")] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(conf.join("10.conflist"), list.to_string()).unwrap();
        let network = list["name"].as_str().unwrap().to_owned();
        Self {
            bench,
            program,
            conf,
            network,
            env: Vec::new(),
            path: "$PATH:/usr/sbin:/sbin".into(),
        }
    }

    pub fn runtime_config(mut self, config: &Value) -> Self {
        self.env.push(("CAP_ARGS", config.to_string()));
        self
    }

    /// Hides ip6tables. With it, CHECK of portmap before 1.2 mistakes IPv4 rules for IPv6 rules
    /// (Debian 12 has 1.1.1).
    pub fn without_ip6tables(mut self) -> Self {
        let dir = self.bench.dir().join("sbin");
        fs::create_dir_all(&dir).unwrap();
        let _ = std::os::unix::fs::symlink("/usr/sbin/iptables", dir.join("iptables"));
        self.path = format!("{}:/usr/bin:/bin", dir.display());
        self
    }

    pub fn args(mut self, args: &str) -> Self {
        self.env.push(("CNI_ARGS", args.to_owned()));
        self
    }

    pub fn run(&self, verb: &str, sandbox: &Sandbox) -> Seen {
        // Its cache is always in /var/lib/cni.
        let line = format!(
            "mount --bind \"$0\" /var/lib && PATH=\"{}\" && exec \"$@\"",
            self.path
        );
        let mut command = self.bench.node().netns.command("unshare");
        command
            .args(["--mount", "sh", "-c", &line])
            .arg(self.bench.dir().join("var-lib"));
        command
            .arg(self.program)
            .args([verb, &self.network])
            .arg(sandbox.netns.path());
        // Ratchet is found by its name, too.
        let bin = Path::new(crate::support::RATCHET).parent().unwrap();
        let path = format!("{}:{}", bin.display(), self.bench.cni_path());
        command
            .env("CNI_PATH", path)
            .env("NETCONFPATH", &self.conf)
            .env("CNI_IFNAME", "eth0");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        Call {
            command,
            stdin: Vec::new(),
        }
        .run()
    }

    /// The number of results in its cache.
    fn cached(&self) -> usize {
        fs::read_dir(self.bench.dir().join("var-lib/cni/results")).map_or(0, Iterator::count)
    }
}

#[test]
fn p55_cnitool() {
    let Some(programs) = cnitools() else { return };
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    bench
        .run("ADD", &b, &bench.ours("[]", json!({"name": "peers"})))
        .json();
    for program in &programs {
        let knows_1_1 = !program.to_string_lossy().contains("1.1.2");
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            if version == "1.1.0" && !knows_1_1 {
                continue;
            }
            // Debian's plugins do not support 1.1.0. As an embedded plugin, one has its own
            // version; later in the list it cannot.
            let mut boot = bench.bridge();
            boot["cniVersion"] = json!(version.min("1.0.0"));
            let capabilities = json!({"io.kubernetes.cri.pod-annotations": true});
            let mut plugins = vec![
                bench.config(json!({"cniVersion": null, "name": null, "delegate": boot,
                    "capabilities": capabilities})),
            ];
            if version != "1.1.0" {
                if version != "0.3.1" {
                    plugins.push(json!({"type": "firewall", "backend": "iptables"}));
                }
                plugins.push(json!({"type": "tuning", "mac": "02:00:00:00:00:77",
                        "dataDir": bench.dir().join("tuning")}));
            }
            let list = json!({"cniVersion": version, "name": "tooled", "plugins": plugins});
            let tool = Cnitool::new(&bench, program, &list)
                .args("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a");
            // A pod of Ratchet, and another pod.
            for (links, interfaces) in [(link("eth1", "b"), 2), (String::new(), 1)] {
                let what = format!("{} {version} {links:?}", program.display());
                let runtime = if links.is_empty() {
                    json!({})
                } else {
                    annotated(&links)
                };
                let tool = Cnitool {
                    env: tool.env.clone(),
                    conf: tool.conf.clone(),
                    network: tool.network.clone(),
                    path: tool.path.clone(),
                    ..tool
                }
                .runtime_config(&runtime);
                let result = tool.run("add", &a).json();
                assert_eq!(result["cniVersion"], version, "{what}");
                assert_eq!(
                    (a.netns.links().len(), bench.leases().len(), tool.cached()),
                    (interfaces, 1, 1),
                    "{what}"
                );
                assert_eq!(names(&result).len(), 2 + interfaces, "{what}");
                if version >= "0.4.0" {
                    tool.run("check", &a).silent();
                }
                if version == "1.1.0" {
                    tool.run("status", &a).silent();
                }
                for _ in 0..2 {
                    tool.run("del", &a).silent();
                    assert_eq!(
                        (a.netns.links().len(), bench.leases().len(), tool.cached()),
                        (0, 0, 0),
                        "{what}"
                    );
                }
                if version == "1.1.0" {
                    // cnitool calls DEL for all attachments in its cache and then GC without a
                    // list, which Ratchet refuses: see docs/cni.md.
                    tool.run("add", &a).json();
                    let seen = tool.run("gc", &a);
                    assert!(
                        seen.status != Some(0) && seen.stderr.contains("valid-attachments"),
                        "{what}: {seen:?}"
                    );
                    assert_eq!(
                        (a.netns.links().len(), bench.leases().len(), tool.cached()),
                        (0, 0, 0),
                        "{what}"
                    );
                }
            }
        }
    }
    bench
        .run("DEL", &b, &bench.ours("[]", json!({"name": "peers"})))
        .silent();
    bench.node().netns.sh("ip link del cni0");
    bench.assert_clean();
}

#[test]
fn p56_cni_args() {
    let bench = Bench::with_agent();
    let b = Pod::new("b").sandbox();
    bench.run("ADD", &b, &bench.ours("[]", json!({}))).json();
    let config = bench.ours(&link("eth1", "b"), json!({}));
    for (args, pod) in [
        (
            "K8S_POD_NAME=x;IgnoreUnknown=1;K8S_POD_NAMESPACE=default",
            Some("default/x"),
        ),
        ("K8S_POD_NAMESPACE=n;K8S_POD_NAME=x", Some("n/x")),
        (
            "K8S_POD_NAME=y;K8S_POD_NAME=x;K8S_POD_NAMESPACE=default;K8S_POD_NAMESPACE=m",
            Some("m/x"),
        ),
        ("K8S_POD_NAME=x;", Some("default/x")),
        (
            ";;K8S_POD_NAME=x;junk;=;A=b=c;NOT_KNOWN=ü;K8S_POD_UID=u=1",
            Some("default/x"),
        ),
        // Without a pod name, the pod is named after its container.
        ("", None),
        ("IgnoreUnknown=1", None),
        ("K8S_POD_NAME=;K8S_POD_NAMESPACE=", None),
    ] {
        let a = sandbox();
        bench
            .call("ADD", &a, &config)
            .env("CNI_ARGS", args)
            .run()
            .json();
        let own = pod.map_or_else(|| format!("default/{}", a.id), str::to_owned);
        let ends: Vec<String> = bench
            .node()
            .links()
            .links
            .iter()
            .flat_map(|l| [l.a.pod.to_string(), l.z.pod.to_string()])
            .collect();
        assert!(ends.contains(&own), "{args:?}: {ends:?}");
        // DEL may have other arguments, or none.
        bench
            .call("DEL", &a, &config)
            .env("CNI_ARGS", "junk")
            .run()
            .silent();
        assert!(a.netns.links().is_empty());
        // A pod that is not Ratchet's.
        let plain = bench.config(json!({}));
        bench
            .call("ADD", &a, &plain)
            .env("CNI_ARGS", args)
            .run()
            .json();
        bench
            .call("DEL", &a, &plain)
            .env("CNI_ARGS", args)
            .run()
            .silent();
    }
    bench.run("DEL", &b, &config).silent();
    bench.assert_clean();
}

#[test]
fn p57_who_holds_the_outputs() {
    // Each call is read until both outputs are closed. So most of this test is that the calls
    // return.
    let bench = Bench::new();
    let a = sandbox_of("a");
    let config = bench.ours("[]", json!({"log_level": "debug"}));
    bench.run("ADD", &a, &config).json();
    let pid = bench.node().agent_pid().unwrap();
    let fd = |number: u32| fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
    assert_eq!([0, 1, 2].map(fd), ["/dev/null"; 3].map(PathBuf::from));
    let foreign: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect();
    assert!(
        !foreign
            .iter()
            .any(|target| target.to_string_lossy().starts_with("pipe:")),
        "{foreign:?}"
    );
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(!environment.contains("CNI_"), "{environment}");
    assert_eq!(
        fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
        Path::new("/")
    );
    // The agent is in another session than this process.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let session = fields[3].parse::<i32>().unwrap();
    assert_ne!(session, nix::unistd::getsid(None).unwrap().as_raw());
    bench.run("DEL", &a, &config).silent();
    // A process that an embedded plugin leaves running keeps that plugin's outputs open, but not
    // Ratchet's.
    bench.fake(
        "leaver",
        &format!(
            "sleep 1000 & echo $! >$S/pid\n{}",
            crate::bench::answering(crate::bench::ANSWER)
        ),
    );
    let config = bench.config(json!({"delegate": {"type": "leaver"}}));
    bench.run("ADD", &a, &config).json();
    let left: i32 = fs::read_to_string(bench.dir().join("seen/pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(left),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    bench.fake("leaver", "");
    bench.run("DEL", &a, &config).silent();
    bench.assert_clean();
}

#[test]
fn p58_state() {
    // The state directory is neither in a path that runtimes clean nor in one that a reboot clears.
    let default = Path::new(ratchet_protocol::DEFAULT_STATE_DIR);
    assert!(default.starts_with("/var/lib") && !default.starts_with("/var/lib/cni"));
    let help = Command::new(crate::support::RATCHET)
        .args(["agent", "--help"])
        .env("COLUMNS", "200")
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&help.stdout)
            .contains(&format!("[default: {}]", default.display()))
    );

    let bench = Bench::new();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    // The runtime's umask does not matter.
    let add = |pod: &Sandbox, config: &Value| {
        let call = bench.call("ADD", pod, config);
        let mut command = bench.node().netns.command("sh");
        command.args(["-c", "umask 0; exec \"$0\"", crate::support::RATCHET]);
        command.envs(
            call.command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        Call {
            command,
            stdin: call.stdin,
        }
        .run()
        .json();
    };
    let config = bench.ours(&link("eth1", "b"), json!({}));
    add(&a, &config);
    add(&b, &bench.config(json!({})));
    let state_dir = &bench.node().state_dir;
    let mut seen = 0;
    let mut dirs = vec![state_dir.clone()];
    while let Some(dir) = dirs.pop() {
        assert_eq!(
            fs::metadata(&dir).unwrap().mode() & 0o7777,
            0o700,
            "{}",
            dir.display()
        );
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let metadata = fs::symlink_metadata(entry.path()).unwrap();
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else {
                seen += 1;
                assert_eq!(
                    metadata.mode() & 0o7777,
                    0o600,
                    "{}",
                    entry.path().display()
                );
            }
        }
    }
    assert!(seen >= 5, "{seen}");
    let socket = fs::metadata(bench.node().socket.parent().unwrap()).unwrap();
    assert_eq!(socket.mode() & 0o7777, 0o700);
    // Each attachment has its own file, named by network, container and interface.
    assert!(bench.state_file(&a).exists() && bench.state_file(&b).exists());
    // A runtime that was restarted without its cache: DEL has all that it needs.
    for pod in [&a, &b] {
        bench
            .call("DEL", pod, &bench.config(json!({"delegate": null})))
            .run()
            .silent();
    }
    assert!(
        bench
            .seen("main", "DEL", "stdin")
            .contains("\"type\":\"main\"")
    );
    bench.assert_clean();
}
