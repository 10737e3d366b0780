//! One connection to the Kubernetes API: its client, its watch, what is known of the pods, and
//! whether the API answers. It is made and dropped as a whole.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use ratchet_engine::{Command, Commands, Task};
use ratchet_kubernetes::{ApiError, PodFacts, PodNews};
use ratchet_model::Reason;
use ratchet_protocol::Pod;
use tokio::{
    sync::watch,
    task::yield_now,
    time::{sleep, timeout},
};

use super::{
    Api, Connect, Setup, Target, declaration,
    pods::{Key, Pods},
};

/// How long a call waits for the API, and the probe for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The pause between two attempts of the probe: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Whether the API answers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    /// The pods are not listed yet, since the start or since the API was offline.
    Starting,
    /// The watch works: what is known is current.
    Watched,
    /// The watch fails, for this reason. What is known may be stale; calls ask the API.
    Unwatched(String),
    /// The API does not answer, or does not accept the credentials, for this reason. Calls do not
    /// ask it; a probe does.
    Offline(String),
}

impl Reach {
    fn failure(&self) -> Option<String> {
        match self {
            Self::Starting | Self::Watched => None,
            Self::Unwatched(why) => Some(format!("the Kubernetes API cannot be watched: {why}")),
            Self::Offline(why) => Some(why.clone()),
        }
    }

    fn is_offline(&self) -> bool {
        matches!(self, Self::Offline(_))
    }
}

pub(super) struct Connection {
    target: Target,
    /// The client of the last credentials that were read.
    client: Mutex<Option<Arc<dyn Api>>>,
    reach: watch::Sender<Reach>,
    pods: Mutex<Pods>,
    task: OnceLock<Task>,
    engine: Commands,
    progress: watch::Sender<u64>,
}

impl Connection {
    /// Connects and watches in the background, until it is stopped.
    pub fn start(setup: &Setup, target: Target) -> Arc<Self> {
        let connection = Arc::new(Self {
            target,
            client: Mutex::default(),
            reach: watch::Sender::new(Reach::Starting),
            pods: Mutex::default(),
            task: OnceLock::new(),
            engine: setup.engine.clone(),
            progress: setup.progress.clone(),
        });
        let run = connection.clone().run(setup.connect.clone());
        let engine = setup.engine.clone();
        let what = "the watch on the Kubernetes API";
        let task = Task::spawn(&setup.runtime, engine, what, run);
        connection.task.get_or_init(|| task);
        connection
    }

