//! Ratchet's CNI plugin: what the binary does when CNI_COMMAND is set.
//!
//! A plugin process serves one call. It reads the call, decides whether the pod may be Ratchet's,
//! runs the delegate or the boot network as CNI says, asks the node's agent to attach or detach the
//! sandbox, and prints the result.
//!
//! This crate may not talk to a store or to the kernel's network, may not know what a link is
//! beyond its interface, and is synchronous. The model knows what a declaration means, the agent
//! what is wired, and `ratchet-cni` what CNI says.
//!
//! # Three positions
//! * **Wrapper** (no `prevResult`; `delegate`, `boot_network` or both): pods that are not Ratchet's
//!   get the delegate and exactly its output; Ratchet's pods get the boot network, or else the
//!   delegate, and then their links.
//! * **Chained** (`prevResult`; neither `delegate` nor `boot_network`): the result so far is passed
//!   on, with the links' interfaces appended for Ratchet's pods.
//! * `prevResult` **and** `delegate` or `boot_network`: refused with code 7. A plugin before
//!   us has made the pod's network. To make a second one, or to ignore the config, would both be a
//!   surprise. Only ADD can tell: DEL and CHECK get a `prevResult` in every position.

mod add;
mod agent;
mod call;
mod check;
mod codes;
mod config;
mod console;
mod del;
#[cfg(test)]
mod fuzz_tests;
mod gc;
mod identity;
mod inspect;
mod launch;
mod netns;
mod state;
mod status;

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use ratchet_cni::{Environment, Error, Executor, Output, Plugin, Request};

pub use codes::own as code;
use console::Console;
pub use inspect::{ConfigSummary, read_config};

/// Serves the call that the process was started for, with its own environment and streams.
#[must_use]
pub fn run() -> ExitCode {
    let env: Environment = std::env::vars_os().collect();
    ExitCode::from(run_with(
        &env,
        io::stdin().lock(),
        io::stdout().lock(),
        io::stderr(),
    ))
}

/// Serves one call and returns the exit status. Reads and changes nothing else of the process, but
/// may start an agent and runs embedded plugins.
pub fn run_with(
    env: &Environment,
    stdin: impl Read,
    stdout: impl Write,
    stderr: impl Write + Send + 'static,
) -> u8 {
    let console = Console::new(stderr);
    ratchet_cni::run(
        &Ratchet {
            console: console.clone(),
        },
        env,
        stdin,
        stdout,
        console,
    )
}

/// The plugin, as `ratchet-cni` calls it.
struct Ratchet {
    console: Console,
}

impl Ratchet {
    /// Runs embedded plugins. Their stderr goes where ours goes.
    fn executor(&self) -> Executor {
        Executor::with_stderr(self.console.clone())
    }
}

impl Plugin for Ratchet {
    fn about(&self) -> String {
        format!(
            "ratchet {}: direct layer-2 links between pods; a CNI plugin",
            env!("CARGO_PKG_VERSION")
        )
    }

    fn add(&self, request: &Request) -> Result<Output, Error> {
        add::add(self, request)
    }

    fn del(&self, request: &Request) -> Result<(), Error> {
        del::del(self, request)
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        check::check(self, request)
    }

    fn gc(&self, request: &Request) -> Result<(), Error> {
        gc::gc(self, request)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        status::status(self, request)
    }
}
