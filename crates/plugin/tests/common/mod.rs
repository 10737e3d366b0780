//! A node for tests: fake embedded plugins, a fake agent and a state directory, all in one
//! temporary directory.

#![allow(dead_code, missing_docs, reason = "each test file uses its part")]

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use ratchet_cni::Environment;
use ratchet_protocol::{Attached, Failure, FailureKind, Prepared, Reply, Request, parse_request};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A writer that several owners share.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Exit status and outputs of one call.
#[derive(Debug)]
pub struct Seen {
    pub status: u8,
    pub stdout: String,
    pub stderr: String,
}

impl Seen {
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of the one error document.
    pub fn code(&self) -> u64 {
        assert_eq!(self.status, 1, "{self:?}");
        self.json()["code"].as_u64().unwrap()
    }
}

/// A node; see the module.
pub struct Node {
    dir: TempDir,
}

impl Node {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        let node = Self { dir };
        node.plugin(
            "bridge",
            r#"[ "$CNI_COMMAND" = ADD ] || exit 0
cat <<END
{ "cniVersion":"1.0.0", "interfaces":[{"name":"veth0"},{"name":"eth0","sandbox":"$CNI_NETNS"}],
  "ips":[{"address":"10.1.0.2/24","interface":1}] , "x":1.50 }
END"#,
        );
        node.plugin(
            "lo",
            r#"[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion":"1.0.0","interfaces":[{"name":"lo","sandbox":"'$CNI_NETNS'"}],
"ips":[{"address":"127.0.0.1/8","interface":0}]}'"#,
        );
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An embedded plugin that records verb, stdin and environment of each call and then runs this
    /// script.
    pub fn plugin(&self, kind: &str, script: &str) {
        let dir = self.dir.path().display();
        let script = format!(
            "#!/bin/sh\nD='{dir}'; N='{kind}'; echo \"$CNI_COMMAND $N\" >>$D/calls\ncat \
             >$D/$N.$CNI_COMMAND.stdin; env >$D/$N.$CNI_COMMAND.env\n{script}\n"
        );
        let path = self.path("bin").join(kind);
        // A new file: the old one may be running.
        let _ = fs::remove_file(&path);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// `VERB plugin` of all embedded calls since the last call of this method, in order.
    pub fn calls(&self) -> Vec<String> {
        let calls = self.read("calls").lines().map(str::to_owned).collect();
        let _ = fs::remove_file(self.path("calls"));
        calls
    }

    /// The files of the state directory, by their paths in it.
    pub fn state(&self) -> Vec<String> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => walk(&entry.path(), found),
                    false => found.push(entry.path()),
                }
            }
        }
        let (root, mut found) = (self.path("state/attachments"), Vec::new());
        walk(&root, &mut found);
        found
            .iter()
            .map(|path| path.strip_prefix(&root).unwrap().display().to_string())
            .collect()
    }

    /// A config with the keys of `more` added. `null` removes a key.
    pub fn config(&self, more: Value) -> Value {
        let mut config = json!({
            "cniVersion": "1.0.0",
            "name": "net",
            "type": "ratchet",
            "socket": self.path("run/agent.sock"),
            "state_dir": self.path("state"),
            "child_path": "/bin/false",
            "delegate": {"type": "bridge", "k": 1},
            "boot_network": {"type": "lo"},
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    pub fn env(&self, verb: &str, id: &str) -> Environment {
        let mut env: Environment = [
            ("PATH", "/usr/bin:/bin"),
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", id),
            // The test's own namespace: the plugins that would work in it are fakes.
            ("CNI_NETNS", "/proc/self/ns/net"),
            ("CNI_NETNS_OVERRIDE", "1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod"),
        ]
        .into_iter()
        .collect();
        env.set("CNI_PATH", self.path("bin"));
        env
    }

    pub fn call(&self, verb: &str, id: &str, config: &Value) -> Seen {
        call(&self.env(verb, id), config)
    }

    /// Starts a fake agent in this process.
    pub fn agent(&self, answer: impl Fn(&Request) -> Option<Reply> + Send + 'static) -> Agent {
        let socket = self.path("run/agent.sock");
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let (requests, ended) = (
            Arc::<Mutex<Vec<Request>>>::default(),
            Arc::new(AtomicBool::new(false)),
        );
        let thread = std::thread::spawn({
            let (requests, ended) = (Arc::clone(&requests), Arc::clone(&ended));
            move || {
                for stream in listener.incoming().flatten() {
                    if ended.load(Ordering::SeqCst) {
                        break;
                    }
                    let mut line = Vec::new();
                    let mut stream = BufReader::new(stream);
                    if stream.read_until(b'\n', &mut line).is_err() || line.is_empty() {
                        continue;
                    }
                    let (protocol, request) = parse_request(&line).unwrap();
                    let reply = answer(&request);
                    requests.lock().unwrap().push(request);
                    // None: close the connection.
                    if let Some(reply) = reply {
                        let _ = stream.get_mut().write_all(&reply.to_line(protocol));
                    }
                }
            }
        });
        Agent {
            socket,
            requests,
            ended,
            thread: Some(thread),
        }
    }
}

pub fn call(env: &Environment, config: &Value) -> Seen {
    let (mut stdout, stderr) = (Vec::new(), Shared::default());
    let status = ratchet_plugin::run_with(
        env,
        config.to_string().as_bytes(),
        &mut stdout,
        stderr.clone(),
    );
    Seen {
        status,
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: stderr.text(),
    }
}

/// A fake agent. It ends when it is dropped.
pub struct Agent {
    socket: PathBuf,
    requests: Arc<Mutex<Vec<Request>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// What it was asked since the last call of this method.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    /// Whether it was asked for no change. (The plugin may ask about a pod before it knows that it
    /// need not.)
    pub fn was_asked_for_nothing(&self) -> bool {
        self.asked().iter().all(|asked| asked == "prepare")
    }

    /// The names of what it was asked since the last call.
    pub fn asked(&self) -> Vec<String> {
        let name = |request: &Request| {
            serde_json::to_value(request).unwrap()["request"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        self.requests().iter().map(name).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.socket);
        let _ = self.thread.take().unwrap().join();
        let _ = fs::remove_file(&self.socket);
    }
}

/// Two links' interfaces.
pub fn attached() -> Attached {
    serde_json::from_value(json!({
        "interfaces": [
            {"name": "in1", "mac": "02:00:00:00:00:01", "mtu": 1450},
            {"name": "in2", "mac": "02:00:00:00:00:02", "mtu": 1450},
        ],
        "addresses": ["192.168.2.100/24", "192.168.3.100/24"],
        "by_interface": {"in1": ["192.168.2.100/24"], "in2": ["192.168.3.100/24", "fd00::1/64"]},
        "pending": ["default/pod/in3: pod default/q is not there"],
    }))
    .unwrap()
}

/// An agent's good answers.
pub fn good(request: &Request) -> Option<Reply> {
    Some(match request {
        Request::Prepare(_) => Reply::Prepared(Prepared { ours: true }),
        Request::Attach(_) => Reply::Attached(attached()),
        _ => Reply::Done,
    })
}

pub fn failure(kind: FailureKind) -> Option<Reply> {
    Some(Reply::Error(Failure::new(kind, "the agent says so")))
}

/// The annotation that makes a pod Ratchet's.
pub fn ours() -> Value {
    json!({"io.kubernetes.cri.pod-annotations": {"ratchet.dev/links": "[]"}})
}
