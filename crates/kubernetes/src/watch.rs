//! The watch over a node's pods.

use std::collections::BTreeMap;

use futures_util::StreamExt;
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

/// What the API says of a pod, as far as it matters here.
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

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodNews {
    /// These are all pods of the node.
    All(Vec<PodFacts>),
    /// A pod is there, or has changed.
    Applied(PodFacts),
    /// A pod is no more: namespace and name.
    Deleted(String, String),
    /// The API cannot be watched at the moment, for this reason. What was told before may be stale.
    Lost(String),
}

/// Tells of the pods of a node, for ever; ends when `tell` says that nobody listens (`false`).
pub async fn watch(client: Client, node: &NodeName, mut tell: impl FnMut(PodNews) -> bool) {
    let pods: Api<PartialObjectMeta<Pod>> = Api::all(client);
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut stream = watcher(pods, mine).default_backoff().boxed();
    let mut listed = Vec::new();
    while let Some(event) = stream.next().await {
        let news = match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(pod)) => {
                listed.extend(PodFacts::of(&pod.metadata));
                continue;
            }
            Ok(Event::InitDone) => PodNews::All(std::mem::take(&mut listed)),
            Ok(Event::Apply(pod)) => match PodFacts::of(&pod.metadata) {
                Some(facts) => PodNews::Applied(facts),
                None => continue,
            },
            Ok(Event::Delete(pod)) => match PodFacts::of(&pod.metadata) {
                Some(facts) => PodNews::Deleted(facts.namespace, facts.name),
                None => continue,
            },
            Err(error) => PodNews::Lost(chain(&error)),
        };
        if !tell(news) {
            return;
        }
    }
}
