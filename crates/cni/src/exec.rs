//! Runs one program the way a runtime runs a plugin: stdin fed and both outputs drained at once,
//! stderr copied on.
//!
//! Knows nothing of configs and results. The process's own environment, working directory and
//! streams are not changed; the caller sees to it that the thread is in the host's network
//! namespace.

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

use crate::{
    conversation::Conversation, environment::Environment, error::Error, names::validate_plugin_type,
};

/// How often a program is started that is just being written, as in Go.
const BUSY_TRIES: u32 = 6;
/// The pause between these tries, as in Go.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How often to look whether a program has ended that has not closed its outputs.
const LOOK: Duration = Duration::from_millis(20);
/// How long outputs may stay open after the program ended: a daemon it left behind must not hang
/// the runtime.
const DRAIN_GRACE: Duration = Duration::from_secs(3);

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr; it has been copied on already.
    pub stderr: Vec<u8>,
}

/// Starts programs. One for all calls.
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
    /// One that copies the programs' stderr to this writer instead of the process's own stderr.
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

    /// Runs the program to its end, with this environment and nothing else of ours.
    ///
    /// The program is killed if the calling thread dies, so that it does not outlive a plugin that
    /// was killed.
    pub fn run(&self, program: &Path, env: &Environment, stdin: &[u8]) -> io::Result<Finished> {
        let mut child = self.spawn(program, env)?;
        let talked =
            Conversation::new(&mut child, stdin).and_then(|talk| self.finish(&mut child, talk));
        talked.inspect_err(|_| {
            // Nobody would read it; it must not go on unseen.
            let _ = child.kill().and_then(|()| child.wait());
        })
    }

    /// Feeds and drains the program until it has ended, and for a while longer if something else
    /// holds its outputs.
    fn finish(&self, child: &mut Child, mut talk: Conversation) -> io::Result<Finished> {
        let mut tee = |chunk: &[u8]| {
            if let Ok(mut stderr) = self.stderr.lock() {
                // stderr is only information: nothing fails because it cannot be copied.
                let _ = stderr.write_all(chunk);
            }
        };
        let mut ended = None;
        while talk.goes_on() && ended.is_none() {
            // Whoever ends closes its pipes; only a daemon that is left behind makes it necessary
            // to look.
            talk.go_on(LOOK, &mut tee)?;
            ended = child.try_wait()?;
        }
        let status = ended.map_or_else(|| child.wait(), Ok)?;
        talk.hang_up();
        let until = Instant::now() + self.drain_grace;
        while talk.has_outputs() && Instant::now() < until {
            talk.go_on(until.saturating_duration_since(Instant::now()), &mut tee)?;
        }
        let (stdout, stderr) = talk.heard();
        Ok(Finished {
            status,
            stdout,
            stderr,
        })
    }

    /// Writes a line where the programs' stderr goes.
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
/// Whether it is executable is not asked, as in Go: exec tells.
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
