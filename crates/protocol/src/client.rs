//! A blocking client: one connection for one request.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    PROTOCOL,
    error::ClientError,
    framing::{MAX_MESSAGE, parse_reply},
    message::{Failure, FailureKind, Reply, Request},
    stream::DeadlineStream,
};

/// A connection to an agent, for one request.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: BufReader<DeadlineStream>,
}

impl Client {
    /// Sends a request and waits for the answer. `timeout` is for all of it.
    ///
    /// # Errors
    /// When there is no answer. [`Reply::Error`] is an answer.
    pub fn call(socket: &Path, request: &Request, timeout: Duration) -> Result<Reply, ClientError> {
        Self::ask(socket, request, timeout)?.answer()
    }

    /// Sends a request; [`Client::answer`] waits for the answer. `timeout` is for both.
    ///
    /// # Errors
    /// When the request cannot be sent.
    pub fn ask(socket: &Path, request: &Request, timeout: Duration) -> Result<Self, ClientError> {
        let mut client = Self::connect(socket, timeout)?;
        client.send(request)?;
        Ok(client)
    }

    /// Waits for the answer to the request that was sent.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn answer(mut self) -> Result<Reply, ClientError> {
        match self.receive()? {
            Reply::Error(Failure {
                kind: FailureKind::Protocol,
                message,
                ..
            }) => Err(ClientError::Incompatible {
                socket: self.socket,
                message,
            }),
            reply => Ok(reply),
        }
    }

    /// Waits for the next answer, if the request has several.
    ///
    /// # Errors
    /// When the agent closes the connection, takes too long, or sends something else.
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        let mut line = Vec::new();
        let read = (&mut self.stream)
            .take(MAX_MESSAGE)
            .read_until(b'\n', &mut line);
        read.map_err(|cause| self.broken(cause))?;
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

    /// Removes the timeout: further answers may take any time.
    pub fn remove_timeout(&mut self) {
        self.stream.get_mut().remove_deadline();
    }

    fn connect(socket: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let stream = DeadlineStream::connect(socket, timeout).map_err(|cause| {
            let socket = socket.to_owned();
            if cause.kind() == ErrorKind::TimedOut {
                ClientError::Broken { socket, cause }
            } else {
                ClientError::NoAgent { socket, cause }
            }
        })?;
        Ok(Self {
            socket: socket.to_owned(),
            stream: BufReader::new(stream),
        })
    }

    fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        self.stream
            .get_mut()
            .write_all(&request.to_line(PROTOCOL))
            .map_err(|cause| self.broken(cause))
    }

    fn broken(&self, cause: io::Error) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsRawFd, unix::net::UnixListener};

    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
    };

    use super::*;

    fn is_timeout(error: &ClientError) -> bool {
        matches!(error, ClientError::Broken { cause, .. } if cause.kind() == ErrorKind::TimedOut)
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
            // Until the client closes the connection.
            while stream.write_all(b" ").is_ok() {
                let _ = stream.read(&mut [0; 4096]);
            }
        });
        let error = Client::call(&path, &Request::Hello, Duration::from_millis(200)).unwrap_err();
        assert!(is_timeout(&error), "{error}");
        assert!(
            error.to_string().ends_with("no answer within 0.2 s"),
            "{error}"
        );
        server.join().unwrap();
    }

    #[test]
    fn a_listener_that_accepts_nothing_is_not_waited_for_for_ever() {
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
        assert!(is_timeout(&error), "{error}");
        let absent = Client::connect(&dir.path().join("none"), Duration::from_secs(1))
            .map(drop)
            .unwrap_err();
        assert!(
            matches!(&absent, ClientError::NoAgent { cause, .. }
                if cause.kind() == ErrorKind::NotFound),
            "{absent}"
        );
    }
}
