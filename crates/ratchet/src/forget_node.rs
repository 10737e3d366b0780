//! `ratchet forget-node`: has the agent do it and prints what went.

use std::time::Duration;

use anyhow::{Context, bail};
use ratchet_protocol::{Client, ForgetNode, Reply, Request};

use crate::cli::ForgetNodeOptions;

/// How long the agent may take: it goes through all records there are.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn run(options: &ForgetNodeOptions) -> anyhow::Result<()> {
    let request = Request::ForgetNode(ForgetNode {
        node: options.node.clone(),
        force: options.force,
    });
    let hint = "is the agent running? Any node's agent that has the same store will do, but for \
                the lost node's own";
    match Client::call(&options.socket, &request, TIMEOUT).context(hint)? {
        Reply::Forgotten(forgotten) if forgotten.pods.is_empty() => {
            println!(
                "node {}: nothing to forget, the store knows of no pod there",
                options.node
            );
        }
        Reply::Forgotten(forgotten) => {
            for pod in &forgotten.pods {
                println!("pod {pod} has gone with node {}", options.node);
            }
        }
        Reply::Error(failure) => bail!(failure),
        other => bail!("the agent answered {other:?}"),
    }
    Ok(())
}
