//! What devices leave that are being replaced by others of another kind, in memory and on disk
//! alike.
//!
//! It is on disk before the first of them is deleted, and until the others have it, so that an
//! agent's death in between takes nothing from the pods. Where no device changes its kind, nothing
//! is written.

use std::collections::BTreeMap;

use ratchet_model::{LinkId, SandboxId, device::Wanted, leftover::Leftover, link::End};

use crate::state::StateDir;

/// What is yet to be given to the devices in their place.
pub(super) struct Leftovers {
    dir: StateDir,
    left: BTreeMap<(LinkId, End, SandboxId), Leftover>,
}

impl Leftovers {
    /// What an agent before us has left.
    pub fn load(dir: StateDir) -> Self {
        let left = dir
            .load_leftovers()
            .into_iter()
            .map(|leftover| (key(&leftover), leftover))
            .collect();
        Self { dir, left }
    }

    /// Tells the wanted ends what is theirs.
    pub fn hand_out(&self, wanted: &mut [Wanted]) {
        if self.left.is_empty() {
            return;
        }
        for end in wanted.iter_mut().flat_map(Wanted::ends_mut) {
            if let Some(sandbox) = end.alias.sandbox.clone() {
                end.leftover = self
                    .left
                    .get(&(end.alias.link, end.alias.end, sandbox))
                    .cloned();
            }
        }
    }

    /// Notes what is about to be deleted. The pods get their devices even when it cannot be written
    /// down: it is only needed if we die.
    pub fn keep(&mut self, leftovers: &[Leftover]) {
        let before = self.left.clone();
        self.left.extend(
            leftovers
                .iter()
                .map(|leftover| (key(leftover), leftover.clone())),
        );
        if self.left != before {
            self.save();
        }
    }

    /// Forgets what is of no use any more.
    pub fn retain(&mut self, is_needed: impl Fn(&Leftover) -> bool) {
        let before = self.left.len();
        self.left.retain(|_, leftover| is_needed(leftover));
        if self.left.len() != before {
            self.save();
        }
    }

    fn save(&self) {
        if let Err(error) = self
            .dir
            .save_leftovers(&self.left.values().collect::<Vec<_>>())
        {
            tracing::warn!(%error, "cannot write down what devices have that are being replaced");
        }
    }
}

fn key(leftover: &Leftover) -> (LinkId, End, SandboxId) {
    (leftover.link, leftover.end, leftover.sandbox.clone())
}
