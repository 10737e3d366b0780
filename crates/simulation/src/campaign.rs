//! Many histories, on all cores.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    generate,
    history::{History, Outcome, Violation},
};

/// How long a history that failed is shrunk.
const SHRINK: Duration = Duration::from_secs(60);

/// Which histories to run.
#[derive(Debug, Clone, Copy)]
pub struct Campaign {
    /// The seed of the first history; the others have the next ones.
    pub seed: u64,
    /// How many histories.
    pub histories: u64,
    /// How many events each of them has.
    pub events: usize,
}

/// What came of all histories.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Histories.
    pub histories: u64,
    /// Events.
    pub events: u64,
    /// What happened in all of them.
    pub sum: Outcome,
    /// Histories in which a frame went astray by a tunnel of a link that had ended.
    pub with_lost_tunnels: u64,
    /// How long it took.
    pub took: Duration,
}

/// A history that failed.
#[derive(Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What went wrong.
    pub violation: Violation,
    /// What is left of it when all is left out that the violation does not need.
    pub shrunk: History,
    /// What goes wrong then.
    pub then: String,
}

impl Campaign {
    /// Runs all histories, or until one fails.
    ///
    /// # Errors
    /// The history that failed, shrunk.
    pub fn run(&self) -> Result<Report, Box<Failure>> {
        let begun = Instant::now();
        let next = AtomicU64::new(0);
        let report = Mutex::new(Report::default());
        let failed: Mutex<Option<(u64, Violation)>> = Mutex::new(None);
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.histories {
                    return;
                }
                let seed = self.seed + number;
                match generate::history(seed, self.events).run() {
                    Ok(outcome) => locked(&report).add(self.events, &outcome),
                    Err(violation) => {
                        locked(&failed).get_or_insert((seed, violation));
                        next.store(self.histories, Ordering::Relaxed);
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        if let Some((seed, violation)) = locked(&failed).take() {
            return Err(self.shrink(seed, violation));
        }
        let report = *locked(&report);
        Ok(Report {
            took: begun.elapsed(),
            ..report
        })
    }

    fn shrink(&self, seed: u64, violation: Violation) -> Box<Failure> {
        let history = generate::history(seed, self.events);
        let shrunk = history.shrink(Instant::now() + SHRINK);
        let then = shrunk
            .run()
            .err()
            .map_or_else(String::new, |violation| violation.wrong.text);
        Box::new(Failure {
            seed,
            violation,
            shrunk,
            then,
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Report {
    fn add(&mut self, events: usize, outcome: &Outcome) {
        self.histories += 1;
        self.events += events as u64;
        self.sum.frames += outcome.frames;
        self.sum.by_lost_tunnels += outcome.by_lost_tunnels;
        self.sum.figures.crashes += outcome.figures.crashes;
        self.sum.figures.turns += outcome.figures.turns;
        self.sum.figures.links += outcome.figures.links;
        self.with_lost_tunnels += u64::from(outcome.by_lost_tunnels > 0);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.sum.figures;
        writeln!(f, "histories:       {}", self.histories)?;
        writeln!(f, "events:          {}", self.events)?;
        let rate = self.events as f64 / self.took.as_secs_f64();
        writeln!(f, "events a second: {rate:.0}")?;
        writeln!(f, "turns of agents: {}", figures.turns)?;
        writeln!(f, "crashes:         {}", figures.crashes)?;
        writeln!(f, "frames checked:  {}", self.sum.frames)?;
        writeln!(f, "links found up:  {}", figures.links)?;
        write!(
            f,
            "frames astray after the store lost everything: {}, in {} histories",
            self.sum.by_lost_tunnels, self.with_lost_tunnels
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.violation.wrong.text)?;
        writeln!(f, "at event {}. Shrunk:", self.violation.event)?;
        write!(f, "{}", self.shrunk)?;
        writeln!(f, "{}", self.then)?;
        write!(
            f,
            "once more: make simulate SEED={} EVENTS={}",
            self.seed,
            generate::EVENTS
        )
    }
}
