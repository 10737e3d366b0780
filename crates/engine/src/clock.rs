//! What time it is. The simulation has a clock of its own.

use std::{
    fmt,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// A clock.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Never goes back; for deadlines.
    fn now(&self) -> Instant;

    /// Nanoseconds since 1970, as far as the node knows; may jump.
    fn unix_nanos(&self) -> u64;
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
}
