//! Writes statuses of Links and the node's underlay, in the background.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use ratchet_api::{
    Link, LinkEndStatus, MANAGER_OF_A, MANAGER_OF_B, NodeUnderlay, NodeUnderlaySpec,
};
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use super::{backlog::Written, known::Side, links::EndKey, state::Shared};

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_millis(200);
/// How many statuses are written at once.
const AT_ONCE: usize = 8;
/// Between two attempts: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Writes without end.
pub(super) async fn run(shared: Arc<Shared>, mut client: watch::Receiver<Option<Client>>) {
    let mut pause = PAUSE.0;
    loop {
        shared.to_write.notified().await;
        sleep(GATHER).await;
        let Ok(connected) = client
            .wait_for(Option::is_some)
            .await
            .map(|client| client.clone())
        else {
            return;
        };
        let Some(connected) = connected else { continue };
        let (underlay, statuses) = shared.take_outgoing();
        let mut failed = false;
        if let Some(underlay) = underlay {
            let written = write_underlay(&connected, &shared, &underlay).await;
            shared.end_underlay(written);
            failed = written == Written::Again;
        }
        failed |= write_statuses(&connected, &shared, statuses).await;
        pause = match failed {
            true => {
                sleep(pause).await;
                (pause * 2).min(PAUSE.1)
            }
            false => PAUSE.0,
        };
    }
}

async fn write_underlay(client: &Client, shared: &Shared, spec: &NodeUnderlaySpec) -> Written {
    let node = shared.state().links.node().to_string();
    let underlays: Api<NodeUnderlay> = Api::all(client.clone());
    let object = NodeUnderlay::new(&node, spec.clone());
    let apply = PatchParams::apply("ratchet-agent").force();
    let patched = underlays.patch(&node, &apply, &Patch::Apply(&object)).await;
    settle(&format!("NodeUnderlay {node}"), patched.map(drop))
}

/// Returns whether some have to be written again.
async fn write_statuses(
    client: &Client,
    shared: &Shared,
    statuses: BTreeMap<EndKey, LinkEndStatus>,
) -> bool {
    let writes = statuses.into_iter().map(|(key, status)| async move {
        let written = write_status(client, &key, &status).await;
        (key, written)
    });
    let mut written = stream::iter(writes).buffer_unordered(AT_ONCE);
    let mut failed = false;
    while let Some((key, written)) = written.next().await {
        failed |= written == Written::Again;
        shared.end_status(key, written);
    }
    failed
}

/// Each end has a field manager of its own: with one for both, each would drop what the other
/// has written.
async fn write_status(client: &Client, (link, side): &EndKey, status: &LinkEndStatus) -> Written {
    let links: Api<Link> = Api::namespaced(client.clone(), &link.namespace);
    let manager = match side {
        Side::A => MANAGER_OF_A,
        Side::B => MANAGER_OF_B,
    };
    let object = json!({
        "apiVersion": Link::api_version(&()),
        "kind": Link::kind(&()),
        "metadata": { "name": link.name, "namespace": link.namespace },
        "status": { side.field(): status },
    });
    let apply = PatchParams::apply(manager).force();
    let patched = links
        .patch_status(&link.name, &apply, &Patch::Apply(&object))
        .await;
    let what = format!("status of Link {}/{}", link.namespace, link.name);
    settle(&what, patched.map(drop))
}

fn settle(what: &str, written: Result<(), kube::Error>) -> Written {
    match written {
        Ok(()) => Written::Done,
        // It has gone meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => Written::Done,
        Err(kube::Error::Api(status)) if [403, 422].contains(&status.code) => {
            tracing::error!(
                what,
                refusal = status.message,
                "the Kubernetes API refuses a write"
            );
            Written::Refused
        }
        Err(error) => {
            tracing::debug!(what, %error, "cannot write; trying again");
            Written::Again
        }
    }
}
