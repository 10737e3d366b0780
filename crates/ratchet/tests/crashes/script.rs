//! The point at which an agent crashes, and the points that it has passed; see `ratchet_failpoint`.

use std::{fs, path::PathBuf};

/// The file in which an agent counts points.
pub struct Script {
    path: PathBuf,
}

/// What an operation has done.
pub struct Played {
    /// The points that were passed, in order.
    pub passed: Vec<String>,
    pub has_crashed: bool,
}

impl Script {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Starts the counting. The process crashes at the point of this number (0: at none).
    pub fn begin(&self, crash_at: usize) {
        // Replaced in one step, so that no agent reads half of it.
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, format!("{crash_at}\n")).unwrap();
        fs::rename(&fresh, &self.path).unwrap();
    }

    /// Ends the counting. Returns the names of the points that were passed.
    pub fn end(&self) -> Vec<String> {
        let done = self.path.with_extension("done");
        fs::rename(&self.path, &done).unwrap();
        fs::read_to_string(done)
            .unwrap()
            .lines()
            .skip(1)
            .map(str::to_owned)
            .collect()
    }
}
