//! Which point an agent is to die at, and which it has passed; see `ratchet_failpoint`.

use std::{fs, path::PathBuf};

/// The file that an agent counts in.
pub struct Script {
    path: PathBuf,
}

/// What came of it.
pub struct Played {
    /// The points that were passed, in order.
    pub passed: Vec<String>,
    pub has_died: bool,
}

impl Script {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// From here on points are counted; the process dies at this one (0: at none).
    pub fn begin(&self, death: usize) {
        // In place at once, so that no agent finds it half written.
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, format!("{death}\n")).unwrap();
        fs::rename(&fresh, &self.path).unwrap();
    }

    /// Nothing is counted any more.
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
