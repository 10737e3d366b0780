//! What Kubernetes says of this node's pods: labels before the runtime calls, and their changes
//! while pods run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use ratchet_kubernetes::{PodFacts, PodNews, Reporter, Source};
use ratchet_model::{
    declaration::{Texts, declare},
    names::PodKey,
    resolve::Link,
};
use ratchet_protocol::{Failure, FailureKind, Prepare, Settings};
use tokio::task::JoinHandle;

use super::{Command, Engine, reconcile::Scope};
use crate::{effective::node_name, state::SandboxState};

/// How long an ADD waits for the API when it comes before the watch.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long a peer may be missing before that is worth an event.
const LONG: Duration = Duration::from_secs(60);

/// The pods of this node as the API tells of them; nothing when it is not asked.
#[derive(Default)]
pub(super) struct Pods {
    watched: Option<Watched>,
    known: BTreeMap<(String, String), PodFacts>,
    /// Why the API cannot be watched at the moment.
    pub trouble: Option<String>,
}

struct Watched {
    kubeconfig: String,
    client: ratchet_kubernetes::Client,
    reporter: Reporter,
    task: JoinHandle<()>,
}

impl Pods {
    pub fn stop(&mut self) {
        if let Some(watched) = self.watched.take() {
            watched.task.abort();
        }
    }
}

impl Engine {
    /// Watches the pods by way of what the settings say; goes on as it is when that is so already.
    pub(super) fn watch_pods(&mut self, settings: &Settings) {
        let Some(kubeconfig) = &settings.kubeconfig else {
            return;
        };
        if self
            .pods
            .watched
            .as_ref()
            .is_some_and(|watched| watched.kubeconfig == *kubeconfig)
        {
            return;
        }
        self.pods.stop();
        let connected = Source::find(kubeconfig)
            .map_err(|e| e.to_string())
            .and_then(|source| {
                let client = self
                    .runtime
                    .block_on(source.client())
                    .map_err(|e| e.to_string())?;
                Ok((client, node_name(settings)?))
            });
        let (client, node) = match connected {
            Ok(connected) => connected,
            Err(trouble) => {
                tracing::error!(trouble, "the Kubernetes API cannot be asked");
                self.pods.trouble = Some(trouble);
                return;
            }
        };
        let commands = self.commands.clone();
        let (watch_client, watch_node) = (client.clone(), node.clone());
        let task = self.runtime.spawn(async move {
            let tell = |news| commands.send(Command::Pods(news)).is_ok();
            ratchet_kubernetes::watch(watch_client, &watch_node, tell).await;
        });
        let reporter = Reporter::new(client.clone(), &node);
        self.pods.watched = Some(Watched {
            kubeconfig: kubeconfig.clone(),
            client,
            reporter,
            task,
        });
    }

