//! The installer on real directories: what it writes, when, and what a kill leaves.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    time::{Duration, Instant},
};

use ratchet_install::{FILE, uninstall};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The two directories of a node.
struct Node(TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        fs::create_dir(node.configs()).unwrap();
        node
    }

    fn programs(&self) -> PathBuf {
        self.0.path().join("bin")
    }

    fn program(&self) -> PathBuf {
        self.programs().join("ratchet")
    }

    fn configs(&self) -> PathBuf {
        self.0.path().join("net.d")
    }

    fn ours(&self) -> PathBuf {
        self.configs().join(FILE)
    }

    /// Writes a network's file as the programs of others do: in place.
    fn network(&self, name: &str, types: &[&str]) -> String {
        let plugins: Vec<Value> = types.iter().map(|kind| json!({"type": kind})).collect();
        let text = json!({"name": "n", "cniVersion": "1.0.0", "plugins": plugins}).to_string();
        fs::write(self.configs().join(name), &text).unwrap();
        text
    }

    fn installer(&self) -> Command {
        let mut command = Command::new(installer());
        command.arg(self.programs()).arg(self.configs());
        command
    }

    /// One look, which must succeed. Returns what it says.
    fn look(&self) -> String {
        let output: Output = self.installer().output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn follow(&self) -> Following {
        Following(self.installer().arg("follow").spawn().unwrap())
    }

    /// The types of our file's plugins; none without a file. What is there is always whole.
    fn types(&self) -> Vec<String> {
        let Ok(text) = fs::read_to_string(self.ours()) else {
            return Vec::new();
        };
        let config: Value = serde_json::from_str(&text).unwrap();
        let plugins = config["plugins"].as_array().unwrap().iter();
        plugins
            .map(|plugin| plugin["type"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The names in both directories.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for dir in [self.programs(), self.configs()] {
            let entries = fs::read_dir(dir).into_iter().flatten();
            names.extend(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
        }
        names.sort();
        names
    }
}

/// An installer that follows changes. It is killed when it is dropped.
struct Following(Child);

impl Drop for Following {
    fn drop(&mut self) {
        let _it_may_have_ended = self.0.kill();
        self.0.wait().unwrap();
    }
}

fn installer() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/install");
    assert!(
        path.exists(),
        "{} is missing: cargo build -p ratchet-install --examples",
        path.display()
    );
    path
}

fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !probe() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_look_makes_what_is_missing_and_a_second_one_changes_nothing() {
    let node = Node::new();
    let network = node.network("10-a.conflist", &["bridge", "portmap"]);
    assert_eq!(node.look(), "Wrote");
    assert_eq!(node.types(), ["bridge", "portmap", "ratchet"]);
    assert_eq!(
        fs::read(node.program()).unwrap(),
        fs::read(installer()).unwrap()
    );
    assert_eq!((mode(&node.program()), mode(&node.ours())), (0o755, 0o600));
    assert_eq!(node.names(), [FILE, "10-a.conflist", "ratchet"]);
    let inodes = || [node.program(), node.ours()].map(|path| fs::metadata(path).unwrap().ino());
    let before = inodes();
    assert_eq!(node.look(), "Settled");
    assert_eq!(inodes(), before);
    assert_eq!(
        fs::read_to_string(node.configs().join("10-a.conflist")).unwrap(),
        network
    );
}

#[test]
fn without_a_network_there_is_only_the_program() {
    let node = Node::new();
    assert_eq!(node.look(), "Wrote");
    assert_eq!(node.names(), ["ratchet"]);
}

#[test]
fn without_the_program_there_is_no_config() {
    let node = Node::new();
    node.network("10-a.conflist", &["bridge"]);
    fs::write(node.programs(), "a file in place of the directory").unwrap();
    let output = node.installer().output().unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("install"),
        "{output:?}"
    );
    assert_eq!(node.types(), [""; 0]);
}

#[test]
fn a_program_that_runs_is_replaced() {
    let node = Node::new();
    fs::create_dir(node.programs()).unwrap();
    fs::copy("/bin/sleep", node.program()).unwrap();
    let mut running = Following(Command::new(node.program()).arg("100").spawn().unwrap());
    assert_eq!(node.look(), "Wrote");
    assert_eq!(
        fs::read(node.program()).unwrap(),
        fs::read(installer()).unwrap()
    );
    assert!(running.0.try_wait().unwrap().is_none());
}

/// A link that was put there instead would send the program elsewhere.
#[test]
fn what_is_left_of_a_killed_agent_is_no_hindrance() {
    let node = Node::new();
    node.network("10-a.conflist", &["bridge"]);
    fs::create_dir(node.programs()).unwrap();
    let elsewhere = node.0.path().join("elsewhere");
    fs::write(&elsewhere, "x").unwrap();
    std::os::unix::fs::symlink(&elsewhere, node.programs().join(".ratchet.tmp")).unwrap();
    fs::write(node.configs().join(format!(".{FILE}.tmp")), "{").unwrap();
    assert_eq!(node.look(), "Wrote");
    assert_eq!(node.names(), [FILE, "10-a.conflist", "ratchet"]);
    assert_eq!(fs::read_to_string(elsewhere).unwrap(), "x");
}

#[test]
fn a_kill_at_any_step_leaves_what_was_there_or_what_shall_be() {
    for &point in ratchet_failpoint::INSTALL {
        let node = Node::new();
        // An older program, and the config of an older network.
        node.network("10-a.conflist", &["bridge"]);
        node.look();
        let old_config = fs::read(node.ours()).unwrap();
        fs::remove_file(node.program()).unwrap();
        fs::copy("/bin/true", node.program()).unwrap();
        let old_program = fs::read(node.program()).unwrap();
        let network = node.network("10-a.conflist", &["bridge", "portmap"]);

        let mut killed = node.installer();
        let status = killed.env("RATCHET_FAILPOINT", point).status().unwrap();
        assert_eq!(status.signal(), Some(9), "{point} is not passed");
        let (program, config) = (
            fs::read(node.program()).unwrap(),
            fs::read(node.ours()).unwrap(),
        );
        let new_program = fs::read(installer()).unwrap();
        let is_of_the_program = point.starts_with("install.program");
        let is_new = !is_of_the_program || point.ends_with("renamed");
        assert!(
            program == if is_new { &new_program } else { &old_program }[..],
            "{point}"
        );
        assert_eq!(mode(&node.program()) & 0o111, 0o111, "{point}");
        match point {
            "install.config.renamed" => {
                assert_eq!(node.types(), ["bridge", "portmap", "ratchet"], "{point}");
            }
            _ => assert_eq!(config, old_config, "{point}"),
        }
        // What is left beside them no runtime reads.
        for name in node.names() {
            let is_whole = ["ratchet", FILE, "10-a.conflist"].contains(&name.as_str());
            assert!(is_whole || name.ends_with(".tmp"), "{point}: {name}");
        }
        node.look();
        assert_eq!(node.types(), ["bridge", "portmap", "ratchet"], "{point}");
        assert!(fs::read(node.program()).unwrap() == new_program, "{point}");
        assert_eq!(node.names(), [FILE, "10-a.conflist", "ratchet"], "{point}");
        let foreign = fs::read_to_string(node.configs().join("10-a.conflist")).unwrap();
        assert_eq!(foreign, network, "{point}");
    }
}

#[test]
fn it_follows_changes_until_it_ends_and_leaves_all() {
    let node = Node::new();
    let following = node.follow();
    let becomes = |types: &[&str]| {
        eventually(&format!("{types:?}"), || node.types() == types);
    };
    eventually("the program", || node.program().exists());
    node.network("10-a.conflist", &["bridge"]);
    becomes(&["bridge", "ratchet"]);
    // In place, half of it first: there is no moment at which another network is taken.
    node.network("20-b.conflist", &["other"]);
    let whole = node.network("10-a.conflist", &["bridge", "portmap"]);
    becomes(&["bridge", "portmap", "ratchet"]);
    fs::write(
        node.configs().join("10-a.conflist"),
        &whole[..whole.len() / 2],
    )
    .unwrap();
    fs::write(node.configs().join("30-c.conflist"), "{}").unwrap();
    let before = fs::read(node.ours()).unwrap();
    node.network("10-a.conflist", &["bridge", "tuning"]);
    eventually("the next state", || {
        let now = fs::read(node.ours()).unwrap();
        assert!(!String::from_utf8_lossy(&now).contains("other"));
        now != before
    });
    becomes(&["bridge", "tuning", "ratchet"]);
    // By renaming.
    let fresh = node.configs().join("fresh");
    fs::rename(node.configs().join("20-b.conflist"), &fresh).unwrap();
    fs::rename(&fresh, node.configs().join("10-a.conflist")).unwrap();
    becomes(&["other", "ratchet"]);
    // What others add stays; ours comes back if someone removes it.
    let mut ours: Value = serde_json::from_slice(&fs::read(node.ours()).unwrap()).unwrap();
    ours["plugins"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "istio-cni"}));
    fs::write(node.ours(), ours.to_string()).unwrap();
    becomes(&["other", "istio-cni", "ratchet"]);
    fs::remove_file(node.ours()).unwrap();
    becomes(&["other", "ratchet"]);
    // The network's file goes, and comes back in a new directory.
    fs::remove_file(node.configs().join("10-a.conflist")).unwrap();
    fs::remove_dir_all(node.configs()).unwrap();
    eventually("the directory", || node.configs().exists());
    node.network("10-a.conflist", &["bridge"]);
    becomes(&["bridge", "ratchet"]);

    let pid = nix::unistd::Pid::from_raw(following.0.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    drop(following);
    assert_eq!(node.names(), [FILE, "10-a.conflist", "ratchet"]);
    assert_eq!(node.types(), ["bridge", "ratchet"]);
}

#[test]
fn uninstalling_removes_the_config_and_nothing_else() {
    let node = Node::new();
    let network = node.network("10-a.conflist", &["bridge"]);
    node.look();
    assert!(uninstall(&node.configs()).unwrap());
    assert!(!uninstall(&node.configs()).unwrap());
    assert_eq!(node.names(), ["10-a.conflist", "ratchet"]);
    assert_eq!(
        fs::read_to_string(node.configs().join("10-a.conflist")).unwrap(),
        network
    );
    // A file of that name which a person has written.
    fs::write(node.ours(), &network).unwrap();
    let error = uninstall(&node.configs()).unwrap_err().to_string();
    assert!(
        error.contains("was not made by `ratchet agent --install`"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(node.ours()).unwrap(), network);
}
