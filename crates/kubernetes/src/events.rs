//! Events on pods and other objects: problems that a user has to fix, shown by `kubectl describe`.

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
use ratchet_model::text::bounded;

/// The most bytes of an event's text, a limit of the API (`NoteLengthLimit` in
/// k8s.io/kubernetes/pkg/apis/core/validation/events.go). It refuses longer ones.
const NOTE: usize = 1024;

/// The most bytes of the name of who reports, and of an event's reason (the same file).
const NAME: usize = 128;

/// How long posting an event may take. Nothing depends on it, so the time is short.
const TIMEOUT: Duration = Duration::from_secs(5);

/// So many texts of a pod are remembered, so that they are not posted again.
const REMEMBERED: usize = 64;

/// The last texts that have been posted, by pod uid. Reporters that are made one after another
/// share it.
pub type Posted = Arc<tokio::sync::Mutex<BTreeMap<String, VecDeque<String>>>>;

/// Posts events.
#[derive(Clone)]
pub struct Reporter {
    client: Client,
    source: Source,
    posted: Posted,
}

impl Reporter {
    /// A reporter: the component that events name as their source, and which of its instances.
    pub fn new(client: Client, component: &str, instance: &str) -> Self {
        let source = Source {
            controller: component.to_owned(),
            instance: Some(bounded(instance, NAME)),
        };
        Self {
            client,
            source,
            posted: Posted::default(),
        }
    }

    /// The same, with the memory of reporters before it.
    #[must_use]
    pub fn remembering(self, posted: Posted) -> Self {
        Self { posted, ..self }
    }

    /// Posts a warning on a pod (namespace, name, uid), unless the same text was posted before. The
    /// reason is a short word in CamelCase, by which `kubectl get events` shows and selects events.
    pub async fn warn(&self, pod: (&str, &str, &str), reason: &str, text: &str) {
        let (namespace, name, uid) = pod;
        if !note(
            self.posted.lock().await.entry(uid.to_owned()).or_default(),
            text,
        ) {
            return;
        }
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.post(&pod, reason, text).await;
    }

    /// Posts a warning on an object, even a second time. A failure is only logged: nothing
    /// depends on the right to create events.
    pub async fn post(&self, object: &ObjectReference, reason: &str, text: &str) {
        let event = Event {
            type_: EventType::Warning,
            reason: bounded(reason, NAME),
            note: Some(bounded(text, NOTE)),
            action: "Wiring".to_owned(),
            secondary: None,
        };
        // A recorder counts a second event of the same object as a repetition of the first, even
        // with another text. So each event gets its own recorder.
        let recorder = Recorder::new(self.client.clone(), self.source.clone());
        let published = tokio::time::timeout(TIMEOUT, recorder.publish(&event, object)).await;
        let error = match published {
            Ok(Ok(())) => return,
            Ok(Err(error)) => crate::chain(&error),
            Err(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
        };
        let (kind, name) = (&object.kind, &object.name);
        tracing::debug!(?kind, ?name, error, "cannot post an event");
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
