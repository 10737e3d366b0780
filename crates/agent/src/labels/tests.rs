//! The label source with an API that a test plays; time is virtual, so no test waits.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use ratchet_engine::{Command, Declared};
use ratchet_model::Reason;
use ratchet_protocol::{FailureKind, Pod};
use tokio::{sync::broadcast, time::Instant};

use super::*;

/// The annotation that names a container with NET_ADMIN, as the API would have it in the pod's
/// specification.
const OWNS: &str = "owns";

/// An API as a test wants it.
struct Fake {
    /// Whether it answers no request at all.
    silent: AtomicBool,
    pods: Mutex<BTreeMap<String, PodFacts>>,
    /// What the watches report.
    news: broadcast::Sender<PodNews>,
    /// How many requests for a pod it has received.
    asked: AtomicUsize,
    warned: Mutex<Vec<(String, String)>>,
    forgotten: Mutex<Vec<String>>,
}

impl Fake {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            silent: false.into(),
            pods: Mutex::default(),
            news: broadcast::Sender::new(16),
            asked: 0.into(),
            warned: Mutex::default(),
            forgotten: Mutex::default(),
        })
    }

    fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn add(&self, facts: PodFacts) {
        self.pods.lock().unwrap().insert(facts.name.clone(), facts);
    }

    async fn answer(&self) {
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending().await
        }
    }
}

#[async_trait]
impl Api for Arc<Fake> {
    async fn pod(&self, _: &str, name: &str) -> Result<Option<PodFacts>, ApiError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.answer().await;
        Ok(self.pods.lock().unwrap().get(name).cloned())
    }

    async fn network_owner(&self, _: &str, name: &str) -> Result<Option<NetworkOwner>, ApiError> {
        self.answer().await;
        let pod = self.pods.lock().unwrap().get(name).cloned();
        let container = pod
            .as_ref()
            .and_then(|pod| pod.annotations.get(OWNS).cloned());
        Ok(pod
            .zip(container)
            .map(|(pod, container)| NetworkOwner { pod, container }))
    }

    async fn probe(&self) -> Result<(), ApiError> {
        self.answer().await;
        Ok(())
    }

    fn watch(&self) -> BoxStream<'static, PodNews> {
        let (fake, news) = (self.clone(), self.news.subscribe());
        let list = async move {
            fake.answer().await;
            PodNews::All(fake.pods.lock().unwrap().values().cloned().collect())
        };
        let changes = stream::unfold(news, |mut news| async {
            news.recv().await.ok().map(|next| (next, news))
        });
        stream::once(list).chain(changes).boxed()
    }

    async fn warn(&self, pod: &PodFacts, reason: &Reason, text: &str) {
        let warning = (pod.uid.clone(), format!("{}: {text}", reason.name()));
        self.warned.lock().unwrap().push(warning);
    }

    async fn forget(&self, uid: &str) {
        self.forgotten.lock().unwrap().push(uid.to_owned());
    }
}

/// A source, and what it sends to the engine.
struct Source {
    labels: Labels,
    inbox: mpsc::Receiver<Command>,
    progress: watch::Receiver<u64>,
    targets: Arc<Mutex<Vec<Target>>>,
}

fn source(settings: Settings, managed: bool, fake: &Arc<Fake>) -> Source {
    let (engine, inbox) = mpsc::channel();
    let (sender, progress) = watch::channel(0);
    let targets = Arc::new(Mutex::new(Vec::new()));
    let (api, seen) = (fake.clone(), targets.clone());
    let labels = Labels::start(Setup {
        settings,
        managed,
        connect: Arc::new(move |target| {
            seen.lock().unwrap().push(target);
            let api: Arc<dyn Api> = Arc::new(api.clone());
            Box::pin(async { Ok(api) })
        }),
        engine,
        progress: sender,
        runtime: Handle::current(),
    });
    Source {
        labels,
        inbox,
        progress,
        targets,
    }
}

fn with_api(fake: &Arc<Fake>) -> Source {
    source(names("/kubeconfig"), true, fake)
}

