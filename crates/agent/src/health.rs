//! How the agent is, for probes and metrics. It asks the engine, one question at a time, and never
//! the Kubernetes API or the store.

use std::time::Duration;

use async_trait::async_trait;
use ratchet_engine::{Command, Commands, StoreHealth, Vitals};
use ratchet_health::{Health, Kind, Metrics, Verdict};
use ratchet_install::Readiness;
use tokio::{
    sync::{Mutex, MutexGuard, oneshot},
    time::{Instant, timeout},
};

/// The engine may be busy for so long: it works through its first resync in one go, and waits for a
/// store up to 30 s. An agent that is silent for longer is to be started again.
const SILENCE: Duration = Duration::from_secs(60);

/// How long an answer is waited for. A busy engine answers later; until then, what it said last
/// counts.
const WAIT: Duration = Duration::from_millis(300);

/// Asks the engine.
pub(crate) struct AgentHealth {
    engine: Commands,
    /// Whether the store that was chosen says what pods declare, and so is opened at once.
    needs_store: bool,
    /// How far the installation is, if there is one. Before, pods would start without links.
    installed: Option<Readiness>,
    pulse: Mutex<Pulse>,
}

#[derive(Default)]
struct Pulse {
    /// A question without an answer, and since when.
    asked: Option<(Instant, oneshot::Receiver<Vitals>)>,
    last: Option<Vitals>,
    /// For how long the engine owes an answer; `None`: its thread has ended.
    silent: Option<Duration>,
}

impl AgentHealth {
    pub fn new(engine: Commands, needs_store: bool, installed: Option<Readiness>) -> Self {
        Self {
            engine,
            needs_store,
            installed,
            pulse: Mutex::default(),
        }
    }

    /// Asks, unless an answer is owed already, and waits a moment.
    async fn ask(&self) -> MutexGuard<'_, Pulse> {
        let mut guard = self.pulse.lock().await;
        let pulse = &mut *guard;
        let (since, answer) = pulse.asked.get_or_insert_with(|| {
            let (answer, receiver) = oneshot::channel();
            // An engine that has ended drops the question: that is seen below.
            let _ = self.engine.send(Command::Vitals(answer));
            (Instant::now(), receiver)
        });
        match timeout(WAIT, answer).await {
            Ok(answer) => {
                pulse.asked = None;
                pulse.silent = answer.is_ok().then_some(Duration::ZERO);
                pulse.last = answer.ok().or(pulse.last.take());
            }
            Err(_) => pulse.silent = Some(since.elapsed()),
        }
        guard
    }
}

#[async_trait]
impl Health for AgentHealth {
    async fn live(&self) -> Verdict {
        judge_life(self.ask().await.silent)
    }

    async fn ready(&self) -> Verdict {
        let pulse = self.ask().await;
        judge_life(pulse.silent)?;
        self.installed.as_ref().map_or(Ok(()), Readiness::get)?;
        judge_readiness(pulse.last.as_ref(), self.needs_store)
    }

    async fn metrics(&self) -> Metrics {
        let pulse = self.ask().await;
        let mut metrics = Metrics::default();
        if let Some(vitals) = &pulse.last {
            tell(vitals, &mut metrics);
        }
        metrics
    }
}

fn judge_life(silent: Option<Duration>) -> Verdict {
    match silent {
        None => Err("the engine has ended".to_owned()),
        Some(silent) if silent > SILENCE => {
            let seconds = silent.as_secs();
            Err(format!("the engine has not answered for {seconds} s"))
        }
        Some(_) => Ok(()),
    }
}

fn judge_readiness(vitals: Option<&Vitals>, needs_store: bool) -> Verdict {
    let Some(vitals) = vitals else {
        return Err("the agent is starting".to_owned());
    };
    if vitals.has_store_trouble {
        return Err("the store is offline, or cannot be used".to_owned());
    }
    match &vitals.store {
        None if needs_store => Err("the store has not been opened yet".to_owned()),
        Some(StoreHealth {
            unready: Some(why), ..
        }) => Err((*why).to_owned()),
        _ => Ok(()),
    }
}

fn tell(vitals: &Vitals, metrics: &mut Metrics) {
    let links = [
        ("up", vitals.up),
        ("pending", vitals.pending),
        ("error", vitals.failed),
    ];
    let about = "Links with an end on this node";
    metrics.each(Kind::Gauge, "ratchet_links", about, ("state", links));
    if let Some(took) = vitals.resync {
        let about = "How long the last look at everything took";
        let name = "ratchet_resync_duration_seconds";
        metrics.one(Kind::Gauge, name, about, took.as_secs_f64());
    }
    let about = "Whether the store is offline, or cannot be used";
    let trouble = u8::from(vitals.has_store_trouble);
    metrics.one(Kind::Gauge, "ratchet_store_offline", about, trouble);
    if let Some(store) = &vitals.store {
        let about = "Statuses that the store kubernetes has written";
        metrics.one(Kind::Counter, "ratchet_writes_total", about, store.writes);
        let about = "Attempts to write a status that have failed, or were refused";
        let name = "ratchet_write_failures_total";
        metrics.one(Kind::Counter, name, about, store.failures);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_busy_engine_lives_and_a_silent_or_dead_one_does_not() {
        let (engine, asked) = mpsc::channel();
        let health = AgentHealth::new(engine, false, None);
        assert_eq!(health.live().await, Ok(()));
        assert!(health.ready().await.is_err(), "it has said nothing yet");
        tokio::time::advance(SILENCE - Duration::from_secs(1)).await;
        assert_eq!(health.live().await, Ok(()));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(health.live().await.is_err());
        let Ok(Command::Vitals(answer)) = asked.try_recv() else {
            panic!("expected a question")
        };
        assert!(asked.try_recv().is_err(), "one question at a time");
        answer.send(Vitals::default()).unwrap();
        assert_eq!(health.ready().await, Ok(()));
        // What it said counts while it is busy with something else.
        assert_eq!(health.ready().await, Ok(()));
        drop(asked);
        assert!(health.live().await.is_err());
    }

    #[test]
    fn the_store_decides_whether_the_agent_is_ready() {
        let judge = |vitals: &Vitals, needs| judge_readiness(Some(vitals), needs).is_ok();
        let unopened = Vitals::default();
        assert!(judge(&unopened, false) && !judge(&unopened, true));
        let offline = Vitals {
            has_store_trouble: true,
            ..Vitals::default()
        };
        assert!(!judge(&offline, false));
        let of = |unready| Vitals {
            store: Some(StoreHealth {
                unready,
                ..StoreHealth::default()
            }),
            ..Vitals::default()
        };
        assert!(judge(&of(None), true) && !judge(&of(Some("why")), true));
    }
}
