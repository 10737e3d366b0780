//! Starts an agent when none answers.
//!
//! If many plugins start at once, one of them starts the agent. The others wait for the lock
//! `SOCKET.start` and find the agent running.

use std::{
    ffi::OsString,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use ratchet_cni::Error;
use ratchet_protocol::{DEFAULT_SOCKET, DEFAULT_STATE_DIR, LocalSettings, TablePart};

use super::{Agent, POLL};
use crate::{
    config::Keys,
    launch::{Launched, launch},
};

/// How long a started agent has until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);

impl Agent<'_> {
    /// Starts an agent, unless another plugin does so or has done so. Returns whether this plugin
    /// started it; an agent that was found listening may be about to end.
    ///
    /// `absent` is why no agent answered.
    pub(super) fn start(&self, until: Instant, absent: &io::Error) -> Result<bool, Error> {
        self.try_start(until).map_err(|why| self.none(absent, &why))
    }

    fn try_start(&self, until: Instant) -> Result<bool, String> {
        let until = until.min(Instant::now() + START_TIMEOUT);
        let has_full_time = until.saturating_duration_since(Instant::now())
            >= START_TIMEOUT - Duration::from_secs(1);
        let program = self
            .program()
            .map_err(|error| format!("cannot name this program: {error}"))?;
        let Some(_lock) = self.lock(until)? else {
            return Ok(false);
        };
        if is_listening(self.keys.local.socket()) {
            return Ok(false);
        }
        let launched = self.launch(&program, until)?;
        self.wait(launched, &program, until, has_full_time)
    }

    fn launch(&self, program: &Path, until: Instant) -> Result<Launched, String> {
        loop {
            match launch(program, &self.arguments(), self.env) {
                Ok(launched) => return Ok(launched),
                // The program is being installed.
                Err(error)
                    if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < until =>
                {
                    thread::sleep(POLL);
                }
                Err(error) => {
                    let shown = program.display();
                    return Err(format!(
                        "{shown} could not be started as the agent: {error}"
                    ));
                }
            }
        }
    }

    /// Waits until the agent listens. Returns whether it is the one that was launched.
    fn wait(
        &self,
        mut launched: Launched,
        program: &Path,
        until: Instant,
        has_full_time: bool,
    ) -> Result<bool, String> {
        let socket = self.keys.local.socket();
        loop {
            if is_listening(socket) {
                launched.let_go();
                return Ok(true);
            }
            if let Some(status) = launched.ended() {
                // It may have ended because there is another agent.
                return match is_listening(socket) {
                    true => Ok(false),
                    false => Err(self.ended(program, status)),
                };
            }
            if Instant::now() >= until {
                // An agent that hangs would block the next try. One that had little time may still
                // start.
                if has_full_time {
                    launched.kill();
                } else {
                    launched.let_go();
                }
                let shown = program.display();
                return Err(format!(
                    "{shown} was started as the agent and did not answer in time"
                ));
            }
            thread::sleep(POLL);
        }
    }

    fn ended(&self, program: &Path, status: ExitStatus) -> String {
        let log = match &self.keys.local.log_file {
            Some(path) => format!("see {path}"),
            None => "set \"log_file\" in the network config to see why".into(),
        };
        let shown = program.display();
        format!("{shown} was started as the agent and ended before it answered ({status}); {log}")
    }

    /// The lock that the starting plugin holds. `None` if an agent has started in the meantime.
    fn lock(&self, until: Instant) -> Result<Option<File>, String> {
        let socket = self.keys.local.socket();
        if let Some(dir) = socket.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|error| format!("cannot make the directory {}: {error}", dir.display()))?;
        }
        let mut path = socket.as_os_str().to_owned();
        path.push(".start");
        let path = PathBuf::from(path);
        let failed = |error: io::Error| format!("cannot lock {}: {error}", path.display());
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if is_listening(socket) => return Ok(None),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                    return Err("another plugin is starting one, which does not answer yet".into());
                }
                Err(TryLockError::WouldBlock) => thread::sleep(POLL),
            }
        }
    }

    fn program(&self) -> io::Result<PathBuf> {
        self.keys
            .child_path
            .clone()
            .map_or_else(std::env::current_exe, Ok)
    }

    /// The agent's command line: the settings that the config has, and no others. Socket, state
    /// directory and key are always named, because the agent inherits this process' environment,
    /// which may name others.
    fn arguments(&self) -> Vec<OsString> {
        let Keys {
            settings, local, ..
        } = self.keys;
        let defaults = LocalSettings {
            socket: Some(DEFAULT_SOCKET.into()),
            state_dir: Some(DEFAULT_STATE_DIR.into()),
            node_key: local.node_key().to_str().map(str::to_owned),
            ..LocalSettings::default()
        };
        let local = local.clone().or(defaults);
        let command = ["agent", "--on-demand"].map(str::to_owned).into_iter();
        let options = local.arguments().into_iter().chain(settings.arguments());
        command.chain(options).map(OsString::from).collect()
    }

    fn none(&self, absent: &io::Error, why: &str) -> Error {
        let socket = self.keys.local.socket().display();
        Error::try_again_later(format!(
            "no agent answers on {socket}, and none could be started"
        ))
        .with_details(format!("connecting: {absent}; then {why}"))
    }
}

/// Whether a process listens on the socket. Never waits: it need not accept the connection.
fn is_listening(path: &Path) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let Ok(probe) = socket(AddressFamily::Unix, SockType::Stream, flags, None) else {
        return false;
    };
    let Ok(address) = UnixAddr::new(path) else {
        return false;
    };
    matches!(
        connect(probe.as_raw_fd(), &address),
        Ok(()) | Err(Errno::EAGAIN)
    )
}
