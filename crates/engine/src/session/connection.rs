//! The way to a store: its handle, what is done while it is offline, and the one place through
//! which every call to it goes.
//!
//! The engine never waits long for a store that does not answer. A call that takes longer than its
//! size explains is abandoned, and the store is offline: from then on all calls fail at once,
//! while a probe asks again and again. So an agent whose store hangs still does at once what needs
//! none, such as undoing the links of pods that go. What the store must be told is told when it is
//! back.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{self, Either};
use ratchet_model::Reason;
use ratchet_protocol::{Failure, FailureKind, Settings};
use ratchet_store::{Change, EndReport, Interest, Store, StoreError, StoreHealth, StoreScope};
use tokio::{runtime::Handle, sync::watch};

use super::watcher::{self, News};
use crate::{
    clock::Clock,
    engine::{Command, Commands},
    store::OpenStore,
    task::Task,
};

/// For how long a store may be silent about something small. Pods that come or go meanwhile wait
/// as well. It is longer than etcd takes to elect a leader, which is 1 to 2 s with its defaults.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);

/// What each link that a call is about adds to that: some twenty times what it takes.
const PER_LINK: Duration = Duration::from_millis(2);

/// For how long a store may take to go through all records it has. Such calls are rare: after the
/// state directory was lost, and when a node is gone for good.
const ALL_RECORDS: Duration = Duration::from_secs(30);

/// Between two attempts of the probe: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How much a store has to do for a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size {
    /// It deals with so many links, or other small things.
    Links(usize),
    /// It goes through all records there are.
    AllRecords,
}

impl Size {
    fn timeout(self) -> Duration {
        match self {
            Size::Links(links) => {
                TIMEOUT + PER_LINK.saturating_mul(u32::try_from(links).unwrap_or(u32::MAX))
            }
            Size::AllRecords => ALL_RECORDS,
        }
    }
}

/// What a connection needs of the world.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// Opens the store.
    pub open_store: OpenStore,
    /// Runs calls, the watch and the probe.
    pub runtime: Handle,
    /// Where watch and probe send their commands.
    pub commands: Commands,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Surroundings {
    fn spawn(&self, what: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task::spawn(&self.runtime, self.commands.clone(), what, work)
    }
}

/// A call that failed.
pub(super) struct CallFailed {
    /// What the client that waits is told.
    pub failure: Failure,
    /// Whether the store may still do what was asked: the call was abandoned, or the connection
    /// broke.
    pub may_land: bool,
}

/// Why all calls fail for now.
struct Offline {
    failure: Failure,
    _probe: Task,
}

/// A store that the probe has opened.
type Opened = Arc<Mutex<Option<Arc<dyn Store>>>>;

/// The way to one store.
pub(super) struct Connection {
    surroundings: Surroundings,
    settings: Settings,
    store: Option<Arc<dyn Store>>,
    opened: Opened,
    trouble: Option<Box<Reason>>,
    offline: Option<Offline>,
    watcher: Option<Task>,
    news: Arc<News>,
    interest: watch::Sender<Interest>,
}

impl Connection {
    /// The way to the store that the settings name. Nothing is opened yet.
    pub fn new(surroundings: Surroundings, settings: Settings) -> Self {
        Self {
            surroundings,
            settings,
            store: None,
            opened: Opened::default(),
            trouble: None,
            offline: None,
            watcher: None,
            news: Arc::default(),
            interest: watch::Sender::new(Interest::default()),
        }
    }

