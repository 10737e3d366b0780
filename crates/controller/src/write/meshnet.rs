//! Writes the statuses of meshnet's Topologies.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use ratchet_api::meshnet::{MANAGER, Status, Topology};
use serde_json::{Value, json};

use super::{Request, Writer, came};
use crate::{snapshot::Key, state::version};

impl Writer {
    /// A merge and not an apply, which a server refuses if its definition lacks one of the fields.
    pub(super) fn of_meshnet(&self, key: Key, status: &Status) -> Request {
        let api: Api<Topology> = Api::namespaced(self.client.clone(), &key.namespace);
        let object = format!("the status of Topology {key} of networkop.co.uk");
        if !status.plumbing_error.is_empty() {
            tracing::warn!(
                "Topology {key} of networkop.co.uk: {}",
                status.plumbing_error
            );
        }
        let patch = patch(status);
        Request::new(object, async move {
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let patch = Patch::Merge(&patch);
            let answer = api.patch_status(&key.name, &params, &patch).await;
            came(answer, |mut topology| {
                topology.metadata.managed_fields = None;
                Box::new(move |state| {
                    let version = version(&topology.metadata);
                    let known = &mut state.known.meshnet;
                    state.feeds.meshnet.wrote(known, key, version, topology);
                })
            })
        })
    }
}

/// meshnet writes empty texts for a pod that is gone, and removes an error that is over.
fn patch(status: &Status) -> Value {
    let error = Some(&status.plumbing_error).filter(|error| !error.is_empty());
    json!({"status": {
        "src_ip": status.src_ip,
        "net_ns": status.net_ns,
        "container_id": status.container_id,
        "plumbing_error": error,
        "skipped": null,
    }})
}
