//! Reaches the node's agent, and starts one when there is none.
//!
//! However many plugins start at once, one starts the agent: the others wait for the lock
//! `SOCKET.start` and find it running. Every wait here has an end.

use std::{
    ffi::OsString,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use ratchet_cni::{Environment, Error};
use ratchet_protocol::{
    Attach, Client, ClientError, DEFAULT_SOCKET, DEFAULT_STATE_DIR, LocalSettings, Reply, Request,
    TablePart,
};

use crate::{codes::AgentError, config::Keys, launch::launch};

/// How long a started agent has until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long saying what is to come may take.
const EXPECT_TIMEOUT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);
/// How long an agent that is dying may go on taking calls without answering them: its socket is
/// closed after the first connections are.
const DYING: Duration = Duration::from_secs(1);

/// Whether to start an agent when none answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    OnDemand,
    Never,
}

/// The agent, as one config describes it.
pub(crate) struct Agent<'a> {
    keys: &'a Keys,
    env: &'a Environment,
}

impl<'a> Agent<'a> {
    pub fn new(keys: &'a Keys, env: &'a Environment) -> Self {
        Self { keys, env }
    }

    /// Asks, starting an agent if need be, and waits for the answer until then.
    pub fn ask(
        &self,
        request: &Request,
        until: Instant,
        start: Start,
    ) -> Result<Reply, AgentError> {
        self.begin(request, until).finish(start)
    }

    /// Asks; the answer is waited for when the question is finished, and something else may be done
    /// until then.
    pub fn begin<'r>(&'r self, request: &'r Request, until: Instant) -> Question<'r> {
        Question {
            agent: self,
            request,
            until,
            asked: self.send(request, until),
        }
    }

    fn send(&self, request: &Request, until: Instant) -> Result<Client, ClientError> {
        let left = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        Client::ask(self.keys.local.socket(), request, left)
    }

    /// Says what will be attached, so that it can be written down meanwhile. That lasts as long as
    /// the connection does. Nothing depends on it: an agent that does not hear of it does all of it
    /// with the attach.
    pub fn expect(&self, attach: &Attach) -> Option<Client> {
        Client::ask(
            self.keys.local.socket(),
            &Request::Expect(attach.clone()),
            EXPECT_TIMEOUT,
        )
        .ok()
    }

    /// Starts an agent, unless another plugin is just doing it or has done it. Gives whether this
    /// one did: one that was found listening may have been about to die.
    fn start(&self, until: Instant, absent: &io::Error) -> Result<bool, Error> {
        let until = until.min(Instant::now() + START_TIMEOUT);
        let is_patient = until.saturating_duration_since(Instant::now())
            >= START_TIMEOUT - Duration::from_secs(1);
        let socket = self.keys.local.socket();
        let program = self
            .program()
            .map_err(|error| self.none(absent, &format!("cannot name this program: {error}")))?;
        let Some(_lock) = self.lock(until).map_err(|why| self.none(absent, &why))? else {
            return Ok(false);
        };
        if is_listening(socket) {
            return Ok(false);
        }

        let shown = program.display();
        let mut launched = loop {
            match launch(&program, &self.arguments(), self.env) {
                Ok(launched) => break launched,
                // It is just being installed.
                Err(error)
                    if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < until =>
                {
                    thread::sleep(POLL);
                }
                Err(error) => {
                    return Err(self.none(
                        absent,
                        &format!("{shown} could not be started as the agent: {error}"),
                    ));
                }
            }
        };
        loop {
            if is_listening(socket) {
                launched.let_go();
                return Ok(true);
            }
            if let Some(status) = launched.ended() {
                // It may have ended because another one is there.
                if is_listening(socket) {
                    return Ok(false);
                }
                let log = match &self.keys.local.log_file {
                    Some(path) => format!("see {path}"),
                    None => "set \"log_file\" in the network config to see why".into(),
                };
                let why = format!(
                    "{shown} was started as the agent and ended before it answered ({status}); \
                     {log}"
                );
                return Err(self.none(absent, &why));
            }
            if Instant::now() >= until {
                // One that hangs would be in the way of the next try; but one that only had little
                // time may go on.
                if is_patient {
                    launched.kill();
                } else {
                    launched.let_go();
                }
                return Err(self.none(
                    absent,
                    &format!("{shown} was started as the agent and did not answer in time"),
                ));
            }
            thread::sleep(POLL);
        }
    }

    /// The lock that one starting plugin holds; `None` if there is an agent meanwhile.
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

    /// The agent's command line: what the config says, and nothing that it does not say. Socket and
    /// state directory are always named: the agent inherits this process' environment, which may
    /// name others.
    fn arguments(&self) -> Vec<OsString> {
        let Keys {
            settings, local, ..
        } = self.keys;
        let places = LocalSettings {
            socket: Some(DEFAULT_SOCKET.into()),
            state_dir: Some(DEFAULT_STATE_DIR.into()),
            ..LocalSettings::default()
        };
        let local = local.clone().or(places);
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

/// A question that has been asked.
pub(crate) struct Question<'a> {
    agent: &'a Agent<'a>,
    request: &'a Request,
    until: Instant,
    asked: Result<Client, ClientError>,
}

impl Question<'_> {
    /// The answer, for which an agent is started if need be.
    pub fn finish(self, start: Start) -> Result<Reply, AgentError> {
        let Self {
            agent,
            request,
            until,
            mut asked,
        } = self;
        let (mut may_start, may_repeat) = (
            start == Start::OnDemand,
            !matches!(request, Request::Attach(_)),
        );
        let mut first_hangup = None;
        loop {
            match asked.and_then(Client::answer) {
                Ok(Reply::Error(failure)) => return Err(AgentError::Refused(failure)),
                Ok(reply) => return Ok(reply),
                Err(ClientError::NoAgent { cause, .. }) if may_start && is_nobody(&cause) => {
                    may_start = !agent
                        .start(until, &cause)
                        .map_err(AgentError::Unreachable)?;
                }
                // One agent has handed over to another while we asked, or has died. An Attach is
                // not repeated: nobody knows whether it was done, and its caller undoes it.
                Err(ClientError::Broken { cause, .. })
                    if may_repeat
                        && is_hangup(&cause)
                        && first_hangup.get_or_insert_with(Instant::now).elapsed() < DYING =>
                {
                    thread::sleep(POLL);
                }
                Err(error) => return Err(error.into()),
            }
            asked = agent.send(request, until);
        }
    }
}

/// Whether it means that no agent runs, and not that one must not be reached.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    )
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// Whether somebody listens there. Never waits: a listener that does not accept is one, too.
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
