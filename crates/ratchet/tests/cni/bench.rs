//! One node, fake plugins that record their calls, and calls of the binary of which a test can
//! change everything.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{Cluster, Node, Pod, Sandbox};

/// The real plugins.
pub const PLUGINS: &str = "/usr/lib/cni";

/// The result of the fake `main`. It has enough fields to see that none is lost.
pub const ANSWER: &str = r#"{ "cniVersion":"1.0.0",
 "interfaces":[{"name":"veth0","mac":"02:00:00:00:00:01"},{"name":"eth0","mac":"02:00:00:00:00:02",
 "sandbox":"$CNI_NETNS"}],
 "ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1","interface":1}],
 "routes":[{"dst":"0.0.0.0/0"}],
 "dns":{"nameservers":["10.0.0.53"]}, "extra":1.50 }"#;

/// See the module.
pub struct Bench {
    pub cluster: Cluster,
}

impl Bench {
    /// A node without an agent; the plugin starts one when it needs one.
    pub fn new() -> Self {
        let bench = Self {
            cluster: Cluster::new(1),
        };
        for dir in ["fakes", "seen"] {
            fs::create_dir(bench.dir().join(dir)).unwrap();
        }
        bench.fake("main", &answering(ANSWER));
        bench
    }

    pub fn with_agent() -> Self {
        let mut bench = Self::new();
        bench.cluster.nodes[0].start_agent();
        bench
    }

    pub fn dir(&self) -> &Path {
        self.cluster.dir.path()
    }

    pub fn node(&self) -> &Node {
        &self.cluster.nodes[0]
    }

    /// Makes a fake plugin, which records verb, stdin and environment of each call and then runs
    /// the script. `$S` is the directory of its records.
    pub fn fake(&self, kind: &str, script: &str) {
        let seen = self.dir().join("seen");
        let script = format!(
            "#!/bin/sh\nS='{}'; N='{kind}'; echo \"$CNI_COMMAND $N\" >>$S/calls\n\
             cat >$S/$N.$CNI_COMMAND.stdin; env >$S/$N.$CNI_COMMAND.env\n{script}\n",
            seen.display()
        );
        self.program(&format!("fakes/{kind}"), &script);
    }

    /// Makes a program in the bench's directory.
    pub fn program(&self, path: &str, script: &str) -> PathBuf {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A new file replaces the old one in one step: the old one may be running.
        let new = path.with_extension("new");
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }

    /// The record of a fake: `stdin` or `env` of its last call with this verb; empty if there was
    /// no such call.
    pub fn seen(&self, kind: &str, verb: &str, what: &str) -> String {
        fs::read_to_string(self.dir().join(format!("seen/{kind}.{verb}.{what}")))
            .unwrap_or_default()
    }

    /// The recorded `stdin`, parsed.
    #[track_caller]
    pub fn seen_json(&self, kind: &str, verb: &str) -> Value {
        let text = self.seen(kind, verb, "stdin");
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {kind} {verb} got {text:?}"))
    }

    /// `VERB kind` of all calls of fakes since the last call of this function, in order.
    pub fn calls(&self) -> Vec<String> {
        let path = self.dir().join("seen/calls");
        let calls = fs::read_to_string(&path)
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect();
        let _ = fs::remove_file(path);
        calls
    }

    /// A config with the fake as delegate. The keys of `more` are set; `null` removes a key.
    pub fn config(&self, more: Value) -> Value {
        let mut config = self.node().config();
        config["delegate"] = json!({"type": "main"});
        merge(&mut config, more);
        config
    }

    /// As [`Bench::config`], for a pod of Ratchet with these links in its annotation. The fake is
    /// its boot network.
    pub fn ours(&self, links: &str, more: Value) -> Value {
        let mut config = self.config(json!({"runtimeConfig": annotated(links)}));
        merge(&mut config, more);
        config
    }

    /// Prepares a call as a runtime makes it.
    pub fn call(&self, verb: &str, sandbox: &Sandbox, config: &Value) -> Call {
        let mut command = self.node().plugin_command(verb, sandbox);
        command.env("CNI_PATH", self.cni_path());
        Call {
            command,
            stdin: config.to_string().into_bytes(),
        }
    }

    /// Calls the plugin as a runtime does.
    pub fn run(&self, verb: &str, sandbox: &Sandbox, config: &Value) -> Seen {
        self.call(verb, sandbox, config).run()
    }

    /// CNI_PATH: the fakes first, then the real plugins.
    pub fn cni_path(&self) -> String {
        format!("{}:{PLUGINS}", self.dir().join("fakes").display())
    }

    /// The state file of a sandbox's eth0 in the network `test-net`.
    pub fn state_file(&self, sandbox: &Sandbox) -> PathBuf {
        self.node()
            .state_dir
            .join("attachments/test-net")
            .join(&sandbox.id)
            .join("eth0.json")
    }

