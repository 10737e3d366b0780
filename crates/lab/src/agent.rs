//! A node's agent: started in the node's namespace, ready when its socket answers.

use std::{
    fs::File,
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    interrupt,
    plan::PARENT_INTERFACE,
    process::{MARK, PidFd, new_session},
    state::{LabDir, Node, State},
};

const TIMEOUT: Duration = Duration::from_secs(15);

/// Starts the agent of a node.
pub(crate) fn start(state: &State, node: &Node, dir: &LabDir, log_level: &str) -> Result<Child> {
    let out = dir.node(&node.name).join("agent.out");
    let out = File::create(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut command = Command::new(&state.ratchet);
    command
        .args(["agent", "--store", &dir.store(), "--node", &node.name])
        .args([
            "--parent-interface",
            PARENT_INTERFACE,
            "--parent-address",
            &node.address.to_string(),
        ])
        .arg("--socket")
        .arg(dir.socket(&node.name))
        .arg("--state-dir")
        .arg(dir.node(&node.name).join("state"))
        .arg("--log-file")
        .arg(dir.agent_log(&node.name))
        .args(["--log-level", log_level])
        // With CNI_COMMAND set, the binary would run as the plugin.
        .env_remove("CNI_COMMAND")
        .env(MARK, &state.id)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    new_session(&mut command);
    let spawn = || {
        command
            .spawn()
            .with_context(|| format!("cannot start {}", state.ratchet.display()))
    };
    node.netns
        .run(spawn)
        .with_context(|| format!("the agent of {}", node.name))
}

/// Waits until the agent answers on its socket.
pub(crate) fn wait_ready(child: &mut Child, node: &Node, dir: &LabDir) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let handle = PidFd::open(i32::try_from(child.id())?)?;
    loop {
        if UnixStream::connect(dir.socket(&node.name)).is_ok() {
            return Ok(());
        }
        interrupt::check()?;
        if let Some(status) = child.try_wait()? {
            bail!(
                "the agent of {} ended at once ({status}){}",
                node.name,
                log_tails(node, dir)
            );
        }
        if Instant::now() > deadline {
            let seconds = TIMEOUT.as_secs();
            bail!(
                "the agent of {} does not answer after {seconds} s{}",
                node.name,
                log_tails(node, dir)
            );
        }
        handle.wait(Duration::from_millis(5));
    }
}

/// The end of the agent's logs as the end of an error's text: the files are about to be removed.
fn log_tails(node: &Node, dir: &LabDir) -> String {
    let logs = [
        dir.agent_log(&node.name),
        dir.node(&node.name).join("agent.out"),
    ];
    let tails: Vec<String> = logs.iter().filter_map(|log| tail(log)).collect();
    if tails.is_empty() {
        "; its logs are empty".into()
    } else {
        format!("; its logs end with:\n{}", tails.join("\n"))
    }
}

/// The last lines of a file, indented; `None` when it has no text.
pub(crate) fn tail(path: &std::path::Path) -> Option<String> {
    let text = String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned();
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = &lines[lines.len().saturating_sub(10)..];
    (!last.is_empty()).then(|| {
        last.iter()
            .map(|line| format!("    {line}"))
            .collect::<Vec<_>>()
            .join("\n")
    })
}
