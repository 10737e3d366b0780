//! Runs iproute2's `ip` to set up the lab's namespaces and underlay.

use std::{
    io::{ErrorKind, Write},
    os::unix::process::CommandExt,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::process::MARK;

/// Checks that iproute2 is installed, before anything is made.
pub(crate) fn check() -> Result<()> {
    match Command::new("ip")
        .arg("-Version")
        .stdin(Stdio::null())
        .output()
    {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(
                "a lab needs the program `ip`, and there is none on this machine's PATH: install \
                 iproute2"
            )
        }
        Err(error) => Err(error).context("cannot run `ip`"),
    }
}

/// Runs `ip ARGS`.
pub(crate) fn run(args: &[&str], lab_id: &str) -> Result<()> {
    execute(args, "", lab_id)
}

/// Runs several commands inside a namespace, one per line.
pub(crate) fn batch(netns: &str, commands: &str, lab_id: &str) -> Result<()> {
    execute(&["-n", netns, "-batch", "-"], commands, lab_id)
}

fn execute(args: &[&str], input: &str, lab_id: &str) -> Result<()> {
    let what = || format!("ip {}", args.join(" "));
    let output = spawn(args, input, lab_id).with_context(|| format!("cannot run `{}`", what()))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        let input = if input.is_empty() {
            String::new()
        } else {
            format!(" with\n{input}")
        };
        bail!("`{}`{input} failed: {}", what(), message.trim());
    }
    Ok(())
}

fn spawn(args: &[&str], input: &str, lab_id: &str) -> std::io::Result<Output> {
    let mut child = Command::new("ip")
        .args(args)
        .env(MARK, lab_id)
        // Not in the terminal's foreground group: Ctrl-C reaches this process only, which lets the
        // step finish.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // After an error `ip` stops reading; its message says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}