/// Settings that name an API.
fn names(kubeconfig: &str) -> Settings {
    Settings {
        kubeconfig: Some(kubeconfig.to_owned()),
        ..Settings::default()
    }
}

impl Source {
    async fn resolve(&self, prepare: &Prepare) -> Result<Option<Declaration>, Failure> {
        self.labels
            .resolve(prepare, |declaration| declaration)
            .await
    }

    /// The pod's name for links, by which these tests tell one set of labels from another.
    async fn name(&self, prepare: &Prepare) -> String {
        let declaration = self.resolve(prepare).await.unwrap();
        declaration.expect("a declaration").pod.name().to_owned()
    }

    /// Waits until the node's pods are listed.
    async fn listed(&self) {
        until(|| self.labels.is_online()).await;
    }

    fn declared(&self) -> Vec<Declared> {
        let commands = self.inbox.try_iter();
        let declared = commands.filter_map(|command| match command {
            Command::Declared(declared) => Some(*declared),
            _ => None,
        });
        declared.collect()
    }
}

/// Waits, in virtual time, until something is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    let reached = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, reached)
        .await
        .expect("is so within a minute");
}

fn facts(name: &str, uid: &str, pod_name: &str) -> PodFacts {
    let labels = [("ratchet", "true"), ("ratchet.pod_name", pod_name)];
    PodFacts {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        annotations: BTreeMap::new(),
    }
}

/// A call for a pod of which the runtime passes no annotations.
fn call(name: &str, uid: &str) -> Prepare {
    Prepare {
        pod: Pod {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: Some(uid.to_owned()),
        },
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        annotations_passed: false,
        use_labels: true,
        settings: Settings::default(),
        interface: "eth0".to_owned(),
    }
}

/// A call for a pod with annotations that the runtime passes.
fn call_with_links(name: &str) -> Prepare {
    Prepare {
        annotations: [("ratchet.dev/links".to_owned(), "[]".to_owned())].into(),
        annotations_passed: true,
        ..call(name, "1")
    }
}

