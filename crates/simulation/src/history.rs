//! A history: a cluster and what happens to it, from the first event to the end of the last pod.

use std::{fmt, time::Instant};

use crate::{
    cluster::{Cluster, Figures},
    event::Event,
    points::without_panic,
};

/// What happens to a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// How many nodes it has.
    pub nodes: usize,
    /// Whether agents hear of all pods of their node when they start.
    pub kubernetes: bool,
    /// What happens.
    pub events: Vec<Event>,
}

/// What came of a history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// What has happened.
    pub figures: Figures,
    /// Frames that were followed.
    pub frames: u64,
    /// Of these, those that went astray because the store had lost everything.
    pub by_lost_tunnels: u64,
    /// A number that two runs of one history have in common.
    pub digest: u64,
}

/// What kind of thing went wrong. A history is shrunk to one that goes wrong in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A frame arrived at an end of another link.
    FrameAstray,
    /// A link that must be up does not carry frames.
    LinkDown,
    /// An end does not have the addresses that were declared.
    WrongAddresses,
    /// An end does not have the MTU that was declared.
    WrongMtu,
    /// An end has lost the index that it was promised to keep.
    IndexLost,
    /// A device that is not Ratchet's was touched.
    StrangerTouched,
    /// There is a device of Ratchet's that nobody wants.
    DeviceLeft,
    /// The store has what it must not have, or has not what it must have.
    WrongStore,
    /// A source filter stops what a tunnel needs, or lets through what nothing needs.
    WrongFilter,
    /// A file was left in a state directory.
    FileLeft,
    /// An ADD fails for what another pod declares.
    AddFails,
    /// A DEL fails although there is no fault.
    DelFails,
    /// An agent panicked.
    Panic,
    /// The agents always have something to do.
    Endless,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Of what kind it is.
    pub kind: Kind,
    /// What it is.
    pub text: String,
}

impl Wrong {
    /// Something of this kind.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

/// What went wrong, and at which event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The event, from 0 up; all events: at the end, when all pods go.
    pub event: usize,
    /// What.
    pub wrong: Wrong,
}

impl History {
    /// Lets it happen.
    ///
    /// # Errors
    /// What went wrong first.
    pub fn run(&self) -> Result<Outcome, Violation> {
        without_panic(|| self.run_all()).unwrap_or_else(|text| {
            Err(Violation {
                event: self.events.len(),
                wrong: Wrong::new(Kind::Panic, text),
            })
        })
    }

    fn run_all(&self) -> Result<Outcome, Violation> {
        let mut cluster = Cluster::new(self.nodes, self.kubernetes);
        for (event, happening) in self.events.iter().enumerate() {
            let applied = cluster.apply(happening);
            no_violation(&cluster, applied).map_err(|wrong| Violation { event, wrong })?;
        }
        let finished = cluster.finish();
        no_violation(&cluster, finished).map_err(|wrong| Violation {
            event: self.events.len(),
            wrong,
        })?;
        let (frames, by_lost_tunnels) = {
            let frames = cluster.frames.lock();
            (frames.followed, frames.by_lost_tunnels)
        };
        Ok(Outcome {
            figures: cluster.figures,
            frames,
            by_lost_tunnels,
            digest: cluster.digest(),
        })
    }

    /// Leaves out what the violation does not need; a history without one stays as it is.
    pub fn shrink(&self, deadline: Instant) -> Self {
        let mut shrunk = self.clone();
        let Err(Violation { event, wrong }) = self.run() else {
            return shrunk;
        };
        let fails = |history: &Self| {
            let result = history.run();
            Instant::now() < deadline && result.is_err_and(|found| found.wrong.kind == wrong.kind)
        };
        shrunk.events.truncate(event.saturating_add(1));
        let mut portion = shrunk.events.len().div_ceil(2);
        while portion > 0 {
            let mut at = 0;
            while at < shrunk.events.len() {
                let mut less = shrunk.clone();
                less.events.drain(at..(at + portion).min(less.events.len()));
                if fails(&less) {
                    shrunk = less;
                } else {
                    at += portion;
                }
            }
            portion /= 2;
        }
        shrunk.without_turns(fails)
    }

    fn without_turns(mut self, fails: impl Fn(&Self) -> bool) -> Self {
        for at in 0..self.events.len() {
            let mut turn = 0;
            while turn < self.events[at].turns.len() {
                let mut less = self.clone();
                less.events[at].turns.remove(turn);
                if fails(&less) {
                    self = less;
                } else {
                    turn += 1;
                }
            }
        }
        self
    }
}

fn no_violation(cluster: &Cluster, applied: Result<(), Wrong>) -> Result<(), Wrong> {
    if let Some(violation) = cluster.frames.lock().violation.clone() {
        return Err(Wrong::new(Kind::FrameAstray, violation));
    }
    match cluster.network.lock().unguarded.clone() {
        Some(text) => Err(Wrong::new(Kind::WrongFilter, text)),
        None => cluster.wrong_add.clone().map_or(applied, Err),
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kubernetes = if self.kubernetes { "with" } else { "without" };
        writeln!(f, "{} nodes, {kubernetes} Kubernetes", self.nodes)?;
        for (number, event) in self.events.iter().enumerate() {
            writeln!(f, "{number:4}  {event}")?;
        }
        Ok(())
    }
}
