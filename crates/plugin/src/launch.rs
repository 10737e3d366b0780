//! Starts a program that outlives this process and shares nothing with it: no session, no
//! descriptor, no directory, no signal setting, no CNI variable.
//!
//! Two forks. The first makes a session and stays, doing nothing but wait for the second, the
//! program; it ends as the program ended, so that whoever launched it can tell why, and it dies
//! with whoever launched it. Let go, it is killed: the program is init's child then, nobody's
//! zombie, and leads no session that a terminal could attach to.

use std::{
    ffi::OsString,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::libc;
use ratchet_cni::Environment;

/// Variables that service managers set for one process: a child that used them would speak in its
/// parent's name.
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
/// Where sweeping descriptors one by one ends, on kernels before close_range(2) (5.9; the flag used
/// here: 5.11).
const SWEEP_MAX: libc::c_int = 65_536;

/// A program that has been launched, as long as it is watched.
#[derive(Debug)]
pub(crate) struct Launched {
    /// The first fork.
    watcher: Child,
}

/// Launches. An error of exec itself is told here.
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
    // std waits for exec, or for its error, on a pipe that closes on exec; the watcher closes its
    // copy.
    Ok(Launched {
        watcher: command.spawn()?,
    })
}

impl Launched {
    /// How the program ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.watcher.try_wait().ok().flatten()
    }

    /// Leaves the program to itself.
    pub fn let_go(mut self) {
        // Both fail only if the watcher is gone already.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
    }

    /// Ends the program and what it started.
    pub fn kill(mut self) {
        if let Ok(session) = i32::try_from(self.watcher.id()) {
            let group = nix::unistd::Pid::from_raw(session);
            // The watcher has not been waited for, so its id, which is the group's, is nobody
            // else's.
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.watcher.wait();
    }
}

/// In the first fork: returns in the second, which goes on to exec.
///
/// # Safety
/// To be called between fork and exec alone.
unsafe fn detach(plugin: libc::pid_t) -> io::Result<()> {
    // SAFETY: plain system calls on valid arguments; see `launch` for why they may be made here.
    unsafe {
        if libc::setsid() < 0 {
            return Err(io::Error::last_os_error());
        }
        for signal in 1..=libc::SIGRTMAX() {
            // SIGKILL, SIGSTOP and glibc's own two refuse, as they should.
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // Not closed but marked: std still needs its pipe to tell of a failed exec.
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
    // SAFETY: the descriptors belong to nobody: this process is about to exec, or does nothing but
    // wait.
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
        // Too late, if the plugin has died already: then there is nobody to tell.
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
            // The program has dumped its core if it wanted to.
            libc::prctl(libc::PR_SET_DUMPABLE, 0);
            libc::kill(libc::getpid(), signal);
            libc::_exit(128 + signal);
        }
        libc::_exit(status.code().unwrap_or(1))
    }
}
