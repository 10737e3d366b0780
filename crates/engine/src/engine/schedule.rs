//! When to look at everything again: the resync's period, and the back-off after failures.

use std::time::{Duration, Instant};

/// How often to look at everything although nothing has happened.
const PERIOD: Duration = Duration::from_secs(60);

/// A resync takes at most one part in so many of the time of one core: where there is much to look
/// at it is done less often, though at least every [`LONGEST_PERIOD`]. (10,000 links: 0.25 to 0.3
/// s, so every ten minutes.)
const REST: u32 = 2500;

/// At the latest after this long, changes that others made to our devices are noticed and
/// corrected, however much there is to look at.
const LONGEST_PERIOD: Duration = Duration::from_secs(600);

/// How long after a failure to try again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), PERIOD);

/// When the next resync is due.
#[derive(Debug)]
pub(super) struct Schedule {
    next: Instant,
    retry: Duration,
    last_took: Option<Duration>,
}

impl Schedule {
    /// A resync is due at once.
    pub fn new(now: Instant) -> Self {
        Self {
            next: now,
            retry: RETRY.0,
            last_took: None,
        }
    }

    /// How long the last resync took.
    pub fn last_took(&self) -> Option<Duration> {
        self.last_took
    }

    /// When the next resync is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// A resync begins. A failure from here on brings the next one forward.
    pub fn begin(&mut self, now: Instant) {
        self.next = now + LONGEST_PERIOD;
    }

    /// Something has to be tried again soon: later each time, until a resync succeeds.
    pub fn retry(&mut self, now: Instant) {
        self.next = self.next.min(now + self.retry);
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    /// A resync is through, which took this long.
    pub fn end(&mut self, succeeded: bool, took: Duration, now: Instant) {
        let pause = (took * REST).clamp(PERIOD, LONGEST_PERIOD);
        self.next = self.next.min(now + pause);
        self.last_took = Some(took);
        if succeeded {
            self.retry = RETRY.0;
        } else {
            self.retry(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_tried_again_later_each_time_until_a_resync_succeeds() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        let mut waits = Vec::new();
        for _ in 0..9 {
            schedule.begin(now);
            schedule.end(false, Duration::ZERO, now);
            waits.push((schedule.next() - now).as_millis());
        }
        let expected = [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000];
        assert_eq!(waits, expected);
        schedule.begin(now);
        schedule.end(true, Duration::ZERO, now);
        assert_eq!(schedule.next(), now + PERIOD);
        schedule.retry(now);
        assert_eq!(schedule.next(), now + RETRY.0);
    }

    #[test]
    fn a_long_resync_is_done_less_often() {
        let now = Instant::now();
        for (took, pause) in [(1, 60), (100, 250), (1000, 600)] {
            let mut schedule = Schedule::new(now);
            schedule.begin(now);
            schedule.end(true, Duration::from_millis(took), now);
            assert_eq!(
                schedule.next(),
                now + Duration::from_secs(pause),
                "{took} ms"
            );
        }
    }
}
