//! The namespaces and processes of a benchmark, which leave nothing however it ends.
//!
//! All namespaces are called `rb-PID-…`. A value removes its namespace or process when it is
//! dropped. SIGINT, SIGTERM and SIGHUP remove everything of this process. A run removes what killed
//! runs have left.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    libc,
    sched::{CloneFlags, setns},
    sys::signal::{SigSet, Signal, kill},
    unistd::Pid,
};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

static COUNTER: AtomicU32 = AtomicU32::new(0);
static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
/// Held while a namespace or a background process is made. The signal handler takes it and never
/// releases it.
static MAKING: Mutex<()> = Mutex::new(());

/// Removes what killed runs have left, and makes signals remove everything of this one. Call it
/// before any thread is started.
pub fn prepare(scratch: &Path) -> Result<()> {
    for (pid, name) in ours()? {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            delete_netns(&name);
        }
    }
    let _ = SCRATCH.set(scratch.to_owned());
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("cannot block signals")?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if signals.wait().is_ok() {
                eprintln!("interrupted: cleaning up");
                // Held until the process ends, so that nothing is made any more.
                let _making = making();
                clear();
                std::process::exit(130);
            }
        })?;
    Ok(())
}

/// Waits for the end of this process if a signal is removing everything: a row that fails because
/// its agent was killed is not how an interrupted run ends.
pub fn finish() {
    drop(making());
}

fn making() -> MutexGuard<'static, ()> {
    MAKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes everything of this process.
fn clear() {
    // Several times: a running call may start a new agent in place of one that was killed.
    for _ in 0..3 {
        for pid in on_our_nodes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    for (pid, name) in ours().unwrap_or_default() {
        if pid == std::process::id() {
            delete_netns(&name);
        }
    }
    if let Some(dir) = SCRATCH.get() {
        let _ = fs::remove_dir_all(dir);
    }
}

/// The namespaces of all benchmarks, each with its process id.
fn ours() -> Result<Vec<(u32, String)>> {
    let Ok(entries) = fs::read_dir(NAMES) else {
        return Ok(Vec::new());
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names
        .filter_map(|name| {
            Some((
                name.strip_prefix("rb-")?.split('-').next()?.parse().ok()?,
                name,
            ))
        })
        .collect())
}

/// The processes in this benchmark's node namespaces. Others end with this process, as
/// PR_SET_PDEATHSIG has them killed.
fn on_our_nodes() -> Vec<Pid> {
    let own = ours()
        .unwrap_or_default()
        .into_iter()
        .filter(|(pid, name)| *pid == std::process::id() && name.contains("-node"));
    let listed =
        own.filter_map(|(_, name)| run(Command::new("ip").args(["netns", "pids", &name])).ok());
    listed
        .flat_map(|pids| {
            pids.lines()
                .filter_map(|pid| pid.trim().parse().ok().map(Pid::from_raw))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn delete_netns(name: &str) {
    let _ = Command::new("ip")
        .args(["netns", "del", name])
        .stderr(Stdio::null())
        .status();
}

/// A number that is unique within this process.
pub fn unique() -> u32 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// Runs a command and returns its output.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Polls until a condition holds. `what` names it in the error.
pub fn eventually(
    what: &str,
    timeout: Duration,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while !holds()? {
        if Instant::now() > deadline {
            bail!("expected {what} within {} s", timeout.as_secs());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A named network namespace, deleted on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace, with its loopback interface up.
    pub fn new(label: &str) -> Result<Self> {
        let netns = Self {
            name: format!("rb-{}-{}-{label}", std::process::id(), unique()),
        };
        {
            let _making = making();
            run(Command::new("ip").args(["netns", "add", &netns.name]))?;
        }
        run(Command::new("ip").args(["-n", &netns.name, "link", "set", "lo", "up"]))?;
        Ok(netns)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }

    /// A command that will run inside and is killed when this process ends.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let netns = File::open(self.path())?;
        let mut command = Command::new(program);
        // SAFETY: setns, prctl and sigprocmask are plain system calls, safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                // Undo what `prepare` has blocked in this process.
                SigSet::empty().thread_set_mask()?;
                setns(&netns, CloneFlags::CLONE_NEWNET)?;
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        Ok(command)
    }

    /// Runs a shell line inside.
    pub fn sh(&self, line: &str) -> Result<String> {
        run(self.command("sh")?.arg("-c").arg(line))
    }

    /// Runs `work` in a new thread inside the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let netns = File::open(self.path())?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(&netns, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Opens a routing socket inside. `groups` is the mask of multicast groups to listen to.
    pub fn routing_socket(&self, groups: u32) -> Result<OwnedFd> {
        use nix::sys::socket::{
            AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, setsockopt, socket,
            sockopt,
        };
        self.inside(|| {
            let fd = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkRoute,
            )?;
            setsockopt(&fd, sockopt::RcvBuf, &(4 << 20))?;
            bind(
                std::os::fd::AsRawFd::as_raw_fd(&fd),
                &NetlinkAddr::new(0, groups),
            )?;
            Ok(fd)
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete_netns(&self.name);
    }
}

/// A process that is ended when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a command in the background.
    pub fn start(command: &mut Command) -> Result<Self> {
        let _making = making();
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Ends it: SIGTERM first, SIGKILL after 10 s.
    pub fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let until = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
