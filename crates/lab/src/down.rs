//! `ratchet lab down`: remove all of a lab, whatever is left of it.

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use anyhow::{Result, bail};

use crate::{
    cli::{DownArgs, name_option},
    cni::Calls,
    netns::refuse_inside,
    process::{self, Belongs, Ended, ProcessId},
    progress::{Progress, say, warn},
    state::{LabDir, State},
};

/// What a pod's processes get to end by themselves.
const POD_GRACE: Duration = Duration::from_secs(1);
const AGENT_GRACE: Duration = Duration::from_secs(5);

/// Takes down a lab.
pub(crate) fn down(args: &DownArgs) -> Result<ExitCode> {
    let progress = Progress::start();
    let dir = LabDir::lock(&args.name)?;
    match dir.load()? {
        Some(mut state) => {
            refuse_inside(&dir, &state.namespaces())?;
            remove(dir, &mut state, Some(&progress))?;
        }
        // Killed before its first record, so before its first namespace.
        None => dir.remove()?,
    }
    say(&format!("the lab '{}' is gone", args.name));
    Ok(ExitCode::SUCCESS)
}

/// Removes everything. Never stops at the first trouble; if any is left, the record stays for the
/// next `down`.
pub(crate) fn remove(dir: LabDir, state: &mut State, progress: Option<&Progress>) -> Result<()> {
    let done = |what: String| {
        progress
            .into_iter()
            .for_each(|progress| progress.done(&what))
    };
    let mut left: Vec<String> = Vec::new();

    // As a runtime does: first the containers end, then their network is taken down.
    let agents = state.nodes.iter().filter_map(|node| node.agent).collect();
    let mut ended = end_all(
        &Belongs {
            except: agents,
            ..everything(state)
        },
        &mut left,
    );
    for pod in state.pods.iter().filter(|pod| pod.attached) {
        let Some(node) = state
            .node(&pod.node)
            .filter(|node| node.netns.live().is_some())
        else {
            continue;
        };
        match (Calls {
            state,
            node,
            pod,
            dir: &dir,
        })
        .del()
        {
            Ok(()) => done(format!("pod {}", pod.title())),
            // Not fatal: the namespaces go, and with them all interfaces; the store's file goes as
            // well.
            Err(error) => warn(&format!("warning: {error:#}")),
        }
    }
    for node in &state.nodes {
        if let Some(agent) = node.agent.filter(|agent| agent.is_alive()) {
            if process::end(agent, AGENT_GRACE) {
                ended.insert(agent);
                done(format!("agent of {}", node.name));
            } else {
                left.push(format!(
                    "process {} (the agent of {}) does not end",
                    agent.pid, node.name
                ));
            }
        }
    }
    // Agents that a plugin had to start, and whoever has come since.
    ended.extend(end_all(&everything(state), &mut left));
    for netns in state.namespaces() {
        match netns.remove() {
            Ok(()) => {}
            Err(error) => left.push(format!("{error:#}")),
        }
    }
    if !left.is_empty() {
        bail!(
            "some of the lab '{}' could not be removed; when the cause is gone, run `ratchet lab \
             down{}` again:\n{}",
            state.name,
            name_option(&state.name),
            left.join("\n")
        );
    }
    if progress.is_some() {
        // An `up` that undoes its work is the parent itself, and reaps them on its own.
        process::await_reaped(&ended);
    }
    done(format!("{} network namespaces", state.namespaces().len()));
    dir.remove()
}

/// All processes inside the lab's namespaces, and those that came from the lab.
fn everything(state: &State) -> Belongs {
    let namespaces = state
        .namespaces()
        .into_iter()
        .filter_map(|netns| netns.live())
        .collect();
    Belongs {
        namespaces,
        lab_id: state.id.clone(),
        ..Belongs::default()
    }
}

/// Ends processes; those that do not end are added to `left`, all that were told to are returned.
fn end_all(belongs: &Belongs, left: &mut Vec<String>) -> BTreeSet<ProcessId> {
    let Ended { told, stubborn } = belongs.end_all(POD_GRACE);
    left.extend(stubborn.iter().map(|process| {
        let name =
            std::fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
        format!("process {} ({}) does not end", process.pid, name.trim())
    }));
    told
}
