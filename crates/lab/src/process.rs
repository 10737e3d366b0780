//! Finds and ends a lab's processes. A process is identified by pid and start time and signalled
//! through a pidfd, so that a signal never reaches another one.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};
use serde::{Deserialize, Serialize};

use crate::netns::NsId;

/// The environment variable that marks every process of a lab; its value is the lab's random id.
/// It finds processes whose namespace was removed by hand.
pub(crate) const MARK: &str = "RATCHET_LAB_ID";

/// Identifies one process. The kernel reuses pids, but not pids with the same start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    started: u64,
}

impl ProcessId {
    /// The process that has this pid now; `None` when there is none, or only its zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let (state, started) = read_stat(pid)?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { pid, started })
    }

    /// Whether it has ended and its parent has not reaped it yet.
    fn is_zombie(self) -> bool {
        read_stat(self.pid).is_some_and(|(state, started)| state == 'Z' && started == self.started)
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Opens a handle on it, if it still runs.
    fn open(self) -> Option<PidFd> {
        let fd = PidFd::open(self.pid).ok()?;
        // In this order: the pid may have been reused before the open. After it, the handle cannot
        // change, and the check proves that it is a handle on this process.
        self.is_alive().then_some(fd)
    }
}

fn read_stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// State and start time from the line in `/proc/PID/stat` (fields 3 and 22 of proc(5)).
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    // The name is in parentheses and may contain spaces and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A handle on a process: signals and waits cannot reach another one.
#[derive(Debug)]
pub(crate) struct PidFd(OwnedFd);

impl PidFd {
    /// Opens a handle on the process that has this pid now. If the pid is that of a child that was
    /// not waited for, it is a handle on the child.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and touches no memory of this process.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
        // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends a signal. A process that has ended is no error.
    pub fn signal(&self, signal: Signal) {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is open for the whole call, and pidfd_send_signal(2) allows a null
        // siginfo.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal as i32,
                std::ptr::null::<()>(),
                0,
            )
        };
    }

    /// Waits until the process ends. Returns false when it does not within `timeout`, or when a
    /// signal interrupts the wait.
    pub fn wait(&self, timeout: Duration) -> bool {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        poll(
            &mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) == Ok(1)
    }
}

/// Selects processes of a lab: those in one of the namespaces, and those with the lab's id.
#[derive(Debug, Default)]
pub(crate) struct ProcessFilter {
    /// Existing network namespaces of the lab.
    pub namespaces: BTreeSet<NsId>,
    /// The lab's id, the value of [`MARK`] in the environment; empty to select by namespace only.
    pub lab_id: String,
    /// Processes that are not selected.
    pub except: BTreeSet<ProcessId>,
}

impl ProcessFilter {
    /// The selected processes that run now, without the calling one.
    pub fn find(&self) -> Vec<ProcessId> {
        let this = i32::try_from(std::process::id()).unwrap_or_default();
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|&pid| pid != this)
            // Read the identity first. If the pid is reused before the rest is read, the identity
            // has an outdated start time, and the later process is never signalled.
            .filter_map(ProcessId::of)
            .filter(|process| !self.except.contains(process) && self.matches(process.pid))
            .collect()
    }

    fn matches(&self, pid: i32) -> bool {
        let proc = format!("/proc/{pid}");
        let inside = NsId::of(Path::new(&format!("{proc}/ns/net")))
            .is_some_and(|id| self.namespaces.contains(&id));
        inside
            || (!self.lab_id.is_empty()
                && self.marked(&fs::read(format!("{proc}/environ")).unwrap_or_default()))
    }

    fn marked(&self, environ: &[u8]) -> bool {
        let mark = format!("{MARK}={}", self.lab_id);
        environ
            .split(|&byte| byte == 0)
            .any(|variable| variable == mark.as_bytes())
    }

    /// Ends the selected processes: SIGTERM first, SIGKILL after `grace`, until none is found. It
    /// returns 5 s after the first SIGKILL at the latest.
    pub fn end_all(&self, grace: Duration) -> Ended {
        let kill_after = Instant::now() + grace;
        let deadline = kill_after + Duration::from_secs(5);
        let mut signalled = BTreeSet::new();
        loop {
            let found = self.find();
            let now = Instant::now();
            if found.is_empty() || now > deadline {
                return Ended {
                    signalled,
                    remaining: found,
                };
            }
            let handle = |process: &ProcessId| Some((*process, process.open()?));
            let handles: Vec<_> = found.iter().filter_map(handle).collect();
            for (process, handle) in &handles {
                let first = signalled.insert(*process);
                if now >= kill_after {
                    handle.signal(Signal::SIGKILL);
                } else if first {
                    handle.signal(Signal::SIGTERM);
                }
            }
            // Wait only briefly: a dying shell may have started another process.
            if let Some((_, handle)) = handles.first() {
                handle.wait(Duration::from_millis(20));
            }
        }
    }
}

/// The result of [`ProcessFilter::end_all`].
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// Processes that were sent a signal.
    pub signalled: BTreeSet<ProcessId>,
    /// Processes that still run.
    pub remaining: Vec<ProcessId>,
}

/// Waits until init, which inherits a lab's processes, has reaped these. Zombies do no harm and
/// only look like leftovers, and an init may be slow, so the wait ends after 2 s.
pub(crate) fn await_reaped(processes: &BTreeSet<ProcessId>) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while processes.iter().any(|process| process.is_zombie()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends this process, never another one with its pid: SIGTERM first, SIGKILL after `grace`. Returns
/// whether it has ended.
pub(crate) fn end(process: ProcessId, grace: Duration) -> bool {
    for (signal, timeout) in [
        (Signal::SIGTERM, grace),
        (Signal::SIGKILL, Duration::from_secs(5)),
    ] {
        let Some(handle) = process.open() else {
            return true;
        };
        handle.signal(signal);
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if handle.wait(deadline.saturating_duration_since(Instant::now())) {
                return true;
            }
        }
    }
    !process.is_alive()
}

/// Makes the command's process the leader of a new session: it outlives the terminal, and Ctrl-C
/// does not reach it.
pub(crate) fn new_session(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only setsid is called, a system call that allocates nothing.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_stat_line_is_read_whatever_the_name_holds() {
        // Fields 4 to 21, then 22.
        let tail = "1 ".repeat(18) + "777 0";
        assert_eq!(
            parse_stat(&format!("5 (a) b (c) S {tail}")),
            Some(('S', 777))
        );
        assert_eq!(parse_stat("garbage"), None);
    }

    #[test]
    fn another_process_with_the_same_pid_is_left_alone() {
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let real = ProcessId::of(child.id() as i32).unwrap();
        let earlier = ProcessId {
            started: real.started - 1,
            ..real
        };
        assert!(!earlier.is_alive());
        assert!(
            end(earlier, Duration::ZERO),
            "a process that has ended counts as ended"
        );
        assert!(real.is_alive());
        assert!(end(real, Duration::from_secs(5)));
        child.wait().unwrap();
        assert_eq!(ProcessId::of(real.pid), None);
    }

    #[test]
    fn a_mark_in_the_environment_finds_children_that_ignore_sigterm() {
        let id = format!("unit-test-{}", std::process::id());
        let script = "trap '' TERM; while :; do sleep 60; done";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .env(MARK, &id)
            .spawn()
            .unwrap();
        let filter = ProcessFilter {
            lab_id: id,
            ..ProcessFilter::default()
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while filter.find().len() < 2 {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(filter.end_all(Duration::from_millis(50)).remaining, []);
        child.wait().unwrap();
    }
}
