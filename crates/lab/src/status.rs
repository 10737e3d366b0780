//! `ratchet lab status`: prints nodes, pods and links.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;

use crate::{
    cli::{StatusArgs, name_option},
    netns::Netns,
    process::{ProcessFilter, ProcessId},
    progress::{say, table, warn},
    schedule::HOSTNAME_LABEL,
    state::{LabDir, Node, Pod, State},
};

/// Prints a lab. The exit code is 0 if all of its agents run.
pub(crate) fn status(args: &StatusArgs) -> Result<ExitCode> {
    let dir = LabDir::existing(&args.name)?;
    let state = dir.recorded()?;
    if !state.complete {
        let lab = name_option(&state.name);
        warn(&format!(
            "the `up` of this lab has not finished; if it was killed, run `ratchet lab down{lab}`"
        ));
    }
    say(&table(&nodes(&state)));
    say("");
    say(&table(&pods(&state, &dir)));
    let mut healthy = true;
    for node in &state.nodes {
        say(&format!("\nLinks of {}:", node.name));
        healthy &= links(&state, node, &dir);
    }
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn nodes(state: &State) -> Vec<Vec<String>> {
    let head = ["NODE", "ADDRESS", "NETNS", "AGENT", "LABELS"]
        .map(str::to_owned)
        .to_vec();
    let row = |node: &Node| {
        let agent = match node.agent {
            Some(agent) if agent.is_alive() => format!("running, pid {}", agent.pid),
            Some(agent) => format!("dead (was pid {})", agent.pid),
            None => "never started".into(),
        };
        // Every node has the hostname label; it repeats the name.
        let labels = node.labels.iter().filter(|(key, _)| *key != HOSTNAME_LABEL);
        let labels: Vec<_> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        vec![
            node.name.clone(),
            node.address.to_string(),
            netns(&node.netns),
            agent,
            labels.join(","),
        ]
    };
    std::iter::once(head)
        .chain(state.nodes.iter().map(row))
        .collect()
}

fn pods(state: &State, dir: &LabDir) -> Vec<Vec<String>> {
    let head = ["POD", "NODE", "NETNS", "PROCESSES", "LOG"]
        .map(str::to_owned)
        .to_vec();
    let row = |pod: &Pod| {
        let namespaces = pod.netns.live().into_iter().collect();
        let processes: Vec<ProcessId> = ProcessFilter {
            namespaces,
            ..ProcessFilter::default()
        }
        .find();
        let log = if pod.has_script {
            dir.pod_log(pod).display().to_string()
        } else {
            "-".into()
        };
        vec![
            pod.title(),
            pod.node.clone(),
            netns(&pod.netns),
            processes.len().to_string(),
            log,
        ]
    };
    std::iter::once(head)
        .chain(state.pods.iter().map(row))
        .collect()
}

fn netns(netns: &Netns) -> String {
    let gone = if netns.live().is_some() {
        ""
    } else {
        " (gone)"
    };
    format!("{}{gone}", netns.name)
}

/// Prints the output of `ratchet links` for a node. Returns false when its agent does not run.
fn links(state: &State, node: &Node, dir: &LabDir) -> bool {
    if !node.agent.is_some_and(ProcessId::is_alive) {
        say(&format!(
            "unknown: the node's agent is not running (its log: {})",
            dir.agent_log(&node.name).display()
        ));
        return false;
    }
    let mut command = Command::new(&state.ratchet);
    command
        .arg("links")
        .arg("--socket")
        .arg(dir.socket(&node.name))
        .stdin(Stdio::null());
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            warn(&format!("cannot run {}: {error}", state.ratchet.display()));
            false
        }
    }
}
