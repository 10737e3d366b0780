//! `ratchet lab exec`: runs a program inside a pod.

use std::{
    env,
    io::ErrorKind,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};

use crate::{
    cli::{ExecArgs, name_option},
    process::MARK,
    progress::warn,
    sandbox,
    state::{LabDir, Pod, State},
};

/// Replaces this process by the command, so that terminal, signals and exit code are its own.
pub(crate) fn exec(args: &ExecArgs) -> Result<ExitCode> {
    let dir = LabDir::existing(&args.name)?;
    let state = dir.recorded()?;
    let pod = find(&state, &args.pod)?;
    if pod.netns.live().is_none() {
        let lab = name_option(&state.name);
        bail!(
            "the network namespace {} of pod {} does not exist any more: remove the lab with \
             `ratchet lab down{lab}` and bring it up again",
            pod.netns.name,
            pod.title()
        );
    }
    sandbox::enter(&dir, pod)?;
    let shell = [env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into())];
    let words = if args.command.is_empty() {
        &shell[..]
    } else {
        &args.command[..]
    };
    let error = Command::new(&words[0])
        .args(&words[1..])
        .env("HOSTNAME", &pod.name)
        .env(MARK, &state.id)
        .exec();
    let (code, why) = match error.kind() {
        // The exit codes that a shell uses.
        ErrorKind::NotFound => (
            127,
            "there is no such program on this machine (images are not run)".to_owned(),
        ),
        _ => (126, error.to_string()),
    };
    warn(&format!(
        "cannot run {} in pod {}: {why}",
        words[0],
        pod.title()
    ));
    Ok(ExitCode::from(code))
}

/// Finds a pod by NAMESPACE/NAME or by NAME. Of several pods with the same NAME, the one in the
/// default namespace is meant.
fn find<'a>(state: &'a State, wanted: &str) -> Result<&'a Pod> {
    let (namespace, name) = match wanted.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, wanted),
    };
    let fits = |pod: &&Pod| {
        pod.name == name && namespace.is_none_or(|namespace| pod.namespace == namespace)
    };
    let found: Vec<&Pod> = state.pods.iter().filter(fits).collect();
    match found[..] {
        [pod] => Ok(pod),
        [] => {
            let titles: Vec<_> = state.pods.iter().map(Pod::title).collect();
            bail!(
                "the lab '{}' has no pod {wanted}; its pods are: {}",
                state.name,
                titles.join(", ")
            )
        }
        _ => match found.iter().find(|pod| pod.namespace == "default") {
            Some(pod) => Ok(pod),
            None => {
                let titles: Vec<_> = found.iter().map(|pod| pod.title()).collect();
                bail!(
                    "several pods are called {wanted}: write one of {}",
                    titles.join(", ")
                )
            }
        },
    }
}
