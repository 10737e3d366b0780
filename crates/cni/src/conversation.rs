//! What is said to a program and what it says: stdin fed and both outputs drained at once, by one
//! thread.
//!
//! Threads of their own for the three pipes would be simpler to write, but take as long to start as
//! a small plugin takes to run. Knows nothing of when a program has ended, and never waits for
//! longer than it is told to.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    process::{Child, ChildStderr, ChildStdin, ChildStdout},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// How much is read at once: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// More than any result; one that prints without end must not take the node's memory.
const MOST: usize = 16 << 20;

/// The pipes of a program that runs.
pub(crate) struct Conversation<'a> {
    stdin: Option<ChildStdin>,
    /// What is to be fed yet.
    left: &'a [u8],
    stdout: Ear<ChildStdout>,
    stderr: Ear<ChildStderr>,
}

/// An output and what has come from it.
struct Ear<P> {
    pipe: Option<P>,
    heard: Vec<u8>,
}

impl<'a> Conversation<'a> {
    /// With a program that was just started, whose stdin these bytes are to be.
    pub fn new(child: &mut Child, stdin: &'a [u8]) -> io::Result<Self> {
        let mut talk = Self {
            stdin: child.stdin.take(),
            left: stdin,
            stdout: Ear {
                pipe: child.stdout.take(),
                heard: Vec::new(),
            },
            stderr: Ear {
                pipe: child.stderr.take(),
                heard: Vec::new(),
            },
        };
        if let Some(pipe) = &talk.stdin {
            // More than the pipe holds must not block us while nobody reads the outputs. The
            // program's own end is not concerned.
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            talk.feed();
        }
        Ok(talk)
    }

    /// Whether there may still be something to say or to hear.
    pub fn goes_on(&self) -> bool {
        self.stdin.is_some() || self.has_outputs()
    }

    /// Whether there may still come something.
    pub fn has_outputs(&self) -> bool {
        self.stdout.pipe.is_some() || self.stderr.pipe.is_some()
    }

    /// Feeds and drains what is possible now; waits for that for so long. What comes on stderr is
    /// passed on, too. Fails when it is too much.
    pub fn go_on(&mut self, timeout: Duration, tee: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let (stdin, stdout, stderr) = {
            let ends: [(Option<BorrowedFd<'_>>, PollFlags); 3] = [
                (self.stdin.as_ref().map(AsFd::as_fd), PollFlags::POLLOUT),
                (
                    self.stdout.pipe.as_ref().map(AsFd::as_fd),
                    PollFlags::POLLIN,
                ),
                (
                    self.stderr.pipe.as_ref().map(AsFd::as_fd),
                    PollFlags::POLLIN,
                ),
            ];
            let mut polled: Vec<PollFd<'_>> = ends
                .iter()
                .filter_map(|(fd, flags)| fd.map(|fd| PollFd::new(fd, *flags)))
                .collect();
            let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
            match poll(&mut polled, timeout) {
                Err(nix::errno::Errno::EINTR) => return Ok(()),
                polled => polled?,
            };
            // In the order of the ends; one that is closed was not asked for.
            let mut events = polled.iter().map(|end| end.any().unwrap_or(true));
            let mut is_ready =
                |fd: Option<BorrowedFd<'_>>| fd.is_some() && events.next().unwrap_or(false);
            (
                is_ready(ends[0].0),
                is_ready(ends[1].0),
                is_ready(ends[2].0),
            )
        };
        if stdin {
            self.feed();
        }
        if stdout {
            self.stdout.listen(&mut |_| ())?;
        }
        if stderr {
            self.stderr.listen(tee)?;
        }
        Ok(())
    }

    /// Feeds nothing any more.
    pub fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// All that came on stdout and stderr.
    pub fn heard(self) -> (Vec<u8>, Vec<u8>) {
        (self.stdout.heard, self.stderr.heard)
    }

    fn feed(&mut self) {
        while let Some(pipe) = self.stdin.as_mut().filter(|_| !self.left.is_empty()) {
            match pipe.write(self.left) {
                Ok(written) => self.left = &self.left[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // A program that does not read its stdin closes it; that is its business (EPIPE).
                Err(_) => break,
            }
        }
        self.stdin = None;
    }
}

impl<P: Read> Ear<P> {
    /// Reads once, which does not block where there is something; closes what is at its end.
    fn listen(&mut self, tee: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        let before = self.heard.len();
        self.heard.resize(before + CHUNK, 0);
        let read = pipe.read(&mut self.heard[before..]);
        self.heard
            .truncate(before + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => self.pipe = None,
            Ok(_) => tee(&self.heard[before..]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.pipe = None,
        }
        if self.heard.len() > MOST {
            return Err(io::Error::other(format!(
                "it printed more than {} MiB",
                MOST >> 20
            )));
        }
        Ok(())
    }
}
