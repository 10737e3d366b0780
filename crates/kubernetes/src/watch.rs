//! Watches a node's pods.

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
    /// All pods of the node: after the start, and after each new start of the watch.
    All(Vec<PodFacts>),
    /// A pod was added or has changed.
    Applied(PodFacts),
    /// A pod was deleted: namespace and name.
    Deleted(String, String),
    /// The watch has failed, for this reason, and is tried again. Earlier reports may be stale.
    Lost(String),
}

/// Reports the pods of a node to `tell`, until `tell` returns `false`.
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
