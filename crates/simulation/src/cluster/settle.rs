//! Everything comes to its end: faults are over, the runtime deletes what must be deleted, and the
//! agents work until none of them has anything to do.

use std::time::Duration;

use super::{Cluster, State};
use crate::{
    history::{Kind, Wrong},
    oracle,
};

/// Longer than the longest time between two resyncs, and than an agent believes in what the store
/// has lost.
const LONG: Duration = Duration::from_secs(700);

/// Longer than an agent waits before it tries again for the first times.
const SHORT: Duration = Duration::from_secs(5);

/// So many turns without an end mean that there is none.
const ENDLESS: usize = 20_000;

/// So often a DEL is tried again.
const ATTEMPTS: usize = 4;

impl Cluster {
    /// Settles, and asks the oracle.
    pub(super) fn settle(&mut self) -> Result<(), Wrong> {
        self.end_faults();
        self.work()?;
        self.delete_superseded()?;
        for pause in [SHORT, LONG, LONG] {
            self.advance(pause);
            self.work()?;
        }
        let links = oracle::check(self)?;
        self.network.lock().filters_have_settled();
        self.figures.links += links;
        Ok(())
    }

    /// Deletes all pods; nothing may be left.
    ///
    /// # Errors
    /// What is left, or does not come to an end.
    pub fn finish(&mut self) -> Result<(), Wrong> {
        self.settle()?;
        self.delete(|_, _| true)?;
        for pause in [SHORT, LONG] {
            self.advance(pause);
            self.work()?;
        }
        oracle::check(self)?;
        oracle::check_empty(self)
    }

    fn end_faults(&mut self) {
        for node in 0..self.nodes.len() {
            self.files(node).set_full(false);
            self.heal(node);
            if let Some(agent) = &self.nodes[node].agent {
                agent.points().disarm();
            }
            self.start(node, None);
        }
    }

    /// The runtime deletes all sandboxes of a pod but its newest, and that as well unless it lives
    /// and is sure to be the newest.
    fn delete_superseded(&mut self) -> Result<(), Wrong> {
        self.delete(|cluster, at| {
            let sandbox = &cluster.sandboxes[at];
            let is_newest = cluster.newest_at(sandbox.pod) == Some(at) && !sandbox.is_unsure;
            !(is_newest && sandbox.lives(&cluster.network.lock()))
        })
    }

    fn delete(&mut self, is_doomed: impl Fn(&Self, usize) -> bool) -> Result<(), Wrong> {
        for _ in 0..ATTEMPTS {
            let doomed: Vec<usize> = (0..self.sandboxes.len())
                .filter(|at| !matches!(self.sandboxes[*at].state, State::Gone))
                .filter(|at| is_doomed(self, *at))
                .collect();
            if doomed.is_empty() {
                return Ok(());
            }
            doomed.into_iter().for_each(|at| self.del(at));
            self.work()?;
            self.advance(SHORT);
            self.work()?;
        }
        let left = self
            .sandboxes
            .iter()
            .filter(|sandbox| matches!(sandbox.state, State::Failed | State::Leaving(_)))
            .map(|sandbox| sandbox.id.to_string());
        let left: Vec<String> = left.collect();
        if left.is_empty() {
            return Ok(());
        }
        let text = format!("DEL fails again and again: {}", left.join(", "));
        Err(Wrong::new(Kind::DelFails, text))
    }

    /// All agents work until none has anything to do.
    fn work(&mut self) -> Result<(), Wrong> {
        let mut turns = 0;
        let mut idle = 0;
        while idle < self.nodes.len() {
            idle = 0;
            for node in 0..self.nodes.len() {
                if self.turn(node) {
                    turns += 1;
                } else {
                    idle += 1;
                }
            }
            if turns > ENDLESS {
                let text = format!("the agents work without end ({turns} turns)");
                return Err(Wrong::new(Kind::Endless, text));
            }
        }
        Ok(())
    }
}
