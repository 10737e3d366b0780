//! Starts a program that outlives this process and shares nothing with it: no session, no
//! descriptor, no directory, no signal setting, no CNI variable.
//!
//! It forks twice. The first fork, the watcher, makes a session and waits for the second, the
//! program. The watcher ends with the status of the program, so that the plugin can say why it
//! ended, and it dies with the plugin. When the program is let go, the watcher is killed: then the
//! program is init's child, cannot become our zombie, and leads no session that could get a
//! terminal.

use std::{
    ffi::OsString,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::libc;
use ratchet_cni::Environment;

/// Variables that service managers set for one process. A child that used them would act as its
/// parent.
const OF_THE_PARENT: [&str; 8] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
];
const FIRST_OTHER_FD: libc::c_int = 3;
/// The highest descriptor that is closed one by one, on kernels without close_range(2) (5.9; the
/// flag used here: 5.11).
const SWEEP_MAX: libc::c_int = 65_536;

/// A program that has been launched, as long as it is watched.
#[derive(Debug)]
pub(crate) struct Launched {
    /// The first fork.
    watcher: Child,
}

/// Launches the program. Returns an error of exec, too.
pub(crate) fn launch(program: &Path, args: &[OsString], env: &Environment) -> io::Result<Launched> {
    let mut command = Command::new(program);
    let is_inherited = |name: &str| !name.starts_with("CNI_") && !OF_THE_PARENT.contains(&name);
    let vars = env
        .iter()
        .filter(|(name, _)| name.to_str().is_none_or(is_inherited));
    command.args(args).env_clear().envs(vars).current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let plugin = nix::unistd::getpid().as_raw();
    // SAFETY: between fork and exec only system calls are made, through functions that are
    // async-signal-safe: nothing is allocated, no lock is taken, no destructor runs.
    unsafe {
        command.pre_exec(move || detach(plugin));
    }
    // std waits for exec, or for its error, on a pipe that closes on exec. The watcher closes its
    // copy of the pipe.
    Ok(Launched {
        watcher: command.spawn()?,
    })
}

impl Launched {
    /// How the program ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.watcher.try_wait().ok().flatten()
    }

    /// Lets the program run on its own.
    pub fn let_go(mut self) {
        // Both fail only if the watcher is gone already.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
    }

    /// Ends the program and what it started.
    pub fn kill(mut self) {
        if let Ok(session) = i32::try_from(self.watcher.id()) {
            let group = nix::unistd::Pid::from_raw(session);
            // The watcher has not been waited for, so no other process can have its id, which is
            // the group's.
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.watcher.wait();
    }
}

/// In the first fork: returns in the second, which goes on to exec.
///
/// # Safety
/// Only between fork and exec.
unsafe fn detach(plugin: libc::pid_t) -> io::Result<()> {
    // SAFETY: plain system calls on valid arguments; see `launch` for why they may be made here.
    unsafe {
        if libc::setsid() < 0 {
            return Err(io::Error::last_os_error());
        }
        for signal in 1..=libc::SIGRTMAX() {
            // This fails for SIGKILL, SIGSTOP and glibc's own two, as it should.
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // Marked and not closed: std still needs its pipe to report a failed exec.
                sweep(libc::CLOSE_RANGE_CLOEXEC);
                Ok(())
            }
            program => watch(program, plugin),
        }
    }
}

/// Closes all descriptors but the first three, or marks them to close on exec.
///
/// # Safety
/// As [`detach`].
unsafe fn sweep(flags: libc::c_uint) {
    // SAFETY: nothing uses the descriptors: this process is about to exec, or only waits.
    unsafe {
        let done = libc::syscall(
            libc::SYS_close_range,
            FIRST_OTHER_FD,
            libc::c_uint::MAX,
            flags,
        );
        if done == 0 {
            return;
        }
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let end = libc::c_int::try_from(limit.rlim_cur)
            .unwrap_or(SWEEP_MAX)
            .min(SWEEP_MAX);
        for fd in FIRST_OTHER_FD..end {
            if flags == 0 {
                libc::close(fd);
            } else {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

/// Waits for the program and ends as it ended.
///
/// # Safety
/// As [`detach`].
unsafe fn watch(program: libc::pid_t, plugin: libc::pid_t) -> ! {
    // SAFETY: as in `detach`.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // The signal is set too late if the plugin has died already. Then nothing is left to do.
        if libc::getppid() != plugin {
            libc::_exit(0);
        }
        sweep(0);
        let mut status = 0;
        while libc::waitpid(program, &mut status, 0) < 0 && *libc::__errno_location() == libc::EINTR
        {
        }
        let status = ExitStatus::from_raw(status);
        if let Some(signal) = status.signal() {
            // The program has already dumped its core if it should.
            libc::prctl(libc::PR_SET_DUMPABLE, 0);
            libc::kill(libc::getpid(), signal);
            libc::_exit(128 + signal);
        }
        libc::_exit(status.code().unwrap_or(1))
    }
}
