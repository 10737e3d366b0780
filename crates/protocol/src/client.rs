//! A blocking client, and the framing that both sides share.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    PROTOCOL,
    message::{Failure, FailureKind, Reply, Request, SUPPORTED},
};

/// The longest message, in bytes: annotations may hold 256 KiB (Kubernetes' limit), a report of 10,000 links some MiB.
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
    #[error("the agent on {} answered with something that is not of this protocol: {problem}", socket.display())]
    Garbled {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Plugin and agent have no protocol number in common.
    #[error("the agent on {} is too far from this version ({VERSION}): {message}; restart the agent", socket.display(), VERSION = env!("CARGO_PKG_VERSION"))]
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
    let garbled = |e: serde_json::Error| Failure::new(FailureKind::Protocol, format!("not a request: {e}"));
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
    serde_json::from_slice::<ReplyLine>(line).map(|line| line.reply).map_err(|e| e.to_string())
}

impl Reply {
    /// The answer as a line.
    pub fn to_line(&self, protocol: u32) -> Vec<u8> {
        line(&ReplyLine { protocol, reply: self.clone() })
    }
}

impl Request {
    /// The request as a line.
    pub fn to_line(&self, protocol: u32) -> Vec<u8> {
        line(&RequestLine { protocol, request: self.clone() })
    }
}

fn line(message: &impl Serialize) -> Vec<u8> {
    // None of the messages holds a map with keys that are not text, the one thing that JSON cannot say.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A connection to an agent, for one request.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`ClientError::NoAgent`] when nobody listens.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream =
            UnixStream::connect(socket).map_err(|source| ClientError::NoAgent { socket: socket.to_owned(), source })?;
        Ok(Self { socket: socket.to_owned(), stream: BufReader::new(stream) })
    }

    /// Connects, asks, and waits for the answer for so long.
    ///
    /// # Errors
    /// When there is no answer. [`Reply::Error`] is an answer.
    pub fn call(socket: &Path, request: &Request, timeout: Duration) -> Result<Reply, ClientError> {
        let mut client = Self::connect(socket)?;
        client.set_timeout(Some(timeout))?;
        client.send(request)?;
        match client.receive()? {
            Reply::Error(Failure { kind: FailureKind::Protocol, message }) => {
                Err(ClientError::Incompatible { socket: socket.to_owned(), message })
            }
            reply => Ok(reply),
        }
    }

    /// Limits how long sending and receiving may each take.
    ///
    /// # Errors
    /// A zero timeout is refused by the system.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ClientError> {
        let stream = self.stream.get_ref();
        stream
            .set_read_timeout(timeout)
            .and_then(|()| stream.set_write_timeout(timeout))
            .map_err(|source| self.broken(source))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the agent goes away meanwhile.
    pub fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        self.stream.get_mut().write_all(&request.to_line(PROTOCOL)).map_err(|source| self.broken(source))
    }

    /// Waits for the next answer.
    ///
    /// # Errors
    /// When the agent goes away, takes too long, or answers what is no answer.
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(MAX_MESSAGE).read_until(b'\n', &mut line);
        read.map_err(|source| self.broken(source))?;
        if line.last() != Some(&b'\n') {
            return Err(self.broken(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")));
        }
        parse_reply(&line).map_err(|problem| ClientError::Garbled { socket: self.socket.clone(), problem })
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let request = Request::Links { watch: true };
        let (protocol, read) = parse_request(&request.to_line(PROTOCOL)).unwrap();
        assert_eq!((protocol, read), (PROTOCOL, request));
        assert_eq!(parse_reply(&Reply::Done.to_line(PROTOCOL)).unwrap(), Reply::Done);
    }

    #[test]
    fn fields_of_a_later_version_are_passed_over() {
        let line = br#"{"protocol":1,"request":"links","watch":false,"colour":"blue"}"#;
        assert_eq!(parse_request(line).unwrap().1, Request::Links { watch: false });
        let line = br#"{"protocol":1,"reply":{"error":{"kind":"of_a_later_version","message":"m","hint":"h"}},"x":1}"#;
        let Reply::Error(failure) = parse_reply(line).unwrap() else { panic!() };
        assert_eq!(failure.kind, FailureKind::Internal);
    }

    #[test]
    fn another_protocol_is_told_which_are_understood() {
        let failure = parse_request(br#"{"protocol":999,"request":"hello"}"#).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Protocol);
        assert_eq!(failure.message, "protocol 999 is asked for, [1] are understood");
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
            for input in [bytes.as_slice(), text.as_bytes(), format!(r#"{{"protocol":1,{text}"#).as_bytes()] {
                if let Err(failure) = parse_request(input) {
                    prop_assert_eq!(failure.kind, FailureKind::Protocol);
                }
                let _ = parse_reply(input);
            }
        }
    }
}
