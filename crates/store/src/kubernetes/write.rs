//! Writes statuses of Links and the node's underlay, in the background.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use ratchet_api::{
    Link, LinkEndStatus, MANAGER_OF_A, MANAGER_OF_B, NodeUnderlay, NodeUnderlaySpec,
};
use serde_json::{Map, Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    backlog::Written,
    known::{LinkKey, Side},
    links::EndKey,
    state::Shared,
};

/// How long changes are gathered before they are written: until no other one has come for the one
/// time, or for the other time in all.
const GATHER: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));
/// How many statuses are written at once: while Links come, and else. A new Link is worth more than
/// another one's status, and what the API server does for the one it does not do for the other.
const AT_ONCE: (usize, usize) = (1, 8);
/// Between two attempts: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// The ends of a Link of which something is to be said.
type Ends = BTreeMap<Side, LinkEndStatus>;

/// Writes without end.
pub(super) async fn run(shared: Arc<Shared>, mut client: watch::Receiver<Option<Client>>) {
    let mut pause = PAUSE.0;
    loop {
        if !shared.has_outgoing() {
            shared.to_write.notified().await;
            let to_write = &shared.to_write;
            let gathering = async { while timeout(GATHER.0, to_write.notified()).await.is_ok() {} };
            // At the latest then.
            drop(timeout(GATHER.1, gathering).await);
        }
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
    let mut links: BTreeMap<LinkKey, Ends> = BTreeMap::new();
    for ((link, side), status) in statuses {
        links.entry(link).or_default().insert(side, status);
    }
    let mut links = links.into_iter();
    let mut writing = FuturesUnordered::new();
    let mut failed = false;
    loop {
        let at_once = match shared.links_come() {
            true => AT_ONCE.0,
            false => AT_ONCE.1,
        };
        let free = at_once.saturating_sub(writing.len());
        writing.extend(links.by_ref().take(free).map(|(link, ends)| async move {
            let written = write_status(client, &link, &ends).await;
            (link, ends, written)
        }));
        let Some((link, ends, written)) = writing.next().await else {
            return failed;
        };
        failed |= written == Written::Again;
        for side in ends.into_keys() {
            shared.end_status((link.clone(), side), written);
        }
    }
}

/// One write, also if both ends are on this node. It is a merge patch: what it does not name stays.
async fn write_status(client: &Client, link: &LinkKey, ends: &Ends) -> Written {
    let links: Api<Link> = Api::namespaced(client.clone(), &link.namespace);
    let manager = match ends.contains_key(&Side::A) {
        true => MANAGER_OF_A,
        false => MANAGER_OF_B,
    };
    let params = PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    };
    let ends = ends.iter();
    let ends: Map<String, Value> = ends
        .map(|(side, status)| (side.field().to_owned(), patch(status)))
        .collect();
    let patch = Patch::Merge(json!({ "status": ends }));
    let patched = links.patch_status(&link.name, &params, &patch).await;
    let what = format!("status of Link {}/{}", link.namespace, link.name);
    settle(&what, patched.map(drop))
}

/// A status as a merge patch: fields that it does not have are removed.
fn patch(status: &LinkEndStatus) -> Value {
    let mut patch = json!({
        "sandbox": null, "kind": null, "mtu": null, "reason": null, "message": null,
    });
    if let (Value::Object(patch), Value::Object(fields)) = (&mut patch, json!(status)) {
        patch.extend(fields);
    }
    patch
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

#[cfg(test)]
mod tests {
    use ratchet_api::{EndState, Kind};

    use super::*;

    #[test]
    fn a_patch_removes_what_a_status_does_not_have() {
        let bare = LinkEndStatus {
            node: "n1".to_owned(),
            pod_uid: "uid".to_owned(),
            sandbox: None,
            observed_generation: 1,
            state: EndState::Waiting,
            kind: None,
            mtu: None,
            reason: None,
            message: None,
        };
        let full = LinkEndStatus {
            sandbox: Some("s".to_owned()),
            kind: Some(Kind::Veth),
            mtu: Some(1450),
            reason: Some("Wired".to_owned()),
            message: Some("text".to_owned()),
            ..bare.clone()
        };
        let names = |value: &Value| -> Vec<String> {
            let fields = value.as_object().unwrap();
            fields.keys().cloned().collect()
        };
        assert_eq!(patch(&full), json!(full));
        assert_eq!(names(&patch(&bare)), names(&json!(full)));
        assert_eq!(patch(&bare)["message"], Value::Null);
        assert_eq!(patch(&bare)["state"], "Waiting");
    }
}