    /// Ends the watch.
    pub fn stop(&self) {
        if let Some(task) = self.task.get() {
            task.stop();
        }
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Why what is known may be stale.
    pub fn failure(&self) -> Option<String> {
        self.reach.borrow().failure()
    }

    /// Returns whether what is known is current.
    pub fn is_watched(&self) -> bool {
        *self.reach.borrow() == Reach::Watched
    }

    /// Posts a warning on a pod that is known.
    pub async fn warn(&self, pod: &Key, reason: &Reason, text: &str) {
        let facts = self.pods().get(pod).cloned();
        if let (Some(facts), Some(api)) = (facts, self.client()) {
            api.warn(&facts, reason, text).await;
        }
    }

    /// Posts a warning on a pod if it owns the network of its node. An API that does not answer is
    /// not asked again.
    pub async fn warn_of_owner(&self, pod: &Pod) {
        let client = self.client();
        let Some(api) = client.filter(|_| !self.reach.borrow().is_offline()) else {
            return;
        };
        match bounded(api.network_owner(&pod.namespace, &pod.name)).await {
            Ok(Some(owner)) => {
                let container = owner.container;
                let reason = Reason::NodeNetworkOwned { container };
                let (namespace, name) = (&pod.namespace, &pod.name);
                tracing::warn!(namespace, name, %reason, "pod owns the node's network");
                api.warn(&owner.pod, &reason, &reason.to_string()).await;
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "cannot read what a pod may do"),
        }
    }

    /// Passes a pod's facts to `send`: the known ones, or else those that the API returns.
    /// `Ok(None)` if the API has no such pod. While `send` runs, no later facts become known.
    pub async fn pod<T>(
        &self,
        pod: &Pod,
        send: impl FnOnce(Result<Option<&PodFacts>, String>) -> T,
    ) -> T {
        let key = (pod.namespace.clone(), pod.name.clone());
        let before = {
            let pods = self.pods();
            if let Some(facts) = pods.current(pod) {
                return send(Ok(Some(facts)));
            }
            pods.get(&key).cloned()
        };
        let fetched = self.fetch(&key).await;
        let mut pods = self.pods();
        match fetched {
            Ok(None) => send(Ok(None)),
            Ok(Some(facts)) => {
                pods.fetched(&key, before.as_ref(), facts);
                send(Ok(pods.get(&key)))
            }
            // Facts of an earlier pod with this name are better than none.
            Err(why) => match pods.get(&key) {
                Some(facts) => send(Ok(Some(facts))),
                None => send(Err(why)),
            },
        }
    }

    /// Asks the API for a pod, unless it is offline.
    async fn fetch(&self, (namespace, name): &Key) -> Result<Option<PodFacts>, String> {
        let api = self.api().await?;
        match bounded(api.pod(namespace, name)).await {
            Ok(found) => Ok(found),
            Err(ApiError::Refused(why)) => Err(ApiError::Refused(why).to_string()),
            Err(error @ (ApiError::Unavailable(_) | ApiError::Unauthorized(_))) => {
                Err(self.set_offline(error.to_string()))
            }
        }
    }

    /// The client, once there is one.
    async fn api(&self) -> Result<Arc<dyn Api>, String> {
        let mut reach = self.reach.subscribe();
        let decided = |reach: &Reach| reach.is_offline() || self.client().is_some();
        let offline = match timeout(TIMEOUT, reach.wait_for(decided)).await {
            Ok(Ok(reach)) => reach.failure().filter(|_| reach.is_offline()),
            Ok(Err(_)) | Err(_) => None,
        };
        match (offline, self.client()) {
            (Some(why), _) => Err(why),
            (None, Some(api)) => Ok(api),
            (None, None) => Err(self.set_offline(format!(
                "the Kubernetes API cannot be asked: the credentials of {} are not there after \
                 {} s",
                self.target.kubeconfig,
                TIMEOUT.as_secs()
            ))),
        }
    }

    async fn run(self: Arc<Self>, connect: Connect) {
        let mut api = self.connect(&connect).await;
        loop {
            *self.lock_client() = Some(api.clone());
            self.set(Reach::Starting);
            self.watch(&*api).await;
            api = self.wait_for_answer(&connect).await;
        }
    }

    async fn connect(&self, connect: &Connect) -> Arc<dyn Api> {
        let mut pause = PAUSE.0;
        loop {
            match self.new_client(connect).await {
                Ok(api) => return api,
                Err(why) => self.set_offline(why),
            };
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// A client with the credentials as they are now.
    async fn new_client(&self, connect: &Connect) -> Result<Arc<dyn Api>, String> {
        let made = connect(self.target.clone()).await;
        made.map_err(|why| format!("the Kubernetes API cannot be asked: {why}"))
    }

    /// Follows the watch until the API is offline. A watch may then hang for minutes, so a new one
    /// starts with a new list when the API is back.
    async fn watch(&self, api: &dyn Api) {
        let mut news = api.watch();
        let mut reach = self.reach.subscribe();
        loop {
            let next = tokio::select! {
                next = news.next() => next,
                _ = reach.wait_for(Reach::is_offline) => None,
            };
            match next {
                Some(news) => self.hear(news, api).await,
                None => return,
            }
        }
    }

    /// Waits for an answer and returns the client that had it. Each attempt reads the credentials
    /// again: that they were renewed may be why the API does not answer, and the forms in which a
    /// server or TLS says so are many.
    async fn wait_for_answer(&self, connect: &Connect) -> Arc<dyn Api> {
        let mut pause = PAUSE.0;
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
            let answered = match self.new_client(connect).await {
                Ok(api) => bounded(api.probe())
                    .await
                    .map(|()| api)
                    .map_err(|e| e.to_string()),
                Err(why) => Err(why),
            };
            match answered {
                Ok(api) => {
                    tracing::info!("the Kubernetes API answers again");
                    return api;
                }
                Err(why) => self.set_offline(why),
            };
        }
    }

    async fn hear(&self, news: PodNews, api: &dyn Api) {
        match news {
            PodNews::All(all) => {
                self.set(Reach::Watched);
                self.pods().replace(&all);
                for facts in &all {
                    self.declare(facts);
                    // Other calls go on between two pods.
                    yield_now().await;
                }
            }
            PodNews::Applied(facts) => {
                self.set(Reach::Watched);
                let mut pods = self.pods();
                self.declare(&facts);
                pods.insert(facts);
            }
            PodNews::Deleted(namespace, name) => {
                let removed = self.pods().remove(&(namespace, name));
                if let Some(facts) = removed {
                    api.forget(&facts.uid).await;
                }
            }
            PodNews::Lost(why) => {
                self.set(Reach::Unwatched(why));
                if let Err(error) = bounded(api.probe()).await {
                    self.set_offline(error.to_string());
                }
            }
        }
    }

    /// Tells the engine what a pod declares. An engine that has stopped needs no more.
    fn declare(&self, facts: &PodFacts) {
        let declared = Box::new(declaration::of_running(&self.target.quotas, facts));
        let _ = self.engine.send(Command::Declared(declared));
    }

    /// Notes that the API does not answer, and returns the reason.
    fn set_offline(&self, why: String) -> String {
        self.set(Reach::Offline(why.clone()));
        why
    }

    fn set(&self, reach: Reach) {
        let failure = reach.failure();
        let before = self.reach.send_replace(reach).failure();
        if failure != before {
            if let Some(failure) = failure {
                tracing::warn!(
                    failure,
                    "no news of pods; the last known declarations stay in force"
                );
            }
            self.progress.send_modify(|count| *count += 1);
        }
    }

    fn client(&self) -> Option<Arc<dyn Api>> {
        self.lock_client().clone()
    }

    fn lock_client(&self) -> MutexGuard<'_, Option<Arc<dyn Api>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pods(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for an answer of the API, up to the timeout.
async fn bounded<T>(answer: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    timeout(TIMEOUT, answer).await.unwrap_or_else(|_| {
        let why = format!("does not answer within {} s", TIMEOUT.as_secs());
        Err(ApiError::Unavailable(why))
    })
}
