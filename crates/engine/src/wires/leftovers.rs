//! What devices leave that are being replaced by others of another kind, in memory and on disk
//! alike. The planner decides what is kept and what is dropped.
//!
//! It is on disk before the first of them is deleted, and until the others have it, so that an
//! agent's death in between takes nothing from the pods. Where no device changes its kind, nothing
//! is written.

use ratchet_model::{
    LinkId,
    leftover::{Leftover, LeftoverChanges, Leftovers},
};

use crate::state::StateDir;

/// The leftovers that are kept.
pub(super) struct LeftoverStore {
    dir: StateDir,
    kept: Leftovers,
}

impl LeftoverStore {
    /// What an agent before us has kept.
    pub fn load(dir: StateDir) -> Self {
        let kept = dir.load_leftovers().into_iter().collect();
        Self { dir, kept }
    }

    /// What a plan is to know of.
    pub fn kept(&self) -> &Leftovers {
        &self.kept
    }

    /// Keeps what a plan is about to take away. The pods get their devices even when it cannot be
    /// written down: it is only needed if we die.
    pub fn remember(&mut self, changes: &LeftoverChanges) {
        if self.kept.remember(changes) {
            self.save();
        }
    }

    /// Drops what is of no use after a plan was executed, and what sandboxes had that are not known
    /// any more.
    pub fn finish(
        &mut self,
        changes: &LeftoverChanges,
        has_failed: impl Fn(LinkId) -> bool,
        is_needed: impl Fn(&Leftover) -> bool,
    ) {
        let finished = self.kept.finish(changes, has_failed);
        if self.kept.retain(is_needed) || finished {
            self.save();
        }
    }

    /// Drops all others.
    pub fn retain(&mut self, is_needed: impl Fn(&Leftover) -> bool) {
        if self.kept.retain(is_needed) {
            self.save();
        }
    }

    fn save(&self) {
        let all: Vec<&Leftover> = self.kept.iter().collect();
        if let Err(error) = self.dir.save_leftovers(&all) {
            tracing::warn!(%error, "cannot write down what devices have that are being replaced");
        }
    }
}
