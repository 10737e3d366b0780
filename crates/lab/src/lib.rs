//! The lab: a cluster in network namespaces, for `ratchet lab up|down|status|exec`.
//!
//! It takes the manifests one would give to `kubectl apply` and plays what Kubernetes would do with
//! them on one machine: a network namespace a node on a common underlay, an agent in each, a
//! sandbox a pod, and the CNI calls a container runtime makes. Everything that is made is written
//! to `lab.json` before it is made, so that `down` finds it whatever became of the `up`. The
//! `ratchet` binary is a black box here: the lab starts it by its command line and by CNI, never by
//! linking to its insides.
//!
//! | module | its one concern |
//! |---|---|
//! | `cli` | the commands and their help |
//! | `manifest` | text to pods, nodes and volumes, with errors that name the field |
//! | `schedule`, `plan` | which pod goes where; all names and addresses, before anything is made |
//! | `state` | `/run/ratchet/lab/NAME`: what was made, and the lock |
//! | `netns`, `ip`, `process` | the kernel: namespaces, underlay, processes by start time |
//! | `agent`, `cni`, `sandbox` | a node's agent; the calls to the plugin; the inside of a pod |
//! | `up`, `down`, `status`, `exec` | one file a command |

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

/// Runs one `ratchet lab` command; `ratchet` is the binary to start agents from and to call as the
/// plugin, usually the running program itself.
///
/// `exec` replaces the calling process when all is well, so it returns only with an error.
pub fn run(command: LabCommand, ratchet: &Path) -> anyhow::Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a lab is made of network namespaces, which takes root: run this command with sudo");
    }
    match command {
        LabCommand::Up(args) => up::up(&args, ratchet),
        LabCommand::Down(args) => down::down(&args),
        LabCommand::Status(args) => status::status(&args),
        LabCommand::Exec(args) => exec::exec(&args),
    }
}
