//! Retries when another agent was faster.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::{self, Instant};

use crate::StoreError;

/// How long to try. Each time, one of the competing writers succeeds, so only very many writers
/// need this long.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The longest pause before an attempt.
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// A series of attempts, with longer and longer pauses. Their length is random, so that not all
/// writers try again at the same time.
pub(super) struct Attempts {
    deadline: Instant,
    pause: Duration,
}

impl Attempts {
    /// Before the first attempt.
    pub(super) fn new() -> Self {
        Self {
            deadline: Instant::now() + TIMEOUT,
            pause: Duration::from_millis(1),
        }
    }

    /// Waits after a failed attempt. Fails when the time is over.
    pub(super) async fn failed(&mut self, url: &str) -> Result<(), StoreError> {
        if Instant::now() > self.deadline {
            return Err(StoreError::Unavailable(format!(
                "store {url}: other agents have changed the same keys at every attempt for {} s; \
                 trying again later",
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
