//! Watches for changes: the kernel reports writes to the log, and SQLite shows what they have
//! changed.

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

/// The pause between two looks while there are writes.
const QUICK: Duration = Duration::from_millis(10);

/// The number of quick looks after each write: the kernel reports bytes in the log shortly before
/// their commit is visible.
const QUICK_LOOKS: u32 = 20;

/// The pause between two looks without writes: for file systems whose events do not reach us, and
/// for a file that was replaced while its log was not.
const SLOW: Duration = Duration::from_secs(5);

/// The pause between two looks if the kernel reports nothing.
const BLIND: Duration = Duration::from_millis(20);

/// After a look, wait this many times as long as it took: looks use at most a fifth of a core.
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
    /// The earliest time of the next look.
    rested: Instant,
}

impl SqliteWatch {
    /// Starts to watch.
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
            // Something may have been written between the look and the trigger.
            self.quick_looks = QUICK_LOOKS;
        }
        Ok(())
    }

    /// Waits until a look is worthwhile. May be dropped at any time: `quick_looks` keeps what the
    /// trigger reported.
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
            // No await between taking and returning, so that cancelling loses nothing.
            let change = self.snapshot.lock().await.take();
            if let Some(change) = change {
                return Ok(change);
            }
            self.pause().await;
            self.look().await?;
        }
    }
}

/// Fires when the log is written or removed.
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
        // IN_ATTRIB: it was unlinked. IN_DELETE_SELF would come only after we have closed it.
        inotify.add_watch(
            log,
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF,
        )?;
        // SAFETY: `Events` owns the descriptor, always returns the same one, and closes it only
        // when it is dropped.
        Ok(Self(unsafe { AsyncFd::register(Events(inotify)) }?))
    }
}

/// Waits for a write. Waits for ever without a trigger.
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
