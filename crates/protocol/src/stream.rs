//! A stream to the agent on which connecting, reading and writing share one deadline.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
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

/// A unix stream with a deadline. The timeouts of a socket start again with every byte, so they are
/// set before each call, to the time that is left.
#[derive(Debug)]
pub(crate) struct DeadlineStream {
    stream: UnixStream,
    timeout: Duration,
    deadline: Option<Instant>,
}

impl DeadlineStream {
    /// Connects. The deadline is `timeout` from now.
    pub fn connect(path: &Path, timeout: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + timeout;
        let fd = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let address = UnixAddr::new(path)?;
        loop {
            // If the listener's queue is full, the kernel waits for room, as long as a send may
            // take (net/unix/af_unix.c, `unix_stream_connect`). Zero would mean for ever.
            let left = deadline
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            let left = TimeVal::new(seconds, left.subsec_micros().into());
            setsockopt(&fd, SendTimeout, &left)?;
            match connect(fd.as_raw_fd(), &address) {
                Ok(()) => {
                    return Ok(Self {
                        stream: fd.into(),
                        timeout,
                        deadline: Some(deadline),
                    });
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(timed_out(timeout)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Removes the deadline: reads and writes may take any time.
    pub fn remove_deadline(&mut self) {
        self.deadline = None;
    }

    /// The time that is left; `None` if there is no deadline.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            Err(timed_out(self.timeout))
        } else {
            Ok(left)
        }
    }

    /// A timeout of the socket looks like a call that would block (socket(7), SO_RCVTIMEO).
    fn checked(&self, result: io::Result<usize>) -> io::Result<usize> {
        result.map_err(|error| {
            if error.kind() == ErrorKind::WouldBlock {
                timed_out(self.timeout)
            } else {
                error
            }
        })
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.checked((&self.stream).read(buffer))
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.checked((&self.stream).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn timed_out(timeout: Duration) -> io::Error {
    io::Error::new(
        ErrorKind::TimedOut,
        format!("no answer within {:.1} s", timeout.as_secs_f32()),
    )
}
