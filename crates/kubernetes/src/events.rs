//! Events on pods: what a user must mend, where `kubectl describe pod` shows it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter as Source},
};
use ratchet_model::NodeName;

/// The component that events name as their source.
const COMPONENT: &str = "ratchet";

/// How long posting an event may take; it is a courtesy, not a duty.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Posts events, each text once a pod.
#[derive(Clone)]
pub struct Reporter {
    client: Client,
    source: Source,
    /// What has been told: pod uid and text.
    told: Arc<tokio::sync::Mutex<BTreeSet<(String, String)>>>,
}

impl Reporter {
    /// A reporter of this node.
    pub fn new(client: Client, node: &NodeName) -> Self {
        let source = Source {
            controller: COMPONENT.to_owned(),
            instance: Some(node.to_string()),
        };
        Self {
            client,
            source,
            told: Arc::default(),
        }
    }

    /// Posts a warning on a pod, unless that has been said of it. That it cannot be posted (the
    /// right to create events is not among those the agent must have) is logged and no more.
    pub async fn warn(&self, namespace: &str, name: &str, uid: &str, text: &str) {
        if !self
            .told
            .lock()
            .await
            .insert((uid.to_owned(), text.to_owned()))
        {
            return;
        }
        let event = Event {
            type_: EventType::Warning,
            reason: "RatchetLink".to_owned(),
            note: Some(text.to_owned()),
            action: "Wiring".to_owned(),
            secondary: None,
        };
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        // A recorder takes the second event of a pod for the first one again, whatever its text:
        // each event gets its own.
        let recorder = Recorder::new(self.client.clone(), self.source.clone());
        match tokio::time::timeout(TIMEOUT, recorder.publish(&event, &pod)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(
                pod = name,
                error = crate::chain(&error),
                "cannot post an event"
            ),
            Err(_) => tracing::debug!(pod = name, "cannot post an event: the API does not answer"),
        }
    }

    /// Forgets a pod.
    pub async fn forget(&self, uid: &str) {
        self.told.lock().await.retain(|(of, _)| of != uid);
    }
}
