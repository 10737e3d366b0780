//! stderr: what a person should know and CNI has no field for.
//!
//! Runtimes show it only when the call succeeds, so the reason of a failure must not be here only.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

/// A stderr, shared with the embedded plugins.
#[derive(Clone)]
pub(crate) struct Console(Arc<Mutex<dyn Write + Send>>);

impl Console {
    pub fn new(stderr: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(stderr)))
    }

    /// Writes a line. If stderr is closed, that is no failure.
    pub fn warn(&self, text: impl std::fmt::Display) {
        let line = format!("ratchet: warning: {text}\n");
        let _ = self.clone().write_all(line.as_bytes());
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.lock() {
            Ok(mut stderr) => stderr.write(bytes),
            // A thread panicked while it wrote. Drop the text.
            Err(_) => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().map_or(Ok(()), |mut stderr| stderr.flush())
    }
}
