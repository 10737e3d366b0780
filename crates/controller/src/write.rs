//! Writes a plan: blocks first, then the Links that have their VNIs, then statuses. So many writes
//! a second, and so many at a time.

mod meshnet;
mod tokens;

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use ratchet_api::{Condition, Link, Topology, TopologyStatus, VNIBlock};
use ratchet_kubernetes::chain;
use ratchet_model::Vni;
use serde_json::{Value, json};

use crate::{
    Change, Key, LinkChange, Orphan, Plan,
    state::{News, version},
    write::tokens::Tokens,
};

/// Who writes, for the API's `managedFields`.
pub(crate) const MANAGER: &str = "ratchet-controller";

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writing stops after this time, so that the rest is planned with what is new.
const ROUND: Duration = Duration::from_secs(1);

/// Statuses have this time, however long the rest took.
const STATUS_ROUND: Duration = Duration::from_millis(250);

/// An object that could not be written is left alone for this time, and longer each time.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What came of writing a plan.
#[derive(Default)]
pub(crate) struct Written {
    /// What is known now.
    pub news: Vec<News>,
    /// When to plan again, because something is left.
    pub again: Option<Duration>,
    /// Entries of VNIs that have no Link indeed.
    pub orphans: Vec<Orphan>,
}

/// Writes plans.
pub(crate) struct Writer {
    client: Client,
    parallel: usize,
    tokens: Tokens,
    /// Objects that could not be written: until when, and the pause.
    pauses: HashMap<String, (Instant, Duration)>,
    writes: u64,
    failures: u64,
}

/// What a write came to.
enum Came {
    Done(News),
    /// Another writer was faster: the watch will tell.
    Raced,
    Failed(String),
}

impl Writer {
    /// A writer with so many writes a second and so many at a time.
    pub fn new(client: Client, writes_per_second: u32, parallel: u16) -> Self {
        Self {
            client,
            parallel: parallel.into(),
            tokens: Tokens::new(writes_per_second),
            pauses: HashMap::new(),
            writes: 0,
            failures: 0,
        }
    }

