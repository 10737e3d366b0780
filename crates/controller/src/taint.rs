//! Nodes that join with the taint [`TAINT`] lose it when their agent is ready. Before that, pods
//! would start without links.
//!
//! What makes the nodes sets the taint, such as the kubelet with `--register-with-taints`.
//! Agents have no right to change nodes. What a NodeUnderlay says may be of an earlier life of the
//! node, so it is the agent's pod that counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node as KubernetesNode, Pod as KubernetesPod};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    core::{ApiResource, NotUsed, Object},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use ratchet_kubernetes::chain;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::write::MANAGER;

/// The key of the taint. Its effect does not matter.
pub const TAINT: &str = "ratchet.dev/agent-not-ready";

/// How the agents' pods are found.
const AGENTS: &str = "app=ratchet-agent";

/// What could not be written is tried again after this time, and longer each time.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is read of a node's `spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    /// As they are: what is not to be removed is written back.
    taints: Vec<Value>,
}

/// What is read of a pod's `spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
}

/// What is read of a pod's `status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

type Node = Object<NodeSpec, NotUsed>;
type Pod = Object<PodSpec, PodStatus>;

enum Said {
    Node(Event<Node>),
    Pod(Event<Pod>),
}

/// What of a watched kind matters, by name. A list replaces all when it is complete.
struct Known<V> {
    all: BTreeMap<String, V>,
    listing: BTreeMap<String, V>,
}

impl<V> Default for Known<V> {
    fn default() -> Self {
        let (all, listing) = (BTreeMap::new(), BTreeMap::new());
        Self { all, listing }
    }
}

impl<V> Known<V> {
    fn hear<S, T>(&mut self, event: Event<Object<S, T>>, read: impl Fn(&Object<S, T>) -> Option<V>)
    where
        S: Clone,
        T: Clone,
    {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                let read = read(&object);
                self.listing.extend(read.map(|it| (object.name_any(), it)));
            }
            Event::InitDone => self.all = std::mem::take(&mut self.listing),
            Event::Apply(object) => {
                match read(&object) {
                    Some(it) => self.all.insert(object.name_any(), it),
                    None => self.all.remove(&object.name_any()),
                };
            }
            Event::Delete(object) => drop(self.all.remove(&object.name_any())),
        }
    }
}

/// A node with the taint.
#[derive(Debug, Clone, PartialEq)]
struct Tainted {
    version: Option<String>,
    /// Its other taints.
    others: Vec<Value>,
}

fn tainted(node: &Node) -> Option<Tainted> {
    let is_ours = |taint: &&Value| taint["key"] == TAINT;
    let all = &node.spec.taints;
    all.iter().find(is_ours)?;
    Some(Tainted {
        version: node.metadata.resource_version.clone(),
        others: all.iter().filter(|it| !is_ours(it)).cloned().collect(),
    })
}

/// The node on which an agent is ready.
fn ready_on(pod: &Pod) -> Option<String> {
    let is_ready = |it: &Condition| it.r#type == "Ready" && it.status == "True";
    let conditions = pod.status.as_ref().map(|status| &status.conditions);
    let ready = conditions.is_some_and(|all| all.iter().any(is_ready))
        && pod.metadata.deletion_timestamp.is_none();
    ready.then(|| pod.spec.node_name.clone())
}

/// Removes the taint of nodes whose agent is ready, without end. The agents' pods are in the
/// controller's own namespace.
pub(crate) async fn run(client: Client, namespace: String) {
    let (of_nodes, of_pods) = (
        ApiResource::erase::<KubernetesNode>(&()),
        ApiResource::erase::<KubernetesPod>(&()),
    );
    let nodes: Api<Node> = Api::all_with(client.clone(), &of_nodes);
    let pods: Api<Pod> = Api::namespaced_with(client, &namespace, &of_pods);
    let agents = watcher::Config::default().labels(AGENTS);
    let all = watcher::Config::default();
    let pods = watcher(pods, agents).default_backoff();
    let said = stream::select(
        watcher(nodes.clone(), all)
            .default_backoff()
            .map(|it| it.map(Said::Node)),
        pods.map(|it| it.map(Said::Pod)),
    );
    let mut said = pin!(said);
    let (mut known_nodes, mut known_pods) = (Known::default(), Known::default());
    let mut pause = PAUSE;
    let mut again = None;
    loop {
        let next = said.next();
        let heard = match again {
            Some(time) => tokio::time::timeout(time, next).await,
            None => Ok(next.await),
        };
        match heard {
            Ok(None) => return,
            Ok(Some(Ok(Said::Node(event)))) => known_nodes.hear(event, tainted),
            Ok(Some(Ok(Said::Pod(event)))) => known_pods.hear(event, ready_on),
            // The watches of the same kinds that the Links need tell of it, too.
            Ok(Some(Err(error))) => tracing::debug!(error = chain(&error), "watch for taints"),
            Err(_time_is_over) => {}
        }
        let failed = remove_all(&nodes, &mut known_nodes.all, &known_pods.all).await;
        again = failed.then_some(pause);
        pause = match failed {
            true => (pause * 2).min(LONGEST_PAUSE),
            false => PAUSE,
        };
    }
}

/// Returns whether one could not be written.
async fn remove_all(
    api: &Api<Node>,
    nodes: &mut BTreeMap<String, Tainted>,
    agents: &BTreeMap<String, String>,
) -> bool {
    let ready: BTreeSet<&String> = agents.values().collect();
    let due = nodes.iter().filter(|(name, _)| ready.contains(name));
    let due: Vec<_> = due
        .map(|(name, node)| (name.clone(), node.clone()))
        .collect();
    let mut failed = false;
    for (name, node) in due {
        match remove(api, &name, &node).await {
            Ok(()) => {
                nodes.remove(&name);
                tracing::info!(node = name, "its agent is ready: taint {TAINT} removed");
            }
            // It has changed, or has gone: the watch tells.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {
                nodes.remove(&name);
            }
            Err(error) => {
                failed = true;
                let error = chain(&error);
                tracing::warn!(node = name, error, "cannot remove taint {TAINT}");
            }
        }
    }
    failed
}

/// Writes the other taints, if the node has not changed: a taint that came meanwhile stays.
async fn remove(api: &Api<Node>, name: &str, node: &Tainted) -> kube::Result<()> {
    let others = Some(&node.others).filter(|others| !others.is_empty());
    let change = json!({
        "metadata": {"resourceVersion": node.version},
        "spec": {"taints": others},
    });
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch(name, &params, &Patch::Merge(&change))
        .await
        .map(drop)
}
