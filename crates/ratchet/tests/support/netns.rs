//! Network namespaces.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::{eventually, sh, unique};

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
        let name = format!("rt-{}-{}-{label}", std::process::id(), unique());
        sh(&format!(
            "ip netns add {name} && ip -n {name} link set lo up"
        ));
        Self { name }
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let netns = File::open(self.path()).unwrap();
        // SAFETY: setns is a plain system call, safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
                Ok(())
            });
        }
        command
    }

    /// Runs a shell command inside.
    pub fn run(&self, line: &str) -> Output {
        self.command("sh").arg("-c").arg(line).output().unwrap()
    }

    /// Runs a shell command inside that must succeed, and returns its output.
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

    /// Whether the address answers to a ping from inside.
    pub fn ping(&self, address: &str) -> bool {
        self.run(&format!("ping -c1 -W3 {address}"))
            .status
            .success()
    }

    /// Waits until the address answers.
    #[track_caller]
    pub fn wait_for_answer(&self, address: &str) {
        eventually(&format!("an answer from {address}"), || {
            if self.ping(address) {
                Ok(())
            } else {
                Err("none".into())
            }
        });
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
