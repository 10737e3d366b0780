//! `ratchet forget-node`: sends the request to the agent and prints the pods that were removed.

use std::time::Duration;

use anyhow::{Context, bail};
use ratchet_protocol::{Client, ForgetNode, Reply, Request};

use crate::cli::ForgetNodeOptions;

/// How long the agent may take: it reads all records of the store.
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
                "node {}: nothing to forget, the store has no pod of this node",
                options.node
            );
        }
        Reply::Forgotten(forgotten) => {
            for pod in &forgotten.pods {
                println!("pod {pod} of node {} is removed", options.node);
            }
        }
        Reply::Error(failure) => bail!(failure),
        other => bail!(
            "expected the pods that were removed, the agent answered {other:?}: use the version \
             of ratchet that the agent has"
        ),
    }
    Ok(())
}
