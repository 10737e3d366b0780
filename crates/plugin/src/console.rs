//! stderr: what a person who looks should know and CNI has no place for.
//!
//! Runtimes show it only when the call succeeds, so nothing that explains a failure belongs here
//! alone.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

/// A stderr to which the embedded plugins' is copied, too.
#[derive(Clone)]
pub(crate) struct Console(Arc<Mutex<dyn Write + Send>>);

impl Console {
    pub fn new(stderr: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(stderr)))
    }

    /// Writes a line. Nobody fails because stderr is gone.
    pub fn warn(&self, text: impl std::fmt::Display) {
        let line = format!("ratchet: warning: {text}\n");
        let _ = self.clone().write_all(line.as_bytes());
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.lock() {
            Ok(mut stderr) => stderr.write(bytes),
            // Whoever panicked while writing has said enough.
            Err(_) => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().map_or(Ok(()), |mut stderr| stderr.flush())
    }
}
