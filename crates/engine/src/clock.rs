//! What time it is. The simulation has a clock of its own.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::BoxFuture;

/// A clock.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Never goes back; for deadlines.
    fn now(&self) -> Instant;

    /// Nanoseconds since 1970, as far as the node knows; may jump.
    fn unix_nanos(&self) -> u64;

    /// Completes after this long: a call to the store that has not completed by then is abandoned.
    /// It is polled within the engine's runtime, after the call. A simulation, in which nothing
    /// else can make the call complete, completes at once and lets its time pass.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_nanos(&self) -> u64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        // Made when it is polled: only then there is sure to be a runtime.
        Box::pin(async move { tokio::time::sleep(duration).await })
    }
}
