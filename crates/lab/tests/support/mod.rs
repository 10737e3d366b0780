//! A lab for one test: a unique name, a record of its calls, and a check that nothing of it is
//! left.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long a state may take to be reached.
const TIMEOUT: Duration = Duration::from_secs(20);

pub struct Lab {
    pub name: String,
    /// Holds the manifest, the record of calls and a `loopback` plugin.
    dir: tempfile::TempDir,
    fault: Option<String>,
    links_before: String,
}

impl Lab {
    /// A lab for a manifest. It is not up yet.
    pub fn new(test: &str, manifest: &str) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the lab's tests make network namespaces: run them as root"
        );
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lab.yaml"), manifest).unwrap();
        fs::create_dir(dir.path().join("record")).unwrap();
        fs::write(dir.path().join("loopback"), "").unwrap();
        let name = format!("t{}-{test}", std::process::id());
        Self {
            name,
            dir,
            fault: None,
            links_before: host_links(),
        }
    }

    /// Injects a fault into the fake `ratchet`; its source lists them.
    pub fn with_fault(mut self, fault: &str) -> Self {
        self.fault = Some(fault.into());
        self
    }

    /// `ratchet lab COMMAND --name NAME …`.
    pub fn command(&self, command: &str) -> Command {
        let tests = std::env::current_exe().unwrap();
        let program = tests
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .join("examples/fake-ratchet");
        let mut ratchet = Command::new(program);
        ratchet
            .args(["lab", command, "--name", &self.name])
            .env("FAKE_RECORD", self.dir.path().join("record"));
        if let Some(fault) = &self.fault {
            ratchet.env("FAKE_FAULT", fault);
        }
        if command == "up" {
            ratchet
                .arg("--cni-path")
                .arg(self.dir.path())
                .arg(self.dir.path().join("lab.yaml"));
        }
        ratchet.stdin(Stdio::null());
        ratchet
    }

    /// Starts `up` and does not wait for it.
    pub fn spawn_up(&self) -> Child {
        self.command("up")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn run(&self, command: &str) -> Outcome {
        Outcome::of(self.command(command).output().unwrap())
    }

    pub fn exec(&self, pod: &str, words: &[&str]) -> Outcome {
        Outcome::of(
            self.command("exec")
                .args([pod, "--"])
                .args(words)
                .output()
                .unwrap(),
        )
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/ratchet/lab").join(&self.name)
    }

    pub fn state(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path().join("lab.json")).unwrap()).unwrap()
    }

    /// Waits for the record of a call of the fake, and reads it.
    pub fn recorded(&self, name: &str) -> Value {
        let path = self.dir.path().join("record").join(name);
        eventually(&format!("the record {name}"), || path.exists());
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    pub fn was_called(&self, name: &str) -> bool {
        self.dir.path().join("record").join(name).exists()
    }

    /// The names in `ip netns` that begin with the lab's.
    pub fn namespaces(&self) -> Vec<String> {
        let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(&self.name)).collect();
        names.sort();
        names
    }

    /// Fails unless everything is as it was before the lab. `id` is the id of the lab's processes.
    pub fn assert_nothing_left(&self, id: Option<&str>) {
        assert_eq!(self.namespaces(), Vec::<String>::new(), "namespaces");
        assert!(!self.path().exists(), "files in {}", self.path().display());
        assert_eq!(host_links(), self.links_before, "the machine's interfaces");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.name), "mounts");
        let record = format!("FAKE_RECORD={}", self.dir.path().display());
        let this_lab = |pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let environ = String::from_utf8_lossy(&environ).into_owned();
            environ.contains(&record) || id.is_some_and(|id| environ.contains(id))
        };
        let left: Vec<i32> = pids().filter(this_lab).collect();
        assert_eq!(left, Vec::<i32>::new(), "processes");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A test that failed must leave nothing, too.
        if self.path().exists() {
            let _ = self.command("down").output();
        }
    }
}

pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn fails_with(self, expected: &str) -> Self {
        assert_ne!(self.code, Some(0), "{}", self.stdout);
        assert!(
            self.stderr.contains(expected),
            "expected {expected:?} in:\n{}",
            self.stderr
        );
        self
    }
}

/// Polls until the condition holds. `what` names it in the failure.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "expected {what} within {TIMEOUT:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn host_links() -> String {
    String::from_utf8(
        Command::new("ip")
            .args(["-o", "link"])
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap()
}
