//! How the controller is, for probes and metrics. Nothing here asks the API.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use ratchet_api::{ACCEPTED, EndState, Link};
use ratchet_health::{Health, Kind, Metrics, Verdict};
use tokio::time::Instant;

/// The Lease is looked at every two seconds, and the API may take some more for an answer. A loop
/// that has not come by for so long does not go on.
const SILENCE: Duration = Duration::from_secs(60);

/// How long one round of planning and writing may take: each of its requests has ten seconds, and
/// a Lease that cannot be renewed meanwhile ends the process.
pub(crate) const ROUND: Duration = Duration::from_secs(180);

/// A controller that waits is ready to lead if the API has shown it the Lease within this time.
const RECENTLY: Duration = Duration::from_secs(30);

/// What the controller's loops tell of themselves.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// When the loop of the Lease has come by.
    beat: Instant,
    /// When the API has shown the Lease, or let it be written.
    lease: Option<Instant>,
    leads: bool,
    /// By when the loop that plans and writes comes by again.
    promised: Option<Instant>,
    /// Whether all kinds have been listed.
    is_synced: bool,
    numbers: Numbers,
}

/// What the loop that plans and writes has found and done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Numbers {
    pub links: Links,
    /// How long the last plan took.
    pub planned: Duration,
    pub writes: u64,
    pub failures: u64,
}

/// How many Links are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Links {
    up: usize,
    pending: usize,
    failed: usize,
}

impl Links {
    /// Counts Links.
    pub fn of<'l>(links: impl Iterator<Item = &'l Link>) -> Self {
        let mut counts = Self::default();
        for link in links {
            let status = link.status.as_ref();
            let ends = status.map_or([None, None], |status| {
                [&status.a, &status.b].map(Option::as_ref)
            });
            let has = |state| {
                ends.iter()
                    .flatten()
                    .filter(|end| end.state == state)
                    .count()
            };
            let conditions = status.map_or(&[][..], |status| &status.conditions);
            let is_refused = conditions
                .iter()
                .any(|condition| condition.type_ == ACCEPTED && condition.status == "False");
            match is_refused || has(EndState::Failed) > 0 {
                true => counts.failed += 1,
                false if has(EndState::Up) == 2 => counts.up += 1,
                false => counts.pending += 1,
            }
        }
        counts
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            beat: Instant::now(),
            lease: None,
            leads: false,
            promised: None,
            is_synced: false,
            numbers: Numbers::default(),
        })))
    }
}

impl Pulse {
    /// The loop of the Lease comes by.
    pub fn beat(&self) {
        self.state().beat = Instant::now();
    }

    /// The API has shown the Lease.
    pub fn saw_lease(&self) {
        self.state().lease = Some(Instant::now());
    }

    /// This controller leads from now on.
    pub fn lead(&self) {
        self.state().leads = true;
    }

    /// All kinds have been listed.
    pub fn synced(&self) {
        self.state().is_synced = true;
    }

    /// The loop that plans and writes comes by again within this time.
    pub fn promise(&self, time: Duration) {
        self.state().promised = Some(Instant::now() + time);
    }

    /// What that loop has found and done.
    pub fn tell(&self, numbers: Numbers) {
        self.state().numbers = numbers;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Health for Pulse {
    async fn live(&self) -> Verdict {
        let state = self.state();
        if state.beat.elapsed() > SILENCE {
            return Err("the loop of the Lease does not go on".to_owned());
        }
        match state.promised {
            Some(promised) if promised < Instant::now() => {
                Err("the loop that plans and writes does not go on".to_owned())
            }
            _ => Ok(()),
        }
    }

    async fn ready(&self) -> Verdict {
        self.live().await?;
        let state = self.state();
        let is_recent = state.lease.is_some_and(|seen| seen.elapsed() <= RECENTLY);
        match state.leads {
            true if state.is_synced => Ok(()),
            true => Err("leading, and not all kinds of objects have been listed yet".to_owned()),
            false if is_recent => Ok(()),
            false => Err("waiting, and the API does not show the Lease".to_owned()),
        }
    }

    async fn metrics(&self) -> Metrics {
        let state = self.state();
        let mut metrics = Metrics::default();
        let about = "Whether this controller leads";
        metrics.one(Kind::Gauge, "ratchet_leader", about, u8::from(state.leads));
        if state.leads {
            tell(&state.numbers, &mut metrics);
        }
        metrics
    }
}

fn tell(numbers: &Numbers, metrics: &mut Metrics) {
    let Links {
        up,
        pending,
        failed,
    } = numbers.links;
    let links = [("up", up), ("pending", pending), ("error", failed)];
    let about = "Links of the cluster";
    metrics.each(Kind::Gauge, "ratchet_links", about, ("state", links));
    let about = "How long the last plan took";
    let name = "ratchet_plan_duration_seconds";
    let planned = numbers.planned.as_secs_f64();
    metrics.one(Kind::Gauge, name, about, planned);
    let about = "Objects and statuses that were written";
    metrics.one(Kind::Counter, "ratchet_writes_total", about, numbers.writes);
    let about = "Attempts to write that have failed, or were refused";
    let name = "ratchet_write_failures_total";
    metrics.one(Kind::Counter, name, about, numbers.failures);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_go_on_is_seen() {
        let pulse = Pulse::default();
        assert_eq!(pulse.live().await, Ok(()));
        tokio::time::advance(SILENCE + Duration::from_secs(1)).await;
        assert!(pulse.live().await.is_err());
        pulse.beat();
        pulse.promise(Duration::from_secs(10));
        assert_eq!(pulse.live().await, Ok(()));
        tokio::time::advance(Duration::from_secs(11)).await;
        pulse.beat();
        assert!(pulse.live().await.is_err(), "a promise was not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_needs_the_lease_and_who_leads_needs_all_objects() {
        let pulse = Pulse::default();
        assert!(pulse.ready().await.is_err());
        pulse.saw_lease();
        assert_eq!(pulse.ready().await, Ok(()));
        tokio::time::advance(RECENTLY + Duration::from_secs(1)).await;
        assert!(pulse.ready().await.is_err());
        pulse.saw_lease();
        pulse.lead();
        assert!(pulse.ready().await.is_err());
        pulse.synced();
        assert_eq!(pulse.ready().await, Ok(()));
    }
}