    /// All files of the plugin's state, with its locks.
    pub fn state(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.node().state_dir.join("attachments"), &mut found);
        found.sort();
        found
    }

    /// The files of the sandboxes that the agent has registered.
    pub fn sandboxes(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(&self.node().state_dir.join("sandboxes"), &mut found);
        found
    }

    /// Asserts that nothing of any pod is left: no state, no device, no record.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert_eq!(self.state(), Vec::<PathBuf>::new());
        self.cluster.assert_nothing_left();
        let rows = self.cluster.store_rows();
        assert!(!rows.contains("default/"), "{rows}");
    }

    /// A config of the real bridge with the real host-local, whose leases are in this bench.
    pub fn bridge(&self) -> Value {
        json!({
            "type": "bridge", "cniVersion": "1.0.0", "bridge": "cni0", "isGateway": true,
            "ipMasq": false,
            "ipam": {"type": "host-local", "subnet": "10.77.0.0/24",
            "dataDir": self.dir().join("leases"),
                     "routes": [{"dst": "0.0.0.0/0"}]},
        })
    }

    /// The leases of host-local.
    pub fn leases(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.dir().join("leases"), &mut found);
        let names = found
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("10.")).collect()
    }
}

/// A sandbox of any pod; the annotations are in the config.
pub fn sandbox() -> Sandbox {
    Pod::new("pod").sandbox()
}

pub fn sandbox_of(pod: &str) -> Sandbox {
    Pod::new(pod).sandbox()
}

/// The declaration of one link to a peer.
pub fn link(interface: &str, peer: &str) -> String {
    format!(
        "[{{interface: {interface}, peer: {peer}/{interface}, addresses: [192.168.7.1/24], \
         peerAddresses: [192.168.7.2/24]}}]"
    )
}

/// `runtimeConfig` with the annotation.
pub fn annotated(links: &str) -> Value {
    json!({"io.kubernetes.cri.pod-annotations": {"ratchet.dev/links": links}})
}

/// The script of a fake that prints an answer on ADD and nothing otherwise.
pub fn answering(answer: &str) -> String {
    format!("[ \"$CNI_COMMAND\" = ADD ] || exit 0\ncat <<END\n{answer}\nEND")
}

/// The script of a fake that fails on `verb` with this code, and otherwise prints `ANSWER` on ADD.
pub fn failing(verb: &str, code: u32) -> String {
    let error =
        format!(r#"{{"cniVersion":"1.0.0","code":{code},"msg":"a fault","details":"because"}}"#);
    format!(
        "if [ \"$CNI_COMMAND\" = {verb} ]; then echo '{error}'; exit 1; fi\n{}",
        answering(ANSWER)
    )
}

pub fn merge(config: &mut Value, more: Value) {
    for (key, value) in more.as_object().unwrap() {
        if value.is_null() {
            config.as_object_mut().unwrap().remove(key);
        } else {
            config[key] = value.clone();
        }
    }
}

/// The names of a result's interfaces.
pub fn names(result: &Value) -> Vec<&str> {
    result["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|interface| interface["name"].as_str().unwrap())
        .collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => walk(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

/// Starts another process that holds the exclusive lock of an SQLite database.
pub fn hold(path: &Path) -> Child {
    let script = format!(
        "import sqlite3; c = sqlite3.connect('{}', isolation_level=None); c.execute('begin \
         exclusive'); print('held', flush=True); input()",
        path.display()
    );
    let command = &mut Command::new("python3");
    let mut holder = command
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "held\n");
    holder
}

pub fn release(mut holder: Child) {
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// A prepared call.
pub struct Call {
    pub command: Command,
    pub stdin: Vec<u8>,
}

impl Call {
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn unset(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs the call and waits until it has ended and its outputs are closed, as a runtime does.
    pub fn run(mut self) -> Seen {
        let piped = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let (mut stdin, bytes) = (child.stdin.take().unwrap(), self.stdin);
        let mut stderr = child.stderr.take().unwrap();
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            text
        });
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Seen {
            status: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(reader.join().unwrap()),
        }
    }
}

/// The exit status and outputs of a call.
#[derive(Debug)]
pub struct Seen {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Seen {
    /// Asserts that it succeeded and printed exactly one document. Returns the document.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.status, Some(0), "{self:#?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Asserts that it succeeded and printed nothing.
    #[track_caller]
    pub fn silent(&self) {
        assert_eq!(
            (self.status, self.stdout.as_str()),
            (Some(0), ""),
            "{self:#?}"
        );
    }

    /// Asserts that it failed as a plugin has to, with one error document. Returns the document.
    #[track_caller]
    pub fn error(&self) -> Value {
        assert!(self.status.is_some_and(|status| status != 0), "{self:#?}");
        let error: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"));
        let has_all =
            error["cniVersion"].is_string() && error["code"].is_u64() && error["msg"].is_string();
        assert!(has_all, "{self:#?}");
        error
    }

    /// Asserts that it failed with this code. Returns message and details.
    #[track_caller]
    pub fn failed(&self, code: u64) -> String {
        let error = self.error();
        assert_eq!(error["code"], code, "{self:#?}");
        format!(
            "{}; {}",
            error["msg"].as_str().unwrap(),
            error["details"].as_str().unwrap_or_default()
        )
    }
}
