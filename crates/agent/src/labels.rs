//! The label source: what a pod declares, from the plugin's request and the Kubernetes API.
//!
//! It reads declarations on the tasks of the async runtime, so that neither a slow API nor a large
//! declaration holds up the engine, which receives the result. Every wait has a bound; the first
//! call that the API does not answer makes it *offline*, and from then on calls that need it fail
//! at once until it answers again.
//!
//! The API is the one of the agent's own settings or, for an agent on demand, of the last config.
//! The label source decides nothing about links and may not touch the kernel or the store.

mod connection;
mod declaration;
mod kubernetes;
mod pods;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::{future::BoxFuture, stream::BoxStream};
use ratchet_engine::{Commands, Events};
use ratchet_kubernetes::{ApiError, NetworkOwner, PodFacts, PodNews};
use ratchet_model::{NameError, NodeName, PodKey, Quotas, Reason, declaration::Declaration};
use ratchet_protocol::{Failure, FailureKind, Pod, Prepare, Settings};
use tokio::{runtime::Handle, sync::watch};

use connection::Connection;
pub(crate) use kubernetes::connector;

/// Where the API is, and whose pods are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The setting `kubeconfig`: a path, or `auto`.
    pub kubeconfig: String,
    /// The setting `node`. Without it, the machine's host name counts.
    pub node: Option<NodeName>,
    /// How much these pods may declare.
    pub quotas: Quotas,
}

/// The Kubernetes API, as far as it is needed here. None of these has a bound of its own.
#[async_trait]
pub(crate) trait Api: Send + Sync {
    /// Reads one pod by namespace and name; `None` when there is none.
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<PodFacts>, ApiError>;
    /// Reads whether a pod owns the network of its node.
    async fn network_owner(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<NetworkOwner>, ApiError>;
    /// Returns whether the API answers.
    async fn probe(&self) -> Result<(), ApiError>;
    /// Reports the node's pods and their changes, without end.
    fn watch(&self) -> BoxStream<'static, PodNews>;
    /// Posts a warning on a pod, each text once per pod.
    async fn warn(&self, pod: &PodFacts, reason: &Reason, text: &str);
    /// Drops what was posted on a pod, by its uid.
    async fn forget(&self, uid: &str);
}

/// Makes a client for an API, without a request to it; the text of an error says what is missing.
pub(crate) type Connect =
    Arc<dyn Fn(Target) -> BoxFuture<'static, Result<Arc<dyn Api>, String>> + Send + Sync>;

/// What a label source is made with.
pub(crate) struct Setup {
    /// The settings that the process was started with.
    pub settings: Settings,
    /// Whether these settings count, and not a config's, if both name an API.
    pub managed: bool,
    /// Makes a client.
    pub connect: Connect,
    /// Where changes of declarations go.
    pub engine: Commands,
    /// Told when [`Labels::failure`] changes.
    pub progress: watch::Sender<u64>,
    /// Runs what waits for the API.
    pub runtime: Handle,
}

/// The label source. Clones share everything.
#[derive(Clone)]
pub(crate) struct Labels(Arc<Inner>);

struct Inner {
    setup: Setup,
    state: Mutex<State>,
}

struct State {
    /// The process's own settings; for an agent on demand with those of the last config over them.
    settings: Settings,
    /// The API in use. It is replaced whole when a config names another one.
    connection: Option<Arc<Connection>>,
}

impl Labels {
    /// A source that watches the API of the process's own settings, if they name one.
    pub fn start(setup: Setup) -> Self {
        let state = Mutex::new(State {
            settings: setup.settings.clone(),
            connection: None,
        });
        let labels = Self(Arc::new(Inner { setup, state }));
        labels.connection(labels.effective(&Settings::default()));
        labels
    }

    /// Reads what a pod declares (`None`: it is not Ratchet's), waits for the API where that is
    /// needed, and hands the result to `send`. No change of the pod's labels overtakes what `send`
    /// sends to the engine.
    pub async fn resolve<T>(
        &self,
        prepare: &Prepare,
        send: impl FnOnce(Result<Option<Declaration>, Failure>) -> T,
    ) -> T {
        let settings = self.effective(&prepare.settings);
        if settings.store_declares() {
            // Any pod may be an end of a Link, now or later.
            let pod = PodKey::new(&prepare.pod.namespace, &prepare.pod.name);
            let declaration = pod.map(|pod| Declaration::of_store(pod, Vec::new()));
            let invalid = |e: NameError| Failure::new(FailureKind::Invalid, e.to_string());
            return send(declaration.map(Some).map_err(invalid));
        }
        let quotas = settings.quotas();
        let read =
            |labels: &_, annotations: &_| declaration::read(&quotas, prepare, labels, annotations);
        let given = || read(&prepare.labels, &prepare.annotations);
        // Without labels, the annotations that the runtime passed are all that counts.
        let is_complete = prepare.annotations_passed && !prepare.use_labels;
        let connection = self.connection(settings);
        let Some(connection) = connection.filter(|_| !is_complete) else {
            return send(given());
        };
        let resolved = connection.pod(&prepare.pod, |facts| {
            send(match facts {
                Ok(Some(facts)) => {
                    let (labels, annotations) = declaration::texts(prepare, facts);
                    read(&labels, &annotations)
                }
                // Not a pod of Kubernetes: the call has all there is.
                Ok(None) => given(),
                // The annotations decide, if they are all known.
                Err(_) if prepare.annotations_passed => given(),
                Err(why) => Err(declaration::unknown(prepare, &why)),
            })
        });
        resolved.await
    }

    /// Posts a warning on a pod that has started if it owns the network of its node. Nobody waits
    /// for that.
    pub fn warn_of_owner(&self, pod: Pod, settings: &Settings) {
        if let Some(connection) = self.connection(self.effective(settings)) {
            let warned = async move { connection.warn_of_owner(&pod).await };
            self.0.setup.runtime.spawn(warned);
        }
    }

    /// Why the API cannot be watched now, for reports.
    pub fn failure(&self) -> Option<String> {
        self.state().connection.as_ref()?.failure()
    }

    /// The settings that count for a call: the process's own and, where those are absent or the
    /// agent is on demand, the call's.
    fn effective(&self, asked: &Settings) -> Settings {
        let mut state = self.state();
        if self.0.setup.managed {
            return asked.overridden_by(&state.settings);
        }
        state.settings = state.settings.overridden_by(asked);
        state.settings.clone()
    }

    /// The API that settings name, if what pods declare comes from there.
    fn connection(&self, settings: Settings) -> Option<Arc<Connection>> {
        if settings.store_declares() {
            return None;
        }
        let mut state = self.state();
        let target = Target {
            quotas: settings.quotas(),
            kubeconfig: settings.kubeconfig?,
            node: settings.node,
        };
        if let Some(connection) = &state.connection
            && *connection.target() == target
        {
            return Some(connection.clone());
        }
        if let Some(before) = state.connection.take() {
            before.stop();
        }
        let connection = Connection::start(&self.0.setup, target);
        state.connection = Some(connection.clone());
        Some(connection)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events for Labels {
    fn is_online(&self) -> bool {
        let state = self.state();
        state
            .connection
            .as_ref()
            .is_some_and(|api| api.is_watched())
    }

    fn warn(&self, namespace: &str, name: &str, reason: &Reason, text: &str) {
        let Some(connection) = self.state().connection.clone() else {
            return;
        };
        let pod = (namespace.to_owned(), name.to_owned());
        let (reason, text) = (reason.clone(), text.to_owned());
        let posted = async move { connection.warn(&pod, &reason, &text).await };
        self.0.setup.runtime.spawn(posted);
    }
}