#[tokio::test(start_paused = true)]
async fn a_known_pod_is_resolved_without_a_request() {
    let fake = Fake::new();
    fake.add(facts("p", "1", "router"));
    let source = with_api(&fake);
    source.listed().await;
    fake.set_silent(true);
    assert_eq!(source.name(&call("p", "1")).await, "router");
    assert_eq!(fake.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_created_again_under_its_name_is_asked_for() {
    let fake = Fake::new();
    fake.add(facts("p", "1", "old"));
    let source = with_api(&fake);
    source.listed().await;
    fake.add(facts("p", "2", "new"));
    assert_eq!(source.name(&call("p", "2")).await, "new");
    assert_eq!(fake.asked(), 1);
    // Its answer is kept for the requests that follow.
    assert_eq!(source.name(&call("p", "2")).await, "new");
    assert_eq!(fake.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_the_api_is_silent_the_facts_of_an_earlier_pod_with_the_name_count() {
    let fake = Fake::new();
    fake.add(facts("p", "1", "old"));
    let source = with_api(&fake);
    source.listed().await;
    fake.set_silent(true);
    assert_eq!(source.name(&call("p", "2")).await, "old");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_kubernetes_does_not_have_is_what_the_call_says() {
    let fake = Fake::new();
    let source = with_api(&fake);
    assert_eq!(source.resolve(&call("p", "1")).await, Ok(None));
    assert_eq!(source.name(&call_with_links("q")).await, "q");
}

#[tokio::test(start_paused = true)]
async fn with_a_silent_api_one_call_waits_and_the_next_do_not() {
    let fake = Fake::new();
    fake.set_silent(true);
    let source = with_api(&fake);
    let begun = Instant::now();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let failure = source.resolve(&call(name, "1")).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::TryLater);
        let expected = format!(
            "pod default/{name}: the Kubernetes API does not answer within 2 s, so its labels are \
             not known"
        );
        assert!(failure.message.starts_with(&expected), "{failure}");
    }
    assert_eq!(begun.elapsed(), Duration::from_secs(2));
    assert_eq!(fake.asked(), 1);
    let failure = "the Kubernetes API does not answer within 2 s";
    assert_eq!(source.labels.failure().as_deref(), Some(failure));
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_back_is_noticed_and_asked_again() {
    let fake = Fake::new();
    fake.set_silent(true);
    let source = with_api(&fake);
    source.resolve(&call("p", "1")).await.unwrap_err();
    assert!(!source.labels.is_online());
    assert!(source.declared().is_empty());
    let before = *source.progress.borrow();

    fake.add(facts("p", "1", "router"));
    fake.set_silent(false);
    // Nothing but the probe asks.
    source.listed().await;
    until(|| source.labels.failure().is_none()).await;
    assert!(*source.progress.borrow() > before, "reports are renewed");
    assert_eq!(source.name(&call("p", "1")).await, "router");
    // The watch has begun again: the engine has the pods that have changed since.
    assert_eq!(source.declared().len(), 1);
    fake.set_silent(true);
    source.resolve(&call("q", "1")).await.unwrap_err();
    assert_eq!(fake.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_is_probed_and_calls_still_ask() {
    let fake = Fake::new();
    let source = with_api(&fake);
    source.listed().await;
    fake.news.send(PodNews::Lost("no".into())).unwrap();
    until(|| source.labels.failure().is_some()).await;
    assert!(!source.labels.is_online());
    let failure = "the Kubernetes API cannot be watched: no";
    assert_eq!(source.labels.failure().as_deref(), Some(failure));
    fake.add(facts("p", "1", "router"));
    assert_eq!(source.name(&call("p", "1")).await, "router");

    fake.set_silent(true);
    fake.news.send(PodNews::Lost("no".into())).unwrap();
    let offline = "the Kubernetes API does not answer within 2 s";
    until(|| source.labels.failure().as_deref() == Some(offline)).await;
    // So no call has to find out by waiting.
    let begun = Instant::now();
    source.resolve(&call("q", "1")).await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn annotations_that_the_runtime_passes_decide_alone_while_the_api_is_silent() {
    let fake = Fake::new();
    fake.set_silent(true);
    let source = with_api(&fake);
    assert_eq!(source.name(&call_with_links("p")).await, "p");
    let plain = Prepare {
        annotations_passed: true,
        ..call("q", "1")
    };
    assert_eq!(source.resolve(&plain).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn where_labels_do_not_count_passed_annotations_need_no_api() {
    let fake = Fake::new();
    fake.set_silent(true);
    let source = with_api(&fake);
    let call = Prepare {
        use_labels: false,
        ..call_with_links("p")
    };
    assert_eq!(source.name(&call).await, "p");
    assert_eq!(fake.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn passed_annotations_replace_those_of_the_api_and_labels_add_up() {
    let fake = Fake::new();
    let mut known = facts("p", "1", "router");
    let stale = ("ratchet.dev/links".to_owned(), "nonsense".to_owned());
    known.annotations = [stale].into();
    fake.add(known);
    let source = with_api(&fake);
    assert_eq!(source.name(&call_with_links("p")).await, "router");
    let mut call = call_with_links("p");
    call.labels = [("ratchet.pod_name".to_owned(), "given".to_owned())].into();
    assert_eq!(source.name(&call).await, "given");
    call.use_labels = false;
    call.labels.clear();
    assert_eq!(source.name(&call).await, "p");
}

#[tokio::test(start_paused = true)]
async fn a_link_may_not_claim_the_name_of_the_pods_own_interface() {
    let fake = Fake::new();
    let source = source(Settings::default(), true, &fake);
    let mut call = call_with_links("p");
    let links = "[{interface: eth0, peer: q}]".to_owned();
    call.annotations = [("ratchet.dev/links".to_owned(), links)].into();
    let failure = source.resolve(&call).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(failure.message.contains("(CNI_IFNAME)"), "{failure}");
    call.interface = "eth1".to_owned();
    assert_eq!(source.name(&call).await, "p");
}

#[tokio::test(start_paused = true)]
async fn declarations_that_are_too_large_are_refused() {
    let fake = Fake::new();
    let source = source(Settings::default(), true, &fake);
    let mut call = call_with_links("p");
    call.annotations.insert("x".to_owned(), "y".repeat(1 << 20));
    assert_eq!(source.name(&call).await, "p", "not Ratchet's");
    call.annotations
        .insert("ratchet.dev/links".to_owned(), "y".repeat(1 << 20));
    let failure = source.resolve(&call).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert_eq!(
        failure.message,
        "pod default/p: annotation ratchet.dev/links: has 1048576 bytes, the limit is 262144: \
         declare fewer links on this pod"
    );
}

#[tokio::test(start_paused = true)]
async fn quotas_come_from_the_settings() {
    let fake = Fake::new();
    let two = "[{interface: e1, peer: q}, {interface: e2, peer: q}]".to_owned();
    let mut known = facts("p", "1", "router");
    known.annotations = [("ratchet.dev/links".to_owned(), two.clone())].into();
    fake.add(known);
    let settings = Settings {
        max_links: Some(1.try_into().unwrap()),
        ..names("/kubeconfig")
    };
    let source = source(settings, true, &fake);
    source.listed().await;
    let expected = "annotation ratchet.dev/links[1]: is one link more than the 1 that a pod may";
    let mut call = call_with_links("p");
    call.annotations = [("ratchet.dev/links".to_owned(), two)].into();
    let failure = source.resolve(&call).await.unwrap_err();
    assert!(failure.message.contains(expected), "{failure}");
    let running = source.declared().remove(0);
    let error = running.with_labels.unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

#[tokio::test(start_paused = true)]
async fn no_change_overtakes_a_call_that_did_not_see_it() {
    let fake = Fake::new();
    fake.add(facts("p", "1", "n0"));
    let source = with_api(&fake);
    source.listed().await;
    let call = call("p", "1");
    for change in 1..10 {
        let changed = facts("p", "1", &format!("n{change}"));
        fake.news.send(PodNews::Applied(changed)).unwrap();
        // What the call sees goes to the engine, too, in a command that serves as a mark here.
        let engine = &source.labels.0.setup.engine;
        let mark = |declaration: Result<Option<Declaration>, Failure>| {
            let name = declaration.unwrap().unwrap().pod.name().to_owned();
            engine.send(Command::StoreLost(name)).unwrap();
        };
        source.labels.resolve(&call, mark).await;
        tokio::task::yield_now().await;
    }
    let (mut last, mut changes) = (String::new(), 0);
    for command in source.inbox.try_iter() {
        match command {
            Command::Declared(declared) => {
                assert_eq!(declared.kubernetes, ("default".into(), "p".into()));
                assert_eq!(declared.annotations_only, Ok(None));
                let declaration = declared.with_labels.unwrap().unwrap();
                last = declaration.pod.name().to_owned();
                changes += 1;
            }
            Command::StoreLost(seen) => assert_eq!(seen, last),
            _ => panic!("neither a change nor a mark"),
        }
    }
    assert!(changes > 5, "{changes}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_declaration_of_a_running_pod_says_what_is_wrong() {
    let fake = Fake::new();
    let mut wrong = facts("p", "1", "router");
    wrong
        .labels
        .insert("ratchet.primary".to_owned(), "perhaps".to_owned());
    fake.add(wrong);
    let source = with_api(&fake);
    source.listed().await;
    let mut declared = source.declared();
    until(|| {
        declared.extend(source.declared());
        !declared.is_empty()
    })
    .await;
    let text = declared[0].with_labels.as_ref().unwrap_err().to_string();
    assert!(text.contains("ratchet.primary"), "{text}");
    assert_eq!(declared[0].annotations_only, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn warnings_go_to_pods_that_are_known() {
    let fake = Fake::new();
    fake.add(facts("p", "1", "router"));
    let source = with_api(&fake);
    assert!(!source.labels.is_online(), "no pods are known yet");
    source.listed().await;
    let reason = Reason::RouteInvalid {};
    source.labels.warn("default", "p", &reason, "fix it");
    source.labels.warn("default", "stranger", &reason, "fix it");
    until(|| !fake.warned.lock().unwrap().is_empty()).await;
    let warned = fake.warned.lock().unwrap().clone();
    assert_eq!(
        warned,
        [("1".to_owned(), "RouteInvalid: fix it".to_owned())]
    );
    fake.news
        .send(PodNews::Deleted("default".into(), "p".into()))
        .unwrap();
    until(|| *fake.forgotten.lock().unwrap() == ["1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_owns_the_nodes_network_gets_a_warning() {
    let fake = Fake::new();
    let mut owner = facts("p", "1", "router");
    owner.annotations.insert(OWNS.to_owned(), "frr".to_owned());
    fake.add(owner);
    fake.add(facts("q", "2", "other"));
    let source = with_api(&fake);
    source.listed().await;
    for (name, uid) in [("q", "2"), ("stranger", "3"), ("p", "1")] {
        let Prepare { pod, settings, .. } = call(name, uid);
        source.labels.warn_of_owner(pod, &settings);
    }
    until(|| !fake.warned.lock().unwrap().is_empty()).await;
    let warned = fake.warned.lock().unwrap().clone();
    let [(uid, text)] = &warned[..] else {
        panic!("{warned:?}");
    };
    assert_eq!(uid, "1");
    assert!(
        text.starts_with("NodeNetworkOwned: container frr has NET_ADMIN"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_on_demand_follows_the_last_config_and_a_managed_one_its_own() {
    for managed in [false, true] {
        let fake = Fake::new();
        let source = source(names("/own"), managed, &fake);
        let mut call = call("p", "1");
        for kubeconfig in ["/a", "/a", "/b"] {
            call.settings = names(kubeconfig);
            source.resolve(&call).await.unwrap();
        }
        call.settings = Settings::default();
        source.resolve(&call).await.unwrap();
        let targets = source.targets.lock().unwrap();
        let used: Vec<&str> = targets.iter().map(|target| &*target.kubeconfig).collect();
        let expected: &[&str] = if managed { &["/own"] } else { &["/a", "/b"] };
        assert_eq!(used, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_kubeconfig_nothing_is_asked() {
    let fake = Fake::new();
    let source = source(Settings::default(), true, &fake);
    assert_eq!(source.resolve(&call("p", "1")).await, Ok(None));
    assert_eq!(source.name(&call_with_links("p")).await, "p");
    assert!(source.targets.lock().unwrap().is_empty());
    assert_eq!(source.labels.failure(), None);
    assert!(!source.labels.is_online());
}

#[tokio::test(start_paused = true)]
async fn credentials_that_cannot_be_read_are_looked_for_again() {
    let fake = Fake::new();
    fake.add(facts("p", "1", "router"));
    let (engine, _inbox) = mpsc::channel();
    let attempts = Arc::new(AtomicUsize::new(0));
    let (api, count) = (fake.clone(), attempts.clone());
    let labels = Labels::start(Setup {
        settings: names("/kubeconfig"),
        managed: true,
        connect: Arc::new(move |_| {
            let api: Arc<dyn Api> = Arc::new(api.clone());
            let is_there = count.fetch_add(1, Ordering::SeqCst) >= 3;
            Box::pin(async move { is_there.then_some(api).ok_or("no such file".to_owned()) })
        }),
        engine,
        progress: watch::Sender::new(0),
        runtime: Handle::current(),
    });
    let call = call("p", "1");
    let declared = labels.resolve(&call, |declared| declared);
    let failure = declared.await.unwrap_err();
    let expected = "the Kubernetes API cannot be asked: no such file";
    assert!(failure.message.contains(expected), "{failure}");
    until(|| labels.is_online()).await;
    assert_eq!(attempts.load(Ordering::SeqCst), 4);
}
