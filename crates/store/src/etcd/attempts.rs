//! Trying again when somebody else was faster.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::{self, Instant};

use crate::StoreError;

/// Somebody's attempt succeeds at every round, so that it takes very many writers to need this
/// long.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The longest pause before an attempt.
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// A row of attempts, with longer and longer pauses of random length, lest all try again at the
/// same moment.
pub(super) struct Attempts {
    deadline: Instant,
    pause: Duration,
}

impl Attempts {
    /// Before the first.
    pub(super) fn new() -> Self {
        Self {
            deadline: Instant::now() + TIMEOUT,
            pause: Duration::from_millis(1),
        }
    }

    /// After one that failed.
    pub(super) async fn failed(&mut self, url: &str) -> Result<(), StoreError> {
        if Instant::now() > self.deadline {
            return Err(StoreError::Unavailable(format!(
                "store {url}: others have changed the same keys at every attempt for {} s; trying \
                 again later",
                TIMEOUT.as_secs()
            )));
        }
        // A hasher's keys are the standard library's only source of randomness.
        let random = RandomState::new().hash_one(());
        #[expect(clippy::cast_precision_loss, reason = "any number will do")]
        time::sleep(self.pause.mul_f64(random as f64 / u64::MAX as f64)).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}
