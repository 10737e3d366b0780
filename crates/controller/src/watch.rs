//! The watches: each kind has one, which starts again by itself.

use std::{collections::BTreeMap, fmt::Debug, pin::pin, sync::Arc};

use futures_util::{StreamExt, future::BoxFuture};
use k8s_openapi::api::core::v1::{Node, Pod as KubernetesPod};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{ApiResource, DynamicResourceScope, NotUsed, Object, ObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use ratchet_api::{Link, LinkGrant, NodeUnderlay, Topology, VNIBlock, meshnet};
use ratchet_kubernetes::chain;
use ratchet_model::{PodKey, Quotas};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
};

use crate::{
    snapshot::{Key, Pod, PodState},
    state::{Feed, Kept, News, State, version},
};

/// What is read of a pod's `spec`. The type of k8s-openapi has some hundred fields.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
    host_network: bool,
}

/// What is read of a pod's `status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

type SlimPod = Object<Spec, Status>;

/// What is read of a node's `status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    addresses: Vec<NodeAddress>,
}

/// An address, or a host's name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NodeAddress {
    address: String,
}

type SlimNode = Object<NotUsed, NodeStatus>;

/// Watches all that the controller reads. The watches end with the set.
pub(crate) fn all(
    client: &Client,
    quotas: Quotas,
    with_meshnet: bool,
) -> (JoinSet<()>, UnboundedReceiver<News>) {
    let (sender, receiver) = unbounded_channel();
    let pods: Api<SlimPod> = slim::<KubernetesPod, _>(client);
    let kinds: [Task; 7] = [
        kind(client, "Topologies", &sender, topologies),
        kind(client, "LinkGrants", &sender, grants),
        kind(client, "Links", &sender, links),
        kind(client, "NodeUnderlays", &sender, underlays),
        kind(client, "VNIBlocks", &sender, blocks),
        Box::pin(run(slim::<Node, _>(client), "Nodes", sender.clone(), nodes)),
        Box::pin(run(pods, "Pods", sender.clone(), move |state, event| {
            let read = |object| pod(object, &quotas);
            let known = &mut state.known.pods;
            state.feeds.pods.hear(known, event, read, |_| 0);
        })),
    ];
    let mut tasks = JoinSet::new();
    for kind in kinds {
        tasks.spawn(kind);
    }
    if with_meshnet {
        tasks.spawn(run_meshnet(Api::all(client.clone()), sender));
    }
    (tasks, receiver)
}

/// A kind, of which only a part is read.
fn slim<K, S>(client: &Client) -> Api<S>
where
    K: Resource<DynamicType = ()>,
    S: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
{
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}

type Task = BoxFuture<'static, ()>;

fn kind<K>(
    client: &Client,
    name: &'static str,
    sender: &UnboundedSender<News>,
    apply: impl Fn(&mut State, Event<K>) + Copy + Send + 'static,
) -> Task
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let api = Api::<K>::all(client.clone());
    Box::pin(run(api, name, sender.clone(), apply))
}

/// Watches a kind, without end. What fails is tried again, later each time.
async fn run<K>(
    api: Api<K>,
    name: &'static str,
    sender: UnboundedSender<News>,
    apply: impl Fn(&mut State, Event<K>) + Copy + Send + 'static,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if sender.send(news(event, apply)).is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot watch {name}; trying again")
            }
        }
    }
}

fn news<K: Resource + Send + 'static>(
    mut event: Event<K>,
    apply: impl Fn(&mut State, Event<K>) + Send + 'static,
) -> News {
    if let Event::Apply(object) | Event::InitApply(object) = &mut event {
        // Half of an object; kept by the API server if it is not sent back.
        object.meta_mut().managed_fields = None;
    }
    Box::new(move |state| apply(state, event))
}