    /// How many writes there were, and how many attempts that failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.writes, self.failures)
    }

    /// Writes a plan, or a part of it.
    pub async fn write(&mut self, plan: Plan) -> Written {
        let until = Instant::now() + ROUND;
        let mut written = Written::default();
        let blocks: HashSet<u32> = plan.blocks.iter().filter_map(number).collect();
        let requests = plan
            .blocks
            .into_iter()
            .filter_map(|block| self.block(block));
        let requests = requests.collect();
        let done = self.all(requests, until, &mut written).await;
        let is_refused =
            |number: &u32| blocks.contains(number) && !done.contains(&block_name(*number));
        let links = plan.links.into_iter();
        let requests = links
            .filter(|change| !change.after.as_ref().is_some_and(is_refused))
            .map(|change| self.link(change));
        let requests: Vec<_> = requests.collect();
        self.all(requests, until, &mut written).await;
        let until = until.max(Instant::now() + STATUS_ROUND);
        let accepted = plan
            .accepted
            .into_iter()
            .map(|(key, it)| self.accepted(key, it));
        let topologies = plan
            .topologies
            .into_iter()
            .map(|(key, it)| self.topology(key, it));
        let meshnet = plan.meshnet.into_iter();
        let meshnet = meshnet.map(|(key, it)| self.of_meshnet(key, &it));
        let requests: Vec<_> = accepted.chain(topologies).chain(meshnet).collect();
        self.all(requests, until, &mut written).await;
        for (vni, link) in plan.orphans {
            if self.has_no_link(vni, &link).await {
                written.orphans.push((vni, link));
            }
        }
        written
    }

    /// Sends requests, and returns which were successful. Objects that failed lately are left out.
    async fn all(
        &mut self,
        requests: Vec<Request>,
        until: Instant,
        written: &mut Written,
    ) -> HashSet<String> {
        let now = Instant::now();
        self.pauses.retain(|_, (end, _)| *end + LONGEST_PAUSE > now);
        let count = requests.len();
        let mut due: Vec<Request> = requests
            .into_iter()
            .filter(|request| {
                self.pauses
                    .get(&request.object)
                    .is_none_or(|(end, _)| *end <= now)
            })
            .collect();
        if due.len() < count {
            written.again_in(PAUSE);
        }
        let may = self.tokens.take(due.len());
        if may < due.len() {
            due.truncate(may);
            written.again_in(self.tokens.wait());
        }
        let mut done = HashSet::new();
        let mut left = due.len();
        let limited = stream::iter(due.into_iter().take_while(|_| Instant::now() < until));
        let sent = limited.map(|request| async move {
            let answer = tokio::time::timeout(TIMEOUT, request.answer).await;
            let late = || Came::Failed(format!("no answer within {} s", TIMEOUT.as_secs()));
            (request.object, answer.unwrap_or_else(|_| late()))
        });
        let mut answers = sent.buffer_unordered(self.parallel);
        while let Some((object, came)) = answers.next().await {
            left -= 1;
            self.note(&object, &came);
            match came {
                Came::Done(news) => {
                    done.insert(object);
                    written.news.push(news);
                }
                Came::Raced => {}
                Came::Failed(_) => written.again_in(PAUSE),
            }
        }
        if left > 0 {
            self.tokens.give_back(left);
            written.again_in(Duration::ZERO);
        }
        done
    }

    fn note(&mut self, object: &str, came: &Came) {
        match came {
            Came::Done(_) => {
                self.writes += 1;
                self.pauses.remove(object);
            }
            Came::Raced => tracing::debug!("{object} was changed by another writer meanwhile"),
            Came::Failed(error) => {
                self.failures += 1;
                let before = self.pauses.get(object).map(|(_, pause)| *pause);
                let pause = before.map_or(PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
                let end = Instant::now() + pause;
                self.pauses.insert(object.to_owned(), (end, pause));
                let seconds = pause.as_secs();
                tracing::warn!("cannot write {object}: {error}; trying again in {seconds} s");
            }
        }
    }

    /// A block: created, or replaced if it has the version that was read.
    fn block(&self, block: VNIBlock) -> Option<Request> {
        let number = number(&block)?;
        let api: Api<VNIBlock> = Api::all(self.client.clone());
        let is_new = block.metadata.resource_version.is_none();
        let answer = async move {
            let answer = match is_new {
                true => api.create(&post(), &block).await,
                false => api.replace(&number.to_string(), &post(), &block).await,
            };
            came(answer, move |block| {
                Box::new(move |state| {
                    let version = version(&block.metadata);
                    let known = &mut state.known.blocks;
                    state.feeds.blocks.wrote(known, number, version, block);
                })
            })
        };
        Some(Request::new(block_name(number), answer))
    }

    fn links(&self, key: &Key) -> Api<Link> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    fn link(&self, change: LinkChange) -> Request {
        match change.what {
            Change::Create(link) => {
                let key = Key::of(&link.metadata);
                let api = self.links(&key);
                let name = format!("Link {key}");
                Request::new(name, async move {
                    came(api.create(&post(), &link).await, wrote)
                })
            }
            Change::Replace(link) => {
                let key = Key::of(&link.metadata);
                let api = self.links(&key);
                let name = format!("Link {key}");
                Request::new(name, async move {
                    came(api.replace(&key.name, &post(), &link).await, wrote)
                })
            }
            Change::Delete { key, uid } => {
                let api = self.links(&key);
                let name = format!("Link {key}");
                Request::new(name, async move {
                    let preconditions = Preconditions {
                        resource_version: None,
                        uid,
                    };
                    let params = DeleteParams::default().preconditions(preconditions);
                    let answer = api.delete(&key.name, &params).await;
                    came(answer, |deleted| deleted.either(wrote, |_| gone(key)))
                })
            }
        }
    }

    /// The condition `Accepted` of a Link.
    fn accepted(&self, key: Key, condition: Condition) -> Request {
        let api = self.links(&key);
        let status = json!({"conditions": [condition]});
        Request::new(format!("the status of Link {key}"), async move {
            came(patch_status(&api, &key, &status).await, wrote)
        })
    }

    fn topology(&self, key: Key, status: TopologyStatus) -> Request {
        let api: Api<Topology> = Api::namespaced(self.client.clone(), &key.namespace);
        Request::new(format!("the status of Topology {key}"), async move {
            let answer = patch_status(&api, &key, &json!(status)).await;
            came(answer, |topology| {
                Box::new(move |state| {
                    let version = version(&topology.metadata);
                    let known = &mut state.known.topologies;
                    state.feeds.topologies.wrote(known, key, version, topology);
                })
            })
        })
    }

    /// Asks the API itself whether no Link has a VNI: what is known may be old.
    async fn has_no_link(&self, vni: Vni, link: &str) -> bool {
        let Some((namespace, name)) = link.split_once('/') else {
            return true;
        };
        let api: Api<Link> = Api::namespaced(self.client.clone(), namespace);
        let found = tokio::time::timeout(TIMEOUT, api.get_opt(name)).await;
        match found {
            Ok(Ok(found)) => found.is_none_or(|link| link.spec.vni != Some(vni.number())),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

impl Written {
    fn again_in(&mut self, time: Duration) {
        self.again = Some(self.again.map_or(time, |again| again.min(time)));
    }
}

/// A request, and the object that it is about.
struct Request {
    object: String,
    answer: BoxFuture<'static, Came>,
}

impl Request {
    fn new(object: String, answer: impl Future<Output = Came> + Send + 'static) -> Self {
        let answer = answer.boxed();
        Self { object, answer }
    }
}

fn number(block: &VNIBlock) -> Option<u32> {
    block.metadata.name.as_ref()?.parse().ok()
}

fn block_name(number: u32) -> String {
    format!("VNIBlock {number}")
}

fn post() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// Applies a status, with a manager of its own: what others write of it stays.
async fn patch_status<K>(api: &Api<K>, key: &Key, status: &Value) -> kube::Result<K>
where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": key.name},
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    api.patch_status(&key.name, &params, &Patch::Apply(&object))
        .await
}

fn came<T>(answer: kube::Result<T>, news: impl FnOnce(T) -> News) -> Came {
    match answer {
        Ok(object) => Came::Done(news(object)),
        // Changed, there already, or gone already.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Came::Raced,
        Err(error) => Came::Failed(chain(&error)),
    }
}

fn wrote(mut link: Link) -> News {
    link.metadata.managed_fields = None;
    Box::new(move |state| {
        let (key, version) = (Key::of(&link.metadata), version(&link.metadata));
        state
            .feeds
            .links
            .wrote(&mut state.known.links, key, version, link);
    })
}

fn gone(key: Key) -> News {
    Box::new(move |state| drop(state.known.links.remove(&key)))
}
