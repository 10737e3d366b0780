//! `ratchet forget-node`: sends the request to the agent and prints the pods that were removed.

use std::time::Duration;

use anyhow::bail;
use ratchet_protocol::{Client, ForgetNode, Reply, Request};

use crate::{cli::ForgetNodeOptions, with_hint};

/// How long the agent may take: it reads all records of the store.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn run(options: &ForgetNodeOptions) -> anyhow::Result<()> {
    let request = Request::ForgetNode(ForgetNode {
        node: options.node.clone(),
        force: options.force,
    });
    let hint = "start one, or run this on another node with the same store; the lost node's own \
                agent cannot do it";
    let reply =
        Client::call(&options.socket, &request, TIMEOUT).map_err(|error| with_hint(error, hint))?;
    match reply {
        Reply::Forgotten(forgotten) if forgotten.pods.is_empty() => {
            println!(
                "node {}: nothing to forget, the store has no pod of this node; VNIs that it held \
                 are released",
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