    /// Calls the store, opened if it is not yet. Fails at once while it is offline.
    pub fn call<T>(
        &mut self,
        size: Size,
        ask: impl AsyncFnOnce(&dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, CallFailed> {
        let store = self.store()?;
        let answer = self.in_time(size, ask(&*store));
        match answer {
            Some(Ok(answer)) => {
                self.trouble = None;
                Ok(answer)
            }
            Some(Err(error)) => Err(CallFailed {
                may_land: matches!(error, StoreError::Unavailable(_)),
                ..self.failed(&error)
            }),
            None => Err(CallFailed {
                may_land: true,
                ..self.silent(size)
            }),
        }
    }

    /// What the store is, for messages.
    pub fn describe(&self) -> String {
        let described = self.store.as_ref().map(|store| store.describe());
        described.unwrap_or_else(|| self.settings.store.clone().unwrap_or_default())
    }

    /// Who shares the store, once it was opened.
    pub fn scope(&self) -> Option<StoreScope> {
        self.store.as_ref().map(|store| store.scope())
    }

    /// Whether the store says what pods declare, once it was opened.
    pub fn declares(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.declares())
    }

    /// See [`Store::health`]; `None` before the store was opened.
    pub fn health(&self) -> Option<StoreHealth> {
        self.store.as_ref().map(|store| store.health())
    }

    /// See [`Store::report`]. It waits for nothing, so it needs no bound.
    pub fn report(&self, ends: Vec<EndReport>) {
        if let Some(store) = &self.store {
            store.report(ends);
        }
    }

    /// Why all calls fail at once, if they do.
    pub fn offline(&self) -> Option<&Failure> {
        self.offline.as_ref().map(|offline| &offline.failure)
    }

    /// Whether it was opened.
    pub fn is_open(&self) -> bool {
        self.store.is_some()
    }

    /// Why the last call failed, or the watch. One thing that is too large is no trouble of the
    /// store.
    pub fn trouble(&self) -> Option<&Reason> {
        self.trouble.as_deref()
    }

    /// The watch broke.
    pub fn watch_broke(&mut self, trouble: String) {
        self.trouble = Some(Box::new(Reason::StoreFailed { error: trouble }));
    }

    /// The probe has had an answer. Returns whether it was waited for.
    pub fn is_back(&mut self) -> bool {
        self.offline.take().is_some()
    }

    /// What the watch has told since this was asked last.
    pub fn take_news(&self) -> Option<Change> {
        self.news.take()
    }

    /// What the watch listens for.
    pub fn interest(&self) -> &watch::Sender<Interest> {
        &self.interest
    }

    fn store(&mut self) -> Result<Arc<dyn Store>, CallFailed> {
        if let Some(offline) = &self.offline {
            return Err(CallFailed {
                failure: offline.failure.clone(),
                may_land: false,
            });
        }
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        let by_probe = lock(&self.opened).take();
        let store = match by_probe {
            Some(store) => store,
            None => {
                let opening = (self.surroundings.open_store)(self.settings.clone());
                match self.in_time(Size::Links(0), opening) {
                    Some(Ok(store)) => store,
                    Some(Err(error)) => return Err(self.failed(&error)),
                    None => return Err(self.silent(Size::Links(0))),
                }
            }
        };
        tracing::info!(store = store.describe(), "store opened");
        let watch = watcher::watch(
            store.clone(),
            self.interest.subscribe(),
            self.news.clone(),
            self.surroundings.commands.clone(),
        );
        self.watcher = Some(self.surroundings.spawn("the watch on the store", watch));
        self.store = Some(store.clone());
        Ok(store)
    }

    /// Waits for an answer, but not for longer than the size of what was asked explains.
    fn in_time<T>(&self, size: Size, answer: impl Future<Output = T>) -> Option<T> {
        let clock = &self.surroundings.clock;
        self.surroundings.runtime.block_on(async {
            let answer = std::pin::pin!(answer);
            match future::select(answer, clock.sleep(size.timeout())).await {
                Either::Left((answer, _)) => Some(answer),
                Either::Right(_) => None,
            }
        })
    }

    fn silent(&mut self, size: Size) -> CallFailed {
        let text = format!(
            "store {}: no answer for {:?}; it is asked again until there is one",
            self.describe(),
            size.timeout()
        );
        self.failed(&StoreError::Unavailable(text))
    }

    fn failed(&mut self, error: &StoreError) -> CallFailed {
        let reason = reason(error);
        let failure = Failure::because(kind(error), &reason);
        if !matches!(error, StoreError::TooLarge(_)) {
            self.trouble = Some(Box::new(reason));
        }
        if matches!(error, StoreError::Unavailable(_)) && self.offline.is_none() {
            let probe = probe(
                self.store.clone(),
                self.surroundings.clone(),
                self.settings.clone(),
                self.opened.clone(),
            );
            self.offline = Some(Offline {
                failure: failure.clone(),
                _probe: self.surroundings.spawn("the probe of the store", probe),
            });
        }
        CallFailed {
            failure,
            may_land: false,
        }
    }
}

fn lock(opened: &Opened) -> std::sync::MutexGuard<'_, Option<Arc<dyn Store>>> {
    opened.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A store's error as the socket's clients see it.
fn kind(error: &StoreError) -> FailureKind {
    match error {
        StoreError::Unavailable(_) => FailureKind::TryLater,
        StoreError::Broken(_) => FailureKind::Io,
        StoreError::Config(_) | StoreError::TooLarge(_) => FailureKind::Invalid,
    }
}

fn reason(error: &StoreError) -> Reason {
    let text = error.to_string();
    match error {
        StoreError::Unavailable(_) => Reason::StoreOffline { error: text },
        StoreError::Broken(_) | StoreError::Config(_) => Reason::StoreFailed { error: text },
        StoreError::TooLarge(_) => Reason::StoreTooLarge { error: text },
    }
}

/// Asks until there is an answer, even if it is that something else is wrong. A store that it
/// opens is kept: opening it may take longer than the engine waits.
async fn probe(
    store: Option<Arc<dyn Store>>,
    surroundings: Surroundings,
    settings: Settings,
    opened: Opened,
) {
    let mut pause = PAUSE.0;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
        let answer = match &store {
            Some(store) => store.read(&BTreeSet::new()).await.map(drop),
            None => (surroundings.open_store)(settings.clone())
                .await
                .map(|store| *lock(&opened) = Some(store)),
        };
        if !matches!(answer, Err(StoreError::Unavailable(_))) {
            // If the engine is gone, nothing is left to tell.
            let _ = surroundings.commands.send(Command::StoreBack);
            return;
        }
    }
}
