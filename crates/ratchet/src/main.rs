//! The `ratchet` binary. With CNI_COMMAND set it is the plugin, under the name `ratchet-child` it
//! is the agent, otherwise a command line. It calls the other crates and has only arguments and
//! tables itself.

mod cli;
mod forget_node;
mod links;
mod names;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{CommandFactory, Parser};
use ratchet_protocol::ClientError;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let is_set = std::env::var_os("CNI_COMMAND").is_some_and(|verb| !verb.is_empty());
    if is_set {
        return ratchet_plugin::run();
    }
    if arguments.first().is_some_and(|name| {
        Path::new(name)
            .file_name()
            .is_some_and(|name| name == "ratchet-child")
    }) {
        // The second binary of 2017. It may be called with or without `agent`.
        if arguments.get(1).is_none_or(|word| word != "agent") {
            arguments.insert(1, "agent".into());
        }
    } else if arguments.len() <= 1 {
        // No arguments. By CNI's convention, a plugin then prints a text about itself to stderr.
        return ratchet_plugin::run();
    }
    names::look_up_without_libraries();
    match run(Cli::parse_from(arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ratchet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Agent(options) => ratchet_agent::run(&options)?,
        Command::Controller(options) => ratchet_controller::run(&options)?,
        Command::Links(options) => links::run(&options)?,
        Command::ForgetNode(options) => forget_node::run(&options)?,
        Command::Doctor(options) => {
            let (text, is_well) = ratchet_doctor::report(&ratchet_doctor::examine(&options));
            print!("{text}");
            return Ok(if is_well {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Command::Uninstall { cni_dir } => {
            let path = cni_dir.join(ratchet_install::FILE);
            let is_removed = ratchet_install::uninstall(&cni_dir)?;
            let done = if is_removed {
                "removed"
            } else {
                "was not there"
            };
            println!("{}: {done}", path.display());
        }
        Command::Lab(command) => return ratchet_lab::run(command, &std::env::current_exe()?),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "ratchet",
                &mut std::io::stdout(),
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The error of a call to the agent, with what to do if no agent answers.
fn with_hint(error: ClientError, hint: &str) -> anyhow::Error {
    match error {
        ClientError::NoAgent { .. } => anyhow::anyhow!("{error}; {hint}"),
        ClientError::Broken { .. }
        | ClientError::Garbled { .. }
        | ClientError::Incompatible { .. } => error.into(),
    }
}