/// Watches meshnet's Topologies. Their definition is not ours and may be missing: then there are
/// none, and nothing else waits for them.
async fn run_meshnet(api: Api<meshnet::Topology>, sender: UnboundedSender<News>) {
    const MISSING: &str = "the API has no topologies.networkop.co.uk, for which --meshnet asks: \
                           apply deploy/meshnet/crd.yaml; looking again";
    let mut is_missing = false;
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        let all = match event {
            Ok(event) => {
                // A list begins before it fails.
                is_missing &= matches!(event, Event::Init);
                vec![event]
            }
            Err(error) if is_unknown(&error) => {
                if !is_missing {
                    tracing::warn!("{MISSING}");
                }
                is_missing = true;
                vec![Event::Init, Event::InitDone]
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(error, "cannot watch Topologies of meshnet; trying again");
                continue;
            }
        };
        for event in all {
            if sender.send(news(event, of_meshnet)).is_err() {
                return;
            }
        }
    }
}

/// Whether the API has no such kind.
fn is_unknown(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

fn hear<Id: Ord + Clone, K: Resource + PartialEq>(
    feed: &mut Feed<Id, K>,
    known: &mut BTreeMap<Id, Arc<K>>,
    event: Event<K>,
    id: impl Fn(&ObjectMeta) -> Id,
) {
    let read = |object: K| {
        let metadata = object.meta();
        (version(metadata), Some((id(metadata), Some(object))))
    };
    feed.hear(known, event, read, |object| version(object.meta()));
}

fn topologies(state: &mut State, event: Event<Topology>) {
    let known = &mut state.known.topologies;
    hear(&mut state.feeds.topologies, known, event, Key::of);
}

fn of_meshnet(state: &mut State, event: Event<meshnet::Topology>) {
    let known = &mut state.known.meshnet;
    hear(&mut state.feeds.meshnet, known, event, Key::of);
}

fn grants(state: &mut State, event: Event<LinkGrant>) {
    hear(
        &mut state.feeds.grants,
        &mut state.known.grants,
        event,
        Key::of,
    );
}

fn links(state: &mut State, event: Event<Link>) {
    hear(
        &mut state.feeds.links,
        &mut state.known.links,
        event,
        Key::of,
    );
}

fn underlays(state: &mut State, event: Event<NodeUnderlay>) {
    let known = &mut state.known.underlays;
    let name = |metadata: &ObjectMeta| metadata.name.clone().unwrap_or_default();
    hear(&mut state.feeds.underlays, known, event, name);
}

fn blocks(state: &mut State, event: Event<VNIBlock>) {
    let known = &mut state.known.blocks;
    let of = |block: &VNIBlock| version(&block.metadata);
    state.feeds.blocks.hear(known, event, block, of);
}

/// A block has the number that is its name. Others are not ours.
fn block(object: VNIBlock) -> (u64, Kept<u32, VNIBlock>) {
    let version = version(&object.metadata);
    let number = object.name_any().parse().ok();
    (version, number.map(|number| (number, Some(object))))
}

fn pod(object: SlimPod, quotas: &Quotas) -> (u64, Kept<PodKey, Pod>) {
    let metadata = object.metadata;
    let version = version(&metadata);
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    let key = PodKey::new(namespace.unwrap_or_default(), name.unwrap_or_default());
    let state = PodState {
        node: object.spec.node_name,
        host_network: object.spec.host_network,
        phase: object.status.unwrap_or_default().phase,
    };
    let pod = Pod::read(metadata, state, quotas);
    if let Some(problem) = pod.as_ref().and_then(|pod| pod.problem.as_ref()) {
        tracing::debug!("{problem}");
    }
    (version, key.ok().map(|key| (key, pod)))
}

/// Of nodes only matters whether they are there, and their addresses.
fn nodes(state: &mut State, event: Event<SlimNode>) {
    let read = |node: SlimNode| {
        let status = node.status.clone().unwrap_or_default();
        let addresses = status.addresses.into_iter();
        let addresses = addresses.filter_map(|address| address.address.parse().ok());
        (0, Some((node.name_any(), Some(addresses.collect()))))
    };
    let known = &mut state.known.nodes;
    state.feeds.nodes.hear(known, event, read, |_| 0);
}
