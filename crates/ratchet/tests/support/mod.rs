//! A cluster for tests: nodes and pods are network namespaces, agents and the plugin are the built
//! binary.
//!
//! Names are unique to the process and the cluster, so that tests run in parallel. Everything is
//! removed on drop, also when a test panics.
//!
//! | module | what it has |
//! |---|---|
//! | `cluster` | nodes on one underlay with one store |
//! | `node` | a node and its agent |
//! | `plugin` | a node's CNI config, and calls of the plugin on it |
//! | `pod` | pods and their sandboxes |
//! | `etcd` | a cluster with a real etcd |
//! | `api` | a Kubernetes API that hangs until it is told to answer |
//! | `netns` | network namespaces |
//! | `pinger` | a ping that counts lost packets |
// Each test uses a part of this only, and clippy.toml allows unwrap in `#[test]` functions only.
#![allow(dead_code, unused_imports, clippy::unwrap_used, missing_docs)]

pub mod api;
mod cluster;
pub mod etcd;
mod netns;
mod node;
mod pinger;
mod plugin;
mod pod;

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

pub use cluster::Cluster;
pub use netns::Netns;
pub use node::Node;
pub use pinger::Pinger;
pub use pod::{Pod, Sandbox, cloud_router};

pub const RATCHET: &str = env!("CARGO_BIN_EXE_ratchet");

/// How long a state may take to be reached.
pub const DEADLINE: Duration = Duration::from_secs(20);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A number that is unique within this process.
fn unique() -> u32 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// Polls until `probe` succeeds. `what` names the state in the failure, next to the probe's error.
#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => {
                panic!("expected {what} within {DEADLINE:?}: {why}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Runs a shell command that must succeed, and returns its output.
#[track_caller]
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Sends SIGTERM.
pub fn terminate(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
}
