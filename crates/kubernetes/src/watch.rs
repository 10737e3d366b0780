//! Watches a node's pods.

use std::collections::BTreeMap;

use futures_util::{Stream, StreamExt, future::ready};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use ratchet_model::NodeName;

use crate::chain;

/// The part of a pod's metadata that Ratchet uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl PodFacts {
    pub(crate) fn of(metadata: &ObjectMeta) -> Option<Self> {
        Some(Self {
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
            uid: metadata.uid.clone().unwrap_or_default(),
            labels: metadata.labels.clone().unwrap_or_default(),
            annotations: metadata.annotations.clone().unwrap_or_default(),
        })
    }
}

/// What the watch reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodNews {
    /// All pods of the node, each time the watch starts.
    All(Vec<PodFacts>),
    /// A pod was added or has changed.
    Applied(PodFacts),
    /// A pod was deleted: namespace and name.
    Deleted(String, String),
    /// The watch has failed, for this reason, and is retried. Earlier reports may be stale.
    Lost(String),
}

/// Reports the pods of a node, without end.
pub fn watch(client: Client, node: &NodeName) -> impl Stream<Item = PodNews> + Send + use<> {
    let pods: Api<PartialObjectMeta<Pod>> = Api::all(client);
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut listed = Vec::new();
    watcher(pods, mine)
        .default_backoff()
        .filter_map(move |event| ready(news(event, &mut listed)))
}

/// What an event of the watch reports. `listed` collects the pods of a list that is coming in.
fn news(
    event: watcher::Result<Event<PartialObjectMeta<Pod>>>,
    listed: &mut Vec<PodFacts>,
) -> Option<PodNews> {
    match event {
        Ok(Event::Init) => {
            listed.clear();
            None
        }
        Ok(Event::InitApply(pod)) => {
            listed.extend(PodFacts::of(&pod.metadata));
            None
        }
        Ok(Event::InitDone) => Some(PodNews::All(std::mem::take(listed))),
        Ok(Event::Apply(pod)) => PodFacts::of(&pod.metadata).map(PodNews::Applied),
        Ok(Event::Delete(pod)) => {
            PodFacts::of(&pod.metadata).map(|facts| PodNews::Deleted(facts.namespace, facts.name))
        }
        Err(error) => Some(PodNews::Lost(chain(&error))),
    }
}
