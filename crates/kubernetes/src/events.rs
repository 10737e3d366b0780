//! Events on pods: problems that a user has to fix, shown by `kubectl describe pod`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter as Source},
};
use ratchet_model::{NodeName, text::bounded};

/// The component that events name as their source.
const COMPONENT: &str = "ratchet";

/// The most bytes of an event's text, a limit of the API (`NoteLengthLimit` in
/// k8s.io/kubernetes/pkg/apis/core/validation/events.go). It refuses longer ones.
const NOTE: usize = 1024;

/// How long posting an event may take. Nothing depends on it, so the time is short.
const TIMEOUT: Duration = Duration::from_secs(5);

/// So many texts of a pod are remembered, so that they are not posted again.
const REMEMBERED: usize = 64;

/// The last texts that have been posted, by pod uid. Reporters that are made one after another
/// share it.
pub type Posted = Arc<tokio::sync::Mutex<BTreeMap<String, VecDeque<String>>>>;

/// Posts events; each text once per pod.
#[derive(Clone)]
pub struct Reporter {
    client: Client,
    source: Source,
    posted: Posted,
}

impl Reporter {
    /// A reporter of this node.
    pub fn new(client: Client, node: &NodeName, posted: Posted) -> Self {
        let source = Source {
            controller: COMPONENT.to_owned(),
            instance: Some(node.to_string()),
        };
        Self {
            client,
            source,
            posted,
        }
    }

    /// Posts a warning on a pod (namespace, name, uid), unless the same text was posted before. The
    /// reason is a short word in CamelCase, by which `kubectl get events` shows and selects events.
    /// A failure is only logged: the agent works without the right to create events.
    pub async fn warn(&self, pod: (&str, &str, &str), reason: &str, text: &str) {
        let (namespace, name, uid) = pod;
        if !note(
            self.posted.lock().await.entry(uid.to_owned()).or_default(),
            text,
        ) {
            return;
        }
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(bounded(text, NOTE)),
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
        // A recorder counts a second event of the same pod as a repetition of the first, even with
        // another text. So each event gets its own recorder.
        let recorder = Recorder::new(self.client.clone(), self.source.clone());
        match tokio::time::timeout(TIMEOUT, recorder.publish(&event, &pod)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(
                pod = name,
                error = crate::chain(&error),
                "cannot post an event"
            ),
            Err(_) => tracing::debug!(
                pod = name,
                "cannot post an event: no answer within {} s",
                TIMEOUT.as_secs()
            ),
        }
    }

    /// Drops what was posted on a pod. Call it when the pod is deleted.
    pub async fn forget(&self, uid: &str) {
        self.posted.lock().await.remove(uid);
    }
}

/// Notes that a text is posted. Returns whether that is new.
fn note(posted: &mut VecDeque<String>, text: &str) -> bool {
    if posted.iter().any(|before| before == text) {
        return false;
    }
    if posted.len() == REMEMBERED {
        posted.pop_front();
    }
    posted.push_back(text.to_owned());
    true
}
