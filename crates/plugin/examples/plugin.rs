//! The plugin as a program of its own, for tests that have to kill it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ratchet_plugin::run()
}
