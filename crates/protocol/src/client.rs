//! A blocking client, and the framing that both sides share.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket,
            sockopt::SendTimeout,
        },
        time::TimeVal,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    PROTOCOL,
    message::{Failure, FailureKind, Reply, Request, SUPPORTED},
};

/// The longest message, in bytes: annotations may hold 256 KiB (Kubernetes' limit), a report of
/// 10,000 links some MiB.
pub const MAX_MESSAGE: u64 = 64 << 20;

/// Why a call failed before the agent could answer it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("no agent answers on {}: {source}", socket.display())]
    NoAgent {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The conversation broke off or took too long.
    #[error("the agent on {} did not answer: {source}", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What came is not an answer.
    #[error(
        "the agent on {} answered with something that is not of this protocol: {problem}",
        socket.display()
    )]
    Garbled {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Plugin and agent have no protocol number in common.
    #[error("the agent on {} is too far from this version ({VERSION}): {message}; restart the \
             agent", socket.display(), VERSION = env!("CARGO_PKG_VERSION"))]
    Incompatible {
        /// The socket.
        socket: PathBuf,
        /// What the agent says.
        message: String,
    },
}

/// A request on the wire.
#[derive(Serialize, Deserialize)]
struct RequestLine {
    protocol: u32,
    #[serde(flatten)]
    request: Request,
}

/// An answer on the wire.
#[derive(Serialize, Deserialize)]
struct ReplyLine {
    protocol: u32,
    reply: Reply,
}

/// Reads a request; the agent's side. Gives the protocol number to answer in, too.
///
/// # Errors
/// A failure to answer with.
pub fn parse_request(line: &[u8]) -> Result<(u32, Request), Failure> {
    #[derive(Deserialize)]
    struct Number {
        protocol: u32,
    }
    let garbled =
        |e: serde_json::Error| Failure::new(FailureKind::Protocol, format!("not a request: {e}"));
    let Number { protocol } = serde_json::from_slice(line).map_err(garbled)?;
    if !SUPPORTED.contains(&protocol) {
        let message = format!("protocol {protocol} is asked for, {SUPPORTED:?} are understood");
        return Err(Failure::new(FailureKind::Protocol, message));
    }
    let line: RequestLine = serde_json::from_slice(line).map_err(garbled)?;
    Ok((protocol, line.request))
}

/// Reads an answer; the client's side.
///
/// # Errors
/// What is wrong with it.
pub fn parse_reply(line: &[u8]) -> Result<Reply, String> {
    serde_json::from_slice::<ReplyLine>(line)
        .map(|line| line.reply)
        .map_err(|e| e.to_string())
}

impl Reply {
    /// The answer as a line.
    pub fn to_line(&self, protocol: u32) -> Vec<u8> {
        line(&ReplyLine {
            protocol,
            reply: self.clone(),
        })
    }
}

impl Request {
    /// The request as a line.
    pub fn to_line(&self, protocol: u32) -> Vec<u8> {
        line(&RequestLine {
            protocol,
            request: self.clone(),
        })
    }
}

fn line(message: &impl Serialize) -> Vec<u8> {
    // None of the messages holds a map with keys that are not text, the one thing that JSON cannot
    // say.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A connection to an agent, for one request.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: BufReader<Bounded>,
}

impl Client {
    /// Connects; what is done over the connection has this much time in all.
    ///
    /// # Errors
    /// [`ClientError::NoAgent`] when nobody listens.
    fn connect(socket: &Path, timeout: Duration) -> Result<Self, ClientError> {
        match Bounded::connect(socket, timeout) {
            Ok(stream) => Ok(Self {
                socket: socket.to_owned(),
                stream: BufReader::new(stream),
            }),
            Err(source) if source.kind() == ErrorKind::TimedOut => Err(ClientError::Broken {
                socket: socket.to_owned(),
                source,
            }),
            Err(source) => Err(ClientError::NoAgent {
                socket: socket.to_owned(),
                source,
            }),
        }
    }

    /// Connects, asks, and waits for the answer; for so long in all, whatever the agent does.
    ///
    /// # Errors
    /// When there is no answer. [`Reply::Error`] is an answer.
    pub fn call(socket: &Path, request: &Request, timeout: Duration) -> Result<Reply, ClientError> {
        Self::ask(socket, request, timeout)?.answer()
    }

    /// Connects and asks; [`Client::answer`] waits for what comes.
    ///
    /// # Errors
    /// When nobody takes the request.
    pub fn ask(socket: &Path, request: &Request, timeout: Duration) -> Result<Self, ClientError> {
        let mut client = Self::connect(socket, timeout)?;
        client.send(request)?;
        Ok(client)
    }

    /// The answer to a request that was sent.
    ///
    /// # Errors
    /// When there is none.
    pub fn answer(mut self) -> Result<Reply, ClientError> {
        match self.receive()? {
            Reply::Error(Failure {
                kind: FailureKind::Protocol,
                message,
            }) => Err(ClientError::Incompatible {
                socket: self.socket,
                message,
            }),
            reply => Ok(reply),
        }
    }