    /// The API has news.
    pub(super) fn hear_of_pods(&mut self, news: PodNews) {
        let key = |facts: &PodFacts| (facts.namespace.clone(), facts.name.clone());
        match news {
            PodNews::Lost(trouble) => {
                if self.pods.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(
                        trouble,
                        "the Kubernetes API cannot be watched; what is known stands"
                    );
                }
                self.pods.trouble = Some(trouble);
            }
            PodNews::All(all) => {
                self.pods.trouble = None;
                self.pods.known = all
                    .iter()
                    .map(|facts| (key(facts), facts.clone()))
                    .collect();
                all.iter().for_each(|facts| self.follow(facts));
            }
            PodNews::Applied(facts) => {
                self.pods.trouble = None;
                self.follow(&facts);
                self.pods.known.insert(key(&facts), facts);
            }
            PodNews::Deleted(namespace, name) => {
                if let Some(facts) = self.pods.known.remove(&(namespace, name))
                    && let Some(watched) = &self.pods.watched
                {
                    let reporter = watched.reporter.clone();
                    self.runtime
                        .spawn(async move { reporter.forget(&facts.uid).await });
                }
            }
        }
        self.tell();
    }

    /// The labels and annotations that count for a pod: what came with the call, and what the API
    /// says.
    pub(super) fn texts(&mut self, prepare: &Prepare) -> Result<(Texts, Texts), Failure> {
        let given = (prepare.labels.clone(), prepare.annotations.clone());
        self.watch_pods(&self.asked.overridden_by(&prepare.settings));
        if self.asked.kubeconfig.is_none() && prepare.settings.kubeconfig.is_none() {
            return Ok(given);
        }
        let facts = match self.pod_facts(prepare) {
            Ok(Some(facts)) => facts,
            // Not of Kubernetes: what came with the call is all there is.
            Ok(None) => return Ok(given),
            // The annotations decide, if they are all known.
            Err(_) if prepare.annotations_passed => return Ok(given),
            Err(trouble) => {
                return Err(Failure::new(
                    FailureKind::TryLater,
                    format!(
                        "pod {}/{}: {trouble}, so its labels are not known; to do without, declare \
                        the capability \
                         io.kubernetes.cri.pod-annotations in the config and use annotations",
                        prepare.pod.namespace, prepare.pod.name
                    ),
                ));
            }
        };
        let labels = if prepare.use_labels {
            facts.labels.into_iter().chain(given.0).collect()
        } else {
            Texts::new()
        };
        let annotations = if prepare.annotations_passed {
            given.1
        } else {
            facts.annotations
        };
        Ok((labels, annotations))
    }

    /// What the API says of a pod: from the watch, or, where that is behind, asked for.
    fn pod_facts(&mut self, prepare: &Prepare) -> Result<Option<PodFacts>, String> {
        let key = (prepare.pod.namespace.clone(), prepare.pod.name.clone());
        let known = self.pods.known.get(&key);
        // A pod that was made anew under its name has another uid. (So has the mirror of a static
        // pod, always.)
        let fresh =
            known.filter(|facts| prepare.pod.uid.as_ref().is_none_or(|uid| *uid == facts.uid));
        if let Some(facts) = fresh {
            return Ok(Some(facts.clone()));
        }
        let Some(watched) = &self.pods.watched else {
            return Err(self
                .pods
                .trouble
                .clone()
                .unwrap_or_else(|| "the Kubernetes API cannot be asked".to_owned()));
        };
        let asked = ratchet_kubernetes::get(watched.client.clone(), &key.0, &key.1, TIMEOUT);
        match self.runtime.block_on(asked) {
            Ok(Some(facts)) => {
                self.pods.known.insert(key, facts.clone());
                Ok(Some(facts))
            }
            Ok(None) => Ok(None),
            // Better the facts of a pod of that name than none.
            Err(error) => known.cloned().map(Some).ok_or_else(|| error.to_string()),
        }
    }

    /// Labels and annotations of a running pod have changed: its links follow.
    fn follow(&mut self, facts: &PodFacts) {
        let of_pod = |state: &&SandboxState| {
            !state.leaving && state.kubernetes == (facts.namespace.clone(), facts.name.clone())
        };
        let Some(state) = self
            .sandboxes
            .all()
            .filter(of_pod)
            .max_by_key(|state| state.created)
            .cloned()
        else {
            return;
        };
        let no_labels = Texts::new();
        let labels = if state.use_labels {
            &facts.labels
        } else {
            &no_labels
        };
        let declared = PodKey::new(&facts.namespace, &facts.name)
            .map_err(|e| e.to_string())
            .and_then(|pod| declare(&pod, labels, &facts.annotations).map_err(|e| e.to_string()));
        let links = match declared {
            Ok(Some(declaration)) if declaration.pod == state.pod => declaration.links,
            Ok(None) => Vec::new(),
            Ok(Some(declaration)) => {
                let text = format!(
                    "a running pod cannot change its name from {} to {}",
                    state.pod, declaration.pod
                );
                return self.warn_pod(&state.pod, &text);
            }
            Err(text) => {
                tracing::warn!(pod = %state.pod, text, "the pod's declaration was changed and is \
                                                        wrong now; its links stay");
                return self.warn_pod(&state.pod, &text);
            }
        };
        if links == state.links {
            return;
        }
        tracing::info!(pod = %state.pod, links = links.len(), "the pod's declaration has changed");
        let (pod, id) = (state.pod.clone(), state.id.clone());
        if let Err(error) = self.sandboxes.save(SandboxState { links, ..state }) {
            tracing::error!(sandbox = %id, %error, "cannot write the state of the sandbox; its \
                                                    links stay");
            return;
        }
        let pods: BTreeSet<PodKey> = [pod].into();
        if !(self.refresh_facts(&pods) & self.reconcile(&Scope::Links(pods))) {
            self.look_again_soon();
        }
    }

    /// Tells the users of a link's pods here what they must mend.
    pub(super) fn warn_pods(&self, link: &Link, text: &str) {
        let text = format!("link {}: {text}", super::report::name(link));
        for pod in BTreeSet::from([&link.a.pod, &link.z.pod]) {
            self.warn_pod(pod, &text);
        }
    }

    fn warn_pod(&self, pod: &PodKey, text: &str) {
        let Some(watched) = &self.pods.watched else {
            return;
        };
        let Some(state) = self.sandboxes.current(pod) else {
            return;
        };
        let Some(facts) = self.pods.known.get(&state.kubernetes) else {
            return;
        };
        let (reporter, facts, text) = (watched.reporter.clone(), facts.clone(), text.to_owned());
        self.runtime.spawn(async move {
            reporter
                .warn(&facts.namespace, &facts.name, &facts.uid, &text)
                .await
        });
    }

    /// When a link will have waited for long of which nobody has been told yet; never while nobody
    /// can be told.
    pub(super) fn next_warning(&self) -> Option<Instant> {
        if self.pods.watched.is_none() || self.pods.trouble.is_some() {
            return None;
        }
        self.links.waiting_since().map(|since| since + LONG)
    }

    /// Links that have waited for their peer for long are worth an event, once.
    pub(super) fn warn_of_what_takes_long(&mut self) {
        while self
            .next_warning()
            .is_some_and(|due| due <= self.clock.now())
            && let Some((link, text)) = self.links.tell_of_longest_waiting()
        {
            self.warn_pods(&link, &text);
        }
    }
}
