//! `ratchet lab down`: removes everything that is left of a lab.

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use anyhow::{Result, bail};

use crate::{
    cli::{DownArgs, name_option},
    cni::Calls,
    netns::refuse_inside,
    process::{self, Ended, ProcessFilter, ProcessId},
    progress::{Progress, say, warn},
    state::{LabDir, State},
};

/// How long a pod's processes may take to end after SIGTERM.
const POD_GRACE: Duration = Duration::from_secs(1);
/// How long an agent may take to end after SIGTERM.
const AGENT_GRACE: Duration = Duration::from_secs(5);

/// Takes down a lab.
pub(crate) fn down(args: &DownArgs) -> Result<ExitCode> {
    let progress = Progress::start();
    let dir = LabDir::lock(&args.name)?;
    match dir.load()? {
        Some(state) => {
            refuse_inside(&dir, &state.namespaces())?;
            remove(dir, &state, Some(&progress))?;
        }
        // `up` was killed before its first record, so before it made anything else.
        None => dir.remove()?,
    }
    say(&format!("the lab '{}' is gone", args.name));
    Ok(ExitCode::SUCCESS)
}

/// Removes everything. It does not stop at an error; if something is left, the record stays for the
/// next `down`.
pub(crate) fn remove(dir: LabDir, state: &State, progress: Option<&Progress>) -> Result<()> {
    let mut removal = Removal {
        dir: &dir,
        state,
        progress,
        ended: BTreeSet::new(),
        left: Vec::new(),
    };
    // In a runtime's order: first the containers end, then their network is taken down.
    removal.end_pods();
    removal.detach_pods();
    removal.stop_agents();
    removal.remove_namespaces();
    let Removal { ended, left, .. } = removal;
    if !left.is_empty() {
        bail!(
            "some of the lab '{}' could not be removed; when the cause is gone, run `ratchet lab \
             down{}` again:\n{}",
            state.name,
            name_option(&state.name),
            left.join("\n")
        );
    }
    if let Some(progress) = progress {
        // Without progress the caller is an `up` that undoes its work: it is the parent of these
        // processes and reaps them itself.
        process::await_reaped(&ended);
        progress.done(&format!("{} network namespaces", state.namespaces().len()));
    }
    dir.remove()
}

/// One removal of a lab.
struct Removal<'a> {
    dir: &'a LabDir,
    state: &'a State,
    progress: Option<&'a Progress>,
    /// Processes that were sent a signal.
    ended: BTreeSet<ProcessId>,
    /// What could not be removed, one line each.
    left: Vec<String>,
}

impl Removal<'_> {
    /// Ends the lab's processes, except for the agents.
    fn end_pods(&mut self) {
        let agents = self.state.nodes.iter().filter_map(|node| node.agent);
        self.end_all(&ProcessFilter {
            except: agents.collect(),
            ..everything(self.state)
        });
    }

    /// Calls DEL for the pods that had an ADD.
    fn detach_pods(&self) {
        let state = self.state;
        for pod in state.pods.iter().filter(|pod| pod.attached) {
            let node = state.node(&pod.node);
            let Some(node) = node.filter(|node| node.netns.live().is_some()) else {
                continue;
            };
            let calls = Calls {
                state,
                node,
                pod,
                dir: self.dir,
            };
            match calls.del() {
                Ok(()) => self.done(&format!("pod {}", pod.title())),
                // Not fatal: the namespaces are removed with all their interfaces, and so is the
                // store's file.
                Err(error) => warn(&format!("warning: {error:#}")),
            }
        }
    }

    fn stop_agents(&mut self) {
        for node in &self.state.nodes {
            let Some(agent) = node.agent.filter(|agent| agent.is_alive()) else {
                continue;
            };
            if process::end(agent, AGENT_GRACE) {
                self.ended.insert(agent);
                self.done(&format!("agent of {}", node.name));
            } else {
                self.left.push(format!(
                    "process {} (the agent of {}) does not end",
                    agent.pid, node.name
                ));
            }
        }
        // Agents that a plugin started, and processes that have started since.
        self.end_all(&everything(self.state));
    }

    fn remove_namespaces(&mut self) {
        for netns in self.state.namespaces() {
            if let Err(error) = netns.remove() {
                self.left.push(format!("{error:#}"));
            }
        }
    }

    fn end_all(&mut self, filter: &ProcessFilter) {
        let Ended {
            signalled,
            remaining,
        } = filter.end_all(POD_GRACE);
        self.ended.extend(signalled);
        self.left.extend(remaining.iter().map(|process| {
            let name =
                std::fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
            format!("process {} ({}) does not end", process.pid, name.trim())
        }));
    }

    fn done(&self, what: &str) {
        if let Some(progress) = self.progress {
            progress.done(what);
        }
    }
}

/// All processes in the lab's namespaces, and those that the lab has started.
fn everything(state: &State) -> ProcessFilter {
    let namespaces = state
        .namespaces()
        .into_iter()
        .filter_map(|netns| netns.live())
        .collect();
    ProcessFilter {
        namespaces,
        lab_id: state.id.clone(),
        ..ProcessFilter::default()
    }
}
