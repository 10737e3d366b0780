//! The virtual clock, which all agents of a history share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use ratchet_engine::Clock;

/// The nanoseconds since 1970 at which every history begins.
const BEGIN: u64 = 1_800_000_000_000_000_000;

/// A clock that only moves when it is told to.
#[derive(Debug, Clone)]
pub struct VirtualClock {
    base: Instant,
    passed: Arc<AtomicU64>,
    /// How often somebody asked what time it is: no two nodes read the same nanosecond.
    asked: Arc<AtomicU64>,
}

impl VirtualClock {
    /// A clock at the beginning.
    #[allow(
        clippy::new_without_default,
        reason = "each clock is another one, which a default does not suggest"
    )]
    pub fn new() -> Self {
        Self {
            base: Instant::now(),
            passed: Arc::default(),
            asked: Arc::default(),
        }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.passed.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The time since the beginning.
    pub fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed.load(Ordering::Relaxed))
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        self.base + self.passed()
    }

    fn unix_nanos(&self) -> u64 {
        BEGIN + self.passed.load(Ordering::Relaxed) + self.asked.fetch_add(1, Ordering::Relaxed)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(async move { clock.advance(duration) })
    }
}
