//! A fake `ratchet` binary for the lab's tests: the real `ratchet lab`, a plugin that makes no
//! links and records its calls, and an agent that only accepts connections.
//!
//! `FAKE_RECORD` names the directory of the records. `FAKE_FAULT` injects a fault: `fail-add=POD`,
//! `hang-add=POD` or `agent-exits`.

use std::{
    env, fs, io::Read, os::unix::net::UnixListener, path::PathBuf, process::ExitCode, thread,
};

use anyhow::{Context, Result};
use clap::Parser;
use ratchet_lab::LabCommand;
use serde_json::json;

#[derive(Debug, Parser)]
enum Cli {
    #[command(subcommand)]
    Lab(LabCommand),
    Agent {
        #[arg(long)]
        store: String,
        #[arg(long)]
        node: String,
        #[arg(long)]
        parent_interface: String,
        #[arg(long)]
        parent_address: String,
        #[arg(long)]
        socket: PathBuf,
        #[arg(long)]
        state_dir: PathBuf,
        #[arg(long)]
        log_file: PathBuf,
        #[arg(long)]
        log_level: String,
    },
    Links {
        #[arg(long)]
        socket: PathBuf,
    },
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    if let Ok(command) = env::var("CNI_COMMAND") {
        return plugin(&command);
    }
    match Cli::parse() {
        Cli::Lab(command) => ratchet_lab::run(command, &env::current_exe()?),
        Cli::Links { socket } => {
            println!("fake links of {}", socket.display());
            Ok(ExitCode::SUCCESS)
        }
        Cli::Agent {
            node,
            parent_interface,
            parent_address,
            socket,
            log_file,
            ..
        } => {
            fs::write(
                &log_file,
                format!("agent of {node} on {parent_interface} {parent_address}\n"),
            )?;
            if has_fault("agent-exits") {
                return Ok(ExitCode::FAILURE);
            }
            record(
                &format!("AGENT-{node}"),
                &json!({"address": parent_address, "devices": devices()?}),
            )?;
            for _ in UnixListener::bind(socket)?.incoming() {}
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn plugin(command: &str) -> Result<ExitCode> {
    let mut stdin = String::new();
    std::io::stdin().read_to_string(&mut stdin)?;
    let config: serde_json::Value = serde_json::from_str(&stdin)?;
    let args = env::var("CNI_ARGS")?;
    let pod = args
        .split(';')
        .find_map(|arg| arg.strip_prefix("K8S_POD_NAME="))
        .context("no pod name")?;
    let variables: std::collections::BTreeMap<_, _> = env::vars()
        .filter(|(key, _)| key.starts_with("CNI_"))
        .collect();
    let netns = fs::metadata(env::var("CNI_NETNS")?).is_ok();
    record(
        &format!("{command}-{pod}"),
        &json!({"env": variables, "config": config, "devices": devices()?, "netns": netns}),
    )?;
    if command == "ADD" && has_fault(&format!("fail-add={pod}")) {
        println!(
            "{}",
            json!({"code": 7, "msg": "a fault", "details": "injected"})
        );
        return Ok(ExitCode::FAILURE);
    }
    if command == "ADD" && has_fault(&format!("hang-add={pod}")) {
        loop {
            thread::park();
        }
    }
    if command == "ADD" {
        println!(
            "{}",
            json!({"cniVersion": "1.0.0", "interfaces": [], "ips": []})
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn has_fault(fault: &str) -> bool {
    env::var("FAKE_FAULT").is_ok_and(|injected| injected == fault)
}

fn record(name: &str, what: &serde_json::Value) -> Result<()> {
    let Some(dir) = env::var_os("FAKE_RECORD").map(PathBuf::from) else {
        return Ok(());
    };
    // In one step: a test that waits for the file must not read half of it.
    let temporary = dir.join(format!(".{name}"));
    fs::write(&temporary, what.to_string())?;
    Ok(fs::rename(temporary, dir.join(name))?)
}

/// The interfaces of the network namespace this process is in.
fn devices() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/net/dev")?;
    Ok(text
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect())
}