    /// From here on answers may take as long as they do.
    pub fn be_patient(&mut self) {
        self.stream.get_mut().until = None;
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the agent goes away meanwhile.
    fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        self.stream
            .get_mut()
            .write_all(&request.to_line(PROTOCOL))
            .map_err(|source| self.broken(source))
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// When the agent goes away, takes too long, or answers what is no answer.
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        let mut line = Vec::new();
        let read = (&mut self.stream)
            .take(MAX_MESSAGE)
            .read_until(b'\n', &mut line);
        read.map_err(|source| self.broken(source))?;
        if line.last() != Some(&b'\n') {
            return Err(self.broken(io::Error::new(
                ErrorKind::UnexpectedEof,
                "it closed the connection",
            )));
        }
        parse_reply(&line).map_err(|problem| ClientError::Garbled {
            socket: self.socket.clone(),
            problem,
        })
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            source,
        }
    }
}

/// A stream on which everything ends at one time. A socket's own timeouts begin anew with every
/// byte, so that they are set before each call to what is left.
#[derive(Debug)]
struct Bounded {
    stream: UnixStream,
    timeout: Duration,
    until: Option<Instant>,
}

impl Bounded {
    fn connect(path: &Path, timeout: Duration) -> io::Result<Self> {
        let until = Instant::now() + timeout;
        let fd = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let address = UnixAddr::new(path)?;
        loop {
            // A listener that accepts nothing any more: the kernel waits for room among those that
            // wait, for as long as a send may take (net/unix/af_unix.c, `unix_stream_connect`).
            // Zero would be for ever.
            let left = until
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            setsockopt(
                &fd,
                SendTimeout,
                &TimeVal::new(seconds, left.subsec_micros().into()),
            )?;
            match connect(fd.as_raw_fd(), &address) {
                Ok(()) => {
                    return Ok(Self {
                        stream: fd.into(),
                        timeout,
                        until: Some(until),
                    });
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(no_answer(timeout)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// What is left of the time; none if there is no end.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            Err(no_answer(self.timeout))
        } else {
            Ok(left)
        }
    }

    /// The socket tells that its own timeout is over as it would tell that it does not block.
    fn told(&self, done: io::Result<usize>) -> io::Result<usize> {
        done.map_err(|error| {
            if error.kind() == ErrorKind::WouldBlock {
                no_answer(self.timeout)
            } else {
                error
            }
        })
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.told((&self.stream).read(buffer))
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.told((&self.stream).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn no_answer(timeout: Duration) -> io::Error {
    io::Error::new(
        ErrorKind::TimedOut,
        format!("no answer within {:.1} s", timeout.as_secs_f32()),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use nix::sys::socket::{Backlog, bind, listen};
    use proptest::prelude::*;

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let request = Request::Links { watch: true };
        let (protocol, read) = parse_request(&request.to_line(PROTOCOL)).unwrap();
        assert_eq!((protocol, read), (PROTOCOL, request));
        assert_eq!(
            parse_reply(&Reply::Done.to_line(PROTOCOL)).unwrap(),
            Reply::Done
        );
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        let line = br#"{"protocol":1,"request":"links","watch":false,"colour":"blue"}"#;
        assert_eq!(
            parse_request(line).unwrap().1,
            Request::Links { watch: false }
        );
        let line = br#"{"protocol":1,"reply":{"error":{"kind":"of_a_later_version","message":"m",
            "hint":"h"}},"x":1}"#;
        let Reply::Error(failure) = parse_reply(line).unwrap() else {
            panic!()
        };
        assert_eq!(failure.kind, FailureKind::Internal);
    }

    #[test]
    fn another_protocol_is_told_which_are_understood() {
        let failure = parse_request(br#"{"protocol":999,"request":"hello"}"#).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Protocol);
        assert_eq!(
            failure.message,
            "protocol 999 is asked for, [1] are understood"
        );
    }

    #[test]
    fn an_answer_that_comes_byte_by_byte_has_no_more_time_than_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            // Until the client has gone.
            while stream.write_all(b" ").is_ok() {
                let _ = stream.read(&mut [0; 4096]);
            }
        });
        let error = Client::call(&path, &Request::Hello, Duration::from_millis(200)).unwrap_err();
        assert!(
            matches!(&error, ClientError::Broken { source, .. }
                if source.kind() == ErrorKind::TimedOut),
            "{error}"
        );
        assert!(
            error.to_string().ends_with("no answer within 0.2 s"),
            "{error}"
        );
        server.join().unwrap();
    }

    #[test]
    fn a_listener_that_takes_nobody_in_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match Client::connect(&path, Duration::from_millis(100)) {
                Ok(client) if waiting.len() < 10 => waiting.push(client),
                other => break other.map(drop).unwrap_err(),
            }
        };
        assert!(
            matches!(&error, ClientError::Broken { source, .. }
                if source.kind() == ErrorKind::TimedOut),
            "{error}"
        );
        let absent = Client::connect(&dir.path().join("none"), Duration::from_secs(1))
            .map(drop)
            .unwrap_err();
        assert!(
            matches!(&absent, ClientError::NoAgent { source, .. }
                if source.kind() == ErrorKind::NotFound),
            "{absent}"
        );
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200),
        text in ".{0,200}") {
            for input in [bytes.as_slice(), text.as_bytes(), format!(r#"{{"protocol":1,
                {text}"#).as_bytes()] {
                if let Err(failure) = parse_request(input) {
                    prop_assert_eq!(failure.kind, FailureKind::Protocol);
                }
                let _ = parse_reply(input);
            }
        }
    }
}
