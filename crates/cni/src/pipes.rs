//! The pipes of a program: one thread writes its stdin and reads both outputs at the same time.
//!
//! A thread for each pipe would be simpler to write, but takes as long to start as a small plugin
//! takes to run. This module does not know when a program has ended, and never waits for longer
//! than the caller allows.

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

/// How many bytes are read at once: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// More than any result. A program that prints without end must not use up the node's memory.
const MOST: usize = 16 << 20;

/// The pipes of a running program.
pub(crate) struct Pipes<'a> {
    stdin: Option<ChildStdin>,
    /// The rest of the input.
    left: &'a [u8],
    stdout: Output<ChildStdout>,
    stderr: Output<ChildStderr>,
}

/// An output and what was read from it.
struct Output<P> {
    pipe: Option<P>,
    bytes: Vec<u8>,
}

impl<'a> Pipes<'a> {
    /// The pipes of a program that was just started. `stdin` is its input.
    pub fn new(child: &mut Child, stdin: &'a [u8]) -> io::Result<Self> {
        let mut pipes = Self {
            stdin: child.stdin.take(),
            left: stdin,
            stdout: Output {
                pipe: child.stdout.take(),
                bytes: Vec::new(),
            },
            stderr: Output {
                pipe: child.stderr.take(),
                bytes: Vec::new(),
            },
        };
        if let Some(pipe) = &pipes.stdin {
            // If the input is longer than the pipe, we must not block: we have to read the outputs,
            // too. The program's own end of the pipe stays blocking.
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            pipes.write();
        }
        Ok(pipes)
    }

    /// Whether there may be something left to write or to read.
    pub fn is_open(&self) -> bool {
        self.stdin.is_some() || self.has_outputs()
    }

    /// Whether there may be something left to read.
    pub fn has_outputs(&self) -> bool {
        self.stdout.pipe.is_some() || self.stderr.pipe.is_some()
    }

    /// Writes and reads what is possible now, and waits for it at most for this time. Copies
    /// stderr, too. Fails if the program prints too much.
    pub fn step(&mut self, timeout: Duration, tee: &mut dyn FnMut(&[u8])) -> io::Result<()> {
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
            // In the order of the ends. A closed one was not polled.
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
            self.write();
        }
        if stdout {
            self.stdout.read(&mut |_| ())?;
        }
        if stderr {
            self.stderr.read(tee)?;
        }
        Ok(())
    }

    /// Closes stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// All of stdout and stderr.
    pub fn into_output(self) -> (Vec<u8>, Vec<u8>) {
        (self.stdout.bytes, self.stderr.bytes)
    }

    fn write(&mut self) {
        while let Some(pipe) = self.stdin.as_mut().filter(|_| !self.left.is_empty()) {
            match pipe.write(self.left) {
                Ok(written) => self.left = &self.left[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // A program may close its stdin without reading it (EPIPE).
                Err(_) => break,
            }
        }
        self.stdin = None;
    }
}

impl<P: Read> Output<P> {
    /// Reads once. Does not block if there is something to read. Closes an output at its end.
    fn read(&mut self, tee: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        let before = self.bytes.len();
        self.bytes.resize(before + CHUNK, 0);
        let read = pipe.read(&mut self.bytes[before..]);
        self.bytes
            .truncate(before + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => self.pipe = None,
            Ok(_) => tee(&self.bytes[before..]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.pipe = None,
        }
        if self.bytes.len() > MOST {
            return Err(io::Error::other(format!(
                "it printed more than {} MiB",
                MOST >> 20
            )));
        }
        Ok(())
    }
}
