//! Hearing of changes: the kernel tells when somebody writes to the log, SQLite tells whether that
//! has changed anything.

use std::{
    future,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{io::unix::AsyncFd, sync::Mutex, time};

use super::{snapshot::Snapshot, worker::Worker};
use crate::{Change, Interest, StoreError, Watch};

/// Between two looks while somebody writes.
const QUICK: Duration = Duration::from_millis(10);

/// So many quick looks after each write: the kernel tells of bytes written to the log a moment
/// before the commit that they belong to can be seen.
const QUICK_LOOKS: u32 = 20;

/// Between two looks while nothing seems to happen: for file systems whose events do not reach us,
/// and for a file that was replaced while its log was not.
const SLOW: Duration = Duration::from_secs(5);

/// Between two looks when the kernel cannot tell at all.
const BLIND: Duration = Duration::from_millis(20);

/// After a look, rest this many times as long as it took: at worst a fifth of a core, however much
/// is going on.
const REST: u32 = 4;

/// A running watch with its own connection.
pub(super) struct SqliteWatch {
    worker: Worker,
    snapshot: Arc<Mutex<Snapshot>>,
    trigger: Option<Trigger>,
    /// The opening of the file that `trigger` belongs to.
    generation: u64,
    quick_looks: u32,
    looked: Instant,
    /// When it may look again.
    rested: Instant,
}

impl SqliteWatch {
    /// Begins to watch.
    pub(super) async fn start(worker: Worker) -> Result<Self, StoreError> {
        let snapshot = Arc::new(Mutex::new(Snapshot::new()));
        let now = Instant::now();
        let mut watch = Self {
            worker,
            snapshot,
            trigger: None,
            generation: 0,
            quick_looks: 0,
            looked: now,
            rested: now,
        };
        watch.look().await?;
        Ok(watch)
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        self.looked = Instant::now();
        let snapshot = self.snapshot.clone();
        let generation = self
            .worker
            .run(move |database| snapshot.blocking_lock().look(database))
            .await?;
        self.rested = Instant::now() + self.looked.elapsed() * REST;
        if self.generation != generation {
            let log = self.worker.run(|database| Ok(database.log())).await?;
            self.trigger = Trigger::new(&log)
                .inspect_err(|error| {
                    tracing::warn!(
                        log = %log.display(), %error,
                        "no inotify: polling the store every {BLIND:?}"
                    );
                })
                .ok();
            self.generation = generation;
            // What was written between the look and the trigger.
            self.quick_looks = QUICK_LOOKS;
        }
        Ok(())
    }

    /// Until it is worth looking. May be dropped at any time: what the trigger said is kept in
    /// `quick_looks`.
    async fn pause(&mut self) {
        let most = match &self.trigger {
            _ if self.quick_looks > 0 => QUICK,
            Some(_) => SLOW,
            None => BLIND,
        };
        tokio::select! {
            biased;
            () = touched(self.trigger.as_ref()) => self.quick_looks = QUICK_LOOKS,
            () = time::sleep_until((self.looked + most).into()) => {
                self.quick_looks = self.quick_looks.saturating_sub(1);
            }
        }
        time::sleep_until(self.rested.into()).await;
    }
}

#[async_trait]
impl Watch for SqliteWatch {
    async fn interest(&mut self, interest: Interest) -> Result<(), StoreError> {
        let snapshot = self.snapshot.clone();
        self.worker
            .run(move |database| {
                let mut snapshot = snapshot.blocking_lock();
                snapshot.set_interest(interest);
                snapshot.look(database).map(drop)
            })
            .await
    }

    async fn next(&mut self) -> Result<Change, StoreError> {
        loop {
            // No await between taking and returning: cancelling loses nothing.
            let change = self.snapshot.lock().await.take();
            if let Some(change) = change {
                return Ok(change);
            }
            self.pause().await;
            self.look().await?;
        }
    }
}

/// Fires when somebody writes to the log, or takes it away.
struct Trigger(AsyncFd<Events>);

struct Events(Inotify);

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Trigger {
    fn new(log: &Path) -> std::io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // IN_ATTRIB: it has one name less. IN_DELETE_SELF would wait until we have closed it.
        inotify.add_watch(
            log,
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF,
        )?;
        // SAFETY: `Events` owns the descriptor, always gives the same one, and closes it only when
        // it is dropped.
        Ok(Self(unsafe { AsyncFd::register(Events(inotify)) }?))
    }
}

/// Until somebody has written; for ever without a trigger.
async fn touched(trigger: Option<&Trigger>) {
    let Some(Trigger(events)) = trigger else {
        return future::pending().await;
    };
    match events.readable().await {
        Ok(mut ready) => {
            let _drained = ready.get_inner().0.read_events();
            ready.clear_ready();
        }
        Err(_) => future::pending().await,
    }
}
