//! The lab: a cluster in network namespaces, for `ratchet lab up|down|status|exec`.
//!
//! It takes the manifests that `kubectl apply` takes and does on one machine what Kubernetes would
//! do with them. It makes a network namespace for each node, on a common underlay and with an agent
//! in it, and a sandbox for each pod, and it calls the plugin as a container runtime does. Each
//! thing is written to `lab.json` before it is made, so that `down` finds it even if `up` was
//! killed. The lab starts the `ratchet` binary by its command line and by CNI, and may not link to
//! the crates of the agent and the plugin.
//!
//! | module | its one concern |
//! |---|---|
//! | `cli` | the commands and their help |
//! | `manifest` | text to pods, nodes and volumes, with errors that name the field |
//! | `schedule`, `plan` | the node of each pod; all names and addresses, before anything is made |
//! | `state` | `/run/ratchet/lab/NAME`: what was made, and the lock |
//! | `netns`, `ip`, `process` | the kernel: namespaces, underlay, processes by start time |
//! | `agent`, `cni`, `sandbox` | a node's agent; the calls to the plugin; the inside of a pod |
//! | `up`, `down`, `status`, `exec` | one file for each command |

mod agent;
mod cli;
mod cni;
mod down;
mod exec;
mod interrupt;
mod ip;
mod manifest;
mod netns;
mod plan;
mod process;
mod progress;
mod sandbox;
mod schedule;
mod state;
mod status;
mod up;

use std::{path::Path, process::ExitCode};

use anyhow::bail;

pub use cli::{DownArgs, ExecArgs, LabCommand, StatusArgs, UpArgs};

/// Runs one `ratchet lab` command. `ratchet` is the binary that is started as agent and called as
/// plugin, usually the running program itself.
///
/// `exec` replaces the calling process, so it returns only when it fails.
///
/// # Errors
/// When the user is not root, or the command fails. The error says what to do.
pub fn run(command: LabCommand, ratchet: &Path) -> anyhow::Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a lab makes network namespaces, which only root may do: run this command with sudo");
    }
    match command {
        LabCommand::Up(args) => up::up(&args, ratchet),
        LabCommand::Down(args) => down::down(&args),
        LabCommand::Status(args) => status::status(&args),
        LabCommand::Exec(args) => exec::exec(&args),
    }
}
