//! Runs one program as a runtime runs a plugin: writes stdin, reads both outputs, and copies
//! stderr.
//!
//! Does not know configs and results. Does not change the process' own environment, working
//! directory and streams. The calling thread must be in the node's network namespace.

use std::{
    fs,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{prctl, signal::Signal},
    unistd::{Pid, getpid, getppid},
};

use crate::{environment::Environment, error::Error, names::validate_plugin_type, pipes::Pipes};

/// How often to try to start a program that is being written, as in Go.
const BUSY_TRIES: u32 = 6;
/// The pause between these tries, as in Go.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How often to check whether a program has ended that has not closed its outputs.
const LOOK: Duration = Duration::from_millis(20);
/// How long outputs may stay open after the program has ended: a process that it left running must
/// not block the runtime.
const DRAIN_GRACE: Duration = Duration::from_secs(3);

/// How a program ended, and what it printed.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr, which is copied already.
    pub stderr: Vec<u8>,
}

/// Starts programs. One serves all calls.
#[derive(Clone)]
pub struct Executor {
    stderr: Arc<Mutex<dyn Write + Send>>,
    busy_pause: Duration,
    drain_grace: Duration,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor")
            .field("busy_pause", &self.busy_pause)
            .finish_non_exhaustive()
    }
}

impl Default for Executor {
    fn default() -> Self {
        Self::with_stderr(io::stderr())
    }
}

impl Executor {
    /// Copies the programs' stderr to this writer instead of the process' own stderr.
    pub fn with_stderr(stderr: impl Write + Send + 'static) -> Self {
        Self {
            stderr: Arc::new(Mutex::new(stderr)),
            busy_pause: BUSY_PAUSE,
            drain_grace: DRAIN_GRACE,
        }
    }

    /// The same with another pause between the tries to start a program that is being written.
    #[must_use]
    pub fn with_busy_pause(mut self, pause: Duration) -> Self {
        self.busy_pause = pause;
        self
    }

    /// Runs the program to its end. It gets this environment and inherits nothing else.
    ///
    /// The program is killed if the calling thread dies, so that it does not outlive a plugin that
    /// was killed.
    pub fn run(&self, program: &Path, env: &Environment, stdin: &[u8]) -> io::Result<Finished> {
        let mut child = self.spawn(program, env)?;
        let finished =
            Pipes::new(&mut child, stdin).and_then(|pipes| self.finish(&mut child, pipes));
        finished.inspect_err(|_| {
            // Its outputs are no longer read, so it must not go on.
            let _ = child.kill().and_then(|()| child.wait());
        })
    }

    /// Writes and reads until the program has ended, and a little longer if another process holds
    /// its outputs.
    fn finish(&self, child: &mut Child, mut pipes: Pipes) -> io::Result<Finished> {
        let mut tee = |chunk: &[u8]| {
            if let Ok(mut stderr) = self.stderr.lock() {
                // stderr is only information: if it cannot be copied, nothing fails.
                let _ = stderr.write_all(chunk);
            }
        };
        let mut ended = None;
        while pipes.is_open() && ended.is_none() {
            // A program that ends closes its pipes. This check is for processes that it left
            // running, which hold them open.
            pipes.step(LOOK, &mut tee)?;
            ended = child.try_wait()?;
        }
        let status = ended.map_or_else(|| child.wait(), Ok)?;
        pipes.close_stdin();
        let until = Instant::now() + self.drain_grace;
        while pipes.has_outputs() && Instant::now() < until {
            pipes.step(until.saturating_duration_since(Instant::now()), &mut tee)?;
        }
        let (stdout, stderr) = pipes.into_output();
        Ok(Finished {
            status,
            stdout,
            stderr,
        })
    }

    /// Writes a line to where the programs' stderr goes.
    pub(crate) fn note(&self, text: &str) {
        if let Ok(mut stderr) = self.stderr.lock() {
            // stderr is only information.
            let _ = writeln!(stderr, "{text}");
        }
    }

    fn spawn(&self, program: &Path, env: &Environment) -> io::Result<Child> {
        let mut command = Command::new(program);
        command.env_clear().envs(env.iter());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let parent = getpid();
        // SAFETY: between fork and exec only prctl and getppid are called; both are
        // async-signal-safe and neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || die_with(parent));
        }
        let mut tries = 1;
        loop {
            match command.spawn() {
                Err(error)
                    if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES =>
                {
                    tries += 1;
                    thread::sleep(self.busy_pause);
                }
                spawned => return spawned,
            }
        }
    }
}

/// Asks the kernel to kill this process when the thread that started it dies.
fn die_with(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the request was in place.
    if getppid() != parent {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}

/// The program of a plugin type: the first regular file of that name, in the order of the
/// directories.
///
/// Whether it is executable is not checked, as in Go: exec fails if not.
pub fn find_in_path(kind: &str, dirs: &[PathBuf]) -> Result<PathBuf, Error> {
    validate_plugin_type(kind)?;
    let programs = dirs
        .iter()
        .filter(|dir| !dir.as_os_str().is_empty())
        .map(|dir| dir.join(kind));
    let is_file =
        |program: &PathBuf| fs::metadata(program).is_ok_and(|metadata| metadata.is_file());
    programs.into_iter().find(is_file).ok_or_else(|| {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        Error::delegate_missing(format!("no plugin {kind:?} in CNI_PATH"))
            .with_details(format!("searched: {}", dirs.join(":")))
    })
}

#[cfg(test)]
mod tests;
