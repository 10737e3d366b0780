//! Runs one program the way a runtime runs a plugin: stdin fed and both outputs drained at once, stderr copied on.
//!
//! Knows nothing of configs and results. The process's own environment, working directory and streams are not
//! changed; the caller sees to it that the thread is in the host's network namespace.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

use crate::environment::Environment;
use crate::error::Error;
use crate::names::validate_plugin_type;

/// How often a program is started that is just being written, as in Go.
const BUSY_TRIES: u32 = 6;
/// The pause between these tries, as in Go.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How long outputs may stay open after the program ended: a daemon it left behind must not hang the runtime.
const DRAIN_GRACE: Duration = Duration::from_secs(3);

/// What is being read from a pipe, in chunks.
type Drain = Option<Receiver<Vec<u8>>>;

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
        f.debug_struct("Executor").field("busy_pause", &self.busy_pause).finish_non_exhaustive()
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
        Self { stderr: Arc::new(Mutex::new(stderr)), busy_pause: BUSY_PAUSE, drain_grace: DRAIN_GRACE }
    }

    /// The same with another pause between the tries to start a program that is being written.
    #[must_use]
    pub fn with_busy_pause(mut self, pause: Duration) -> Self {
        self.busy_pause = pause;
        self
    }

    /// Runs the program to its end, with this environment and nothing else of ours.
    ///
    /// The program is killed if the calling thread dies, so that it does not outlive a plugin that was killed.
    pub fn run(&self, program: &Path, env: &Environment, stdin: &[u8]) -> io::Result<Finished> {
        let mut child = self.spawn(program, env)?;
        let (stdout, stderr) = self.connect(&mut child, stdin).inspect_err(|_| {
            // Nobody would read it; it must not go on unseen.
            let _ = child.kill().and_then(|()| child.wait());
        })?;
        let status = child.wait()?;
        Ok(Finished { status, stdout: self.collect(stdout), stderr: self.collect(stderr) })
    }

    /// Starts feeding stdin and draining both outputs.
    fn connect(&self, child: &mut Child, stdin: &[u8]) -> io::Result<(Drain, Drain)> {
        if let Some(mut pipe) = child.stdin.take() {
            let bytes = stdin.to_vec();
            // A program that does not read its stdin closes it; that is its business (EPIPE is ignored).
            thread::Builder::new().spawn(move || drop(pipe.write_all(&bytes)))?;
        }
        let stdout = child.stdout.take().map(|pipe| drain(pipe, None)).transpose()?;
        let stderr = child.stderr.take().map(|pipe| drain(pipe, Some(Arc::clone(&self.stderr)))).transpose()?;
        Ok((stdout, stderr))
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
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let parent = getpid();
        // SAFETY: between fork and exec only prctl and getppid are called; both are async-signal-safe and neither
        // allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || die_with(parent));
        }
        let mut tries = 1;
        loop {
            match command.spawn() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                    tries += 1;
                    thread::sleep(self.busy_pause);
                }
                spawned => return spawned,
            }
        }
    }

    /// Everything that was read from a pipe of a program that has ended.
    fn collect(&self, pipe: Drain) -> Vec<u8> {
        let mut all = Vec::new();
        let Some(pipe) = pipe else { return all };
        let deadline = Instant::now() + self.drain_grace;
        while let Ok(chunk) = pipe.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            all.extend(chunk);
            if Instant::now() > deadline {
                break;
            }
        }
        all
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

/// Reads a pipe to its end in a thread of its own, copying to `tee` as it goes.
fn drain(
    mut pipe: impl Read + Send + 'static,
    tee: Option<Arc<Mutex<dyn Write + Send>>>,
) -> io::Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = channel();
    thread::Builder::new().spawn(move || {
        let mut chunk = vec![0; 64 << 10];
        loop {
            match pipe.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => {
                    if let Some(Ok(mut tee)) = tee.as_ref().map(|tee| tee.lock()) {
                        // stderr is only information: nothing fails because it cannot be copied.
                        let _ = tee.write_all(&chunk[..read]);
                    }
                    if sender.send(chunk[..read].to_vec()).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    })?;
    Ok(receiver)
}

/// The program of a plugin type: the first regular file of that name, in the order of the directories.
///
/// Whether it is executable is not asked, as in Go: exec tells.
pub fn find_in_path(kind: &str, dirs: &[PathBuf]) -> Result<PathBuf, Error> {
    validate_plugin_type(kind)?;
    let programs = dirs.iter().filter(|dir| !dir.as_os_str().is_empty()).map(|dir| dir.join(kind));
    let is_file = |program: &PathBuf| fs::metadata(program).is_ok_and(|metadata| metadata.is_file());
    programs.into_iter().find(is_file).ok_or_else(|| {
        let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        Error::delegate_missing(format!("no plugin {kind:?} in CNI_PATH"))
            .with_details(format!("searched: {}", dirs.join(":")))
    })
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
