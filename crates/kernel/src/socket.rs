//! A netlink route socket in one namespace, and three ways to talk over it: many requests that are
//! only acknowledged, many that are answered, and dumps. It knows nothing of devices.
//!
//! rtnetlink works a request off inside of sendmsg(2) (net/core/rtnetlink.c, `rtnetlink_rcv`): once
//! a batch is sent everything in it has been done and every answer lies in the receive queue. What
//! bounds a batch therefore is the room in that queue.

mod message;

use std::{io, time::Duration};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt},
        time::TimeVal,
    },
};
use ratchet_failpoint as failpoint;

use crate::{
    netns::{NetnsHandle, inside_each},
    reply, request,
};
pub(crate) use message::messages;
use message::push;
pub(crate) use message::{Failure, Request};

/// The receive queue we ask for. The kernel charges buffers by their true size, some 1 KiB for an
/// acknowledgement and 5 KiB for a device.
const RECEIVE_BYTES: usize = 4 << 20;
/// The part of it that is set aside for the answer to one request.
const ANSWER_BYTES: usize = 16 << 10;
/// The longest batch, in requests and in bytes.
const BATCH_REQUESTS: usize = 128;
const BATCH_BYTES: usize = 60 << 10;
/// The longest datagram that the kernel makes for a dump is 32 KiB (net/netlink/af_netlink.c,
/// `netlink_recvmsg`); one device with many virtual functions may be longer.
const DATAGRAM_BYTES: usize = 128 << 10;
/// Answers are there when sendmsg returns; this only keeps a kernel that breaks that from hanging
/// us.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a dump is taken again because devices came or went meanwhile.
const DUMP_ATTEMPTS: usize = 4;

/// The answer to a request of [`Channel::fetch`]: the payload of the message that came.
pub(crate) type Answer = Result<Vec<u8>, Failure>;

/// A socket with its buffers.
pub(crate) struct Channel {
    socket: Socket,
    sequence: u32,
    /// Requests that may be under way at once.
    window: usize,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// The number of the node's namespace in this one, which never changes.
    node_number: Option<i32>,
}

impl Channel {
    /// Opens a socket inside of each of these namespaces.
    pub(crate) fn open(namespaces: &[&NetnsHandle]) -> io::Result<Vec<io::Result<Self>>> {
        let sockets = inside_each(namespaces, || Socket::new(NETLINK_ROUTE))?;
        Ok(sockets
            .into_iter()
            .map(|socket| socket.and_then(Self::over))
            .collect())
    }

    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open_here() -> io::Result<Self> {
        Self::over(Socket::new(NETLINK_ROUTE)?)
    }

    fn over(mut socket: Socket) -> io::Result<Self> {
        socket.bind_auto()?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        // Without CAP_NET_ADMIN in the initial user namespace net.core.rmem_max bounds the queue;
        // the window adapts.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BYTES)?;
        }
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::new(TIMEOUT.as_secs().cast_signed(), 0),
        )?;
        let window = (socket.get_rx_buf_sz()? / ANSWER_BYTES).clamp(1, BATCH_REQUESTS);
        Ok(Self {
            socket,
            sequence: 0,
            window,
            outgoing: Vec::new(),
            incoming: Vec::with_capacity(DATAGRAM_BYTES),
            node_number: None,
        })
    }

    /// The number that the node's namespace has in this one, if it has one.
    pub(crate) fn number_of_node(&mut self, node: &NetnsHandle) -> Result<Option<i32>, Failure> {
        if self.node_number.is_none() {
            let asked = vec![request::get_namespace_number(node.raw_fd())];
            let answer = self.fetch(asked).pop();
            let payload = answer.unwrap_or(Err(Errno::EIO.into()))?;
            self.node_number = reply::namespace_number(&payload);
        }
        Ok(self.node_number)
    }

    /// Has requests done, in order; a refused one does not keep the later ones from being done.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> Vec<Result<(), Failure>> {
        if failpoint::is_counting() {
            return requests
                .into_iter()
                .map(|request| self.single(request))
                .collect();
        }
        self.exchange(requests, NLM_F_ACK)
            .into_iter()
            .map(|answer| answer.map(drop))
            .collect()
    }

    /// One request by itself, with a point behind it.
    fn single(&mut self, request: Request) -> Result<(), Failure> {
        let answer = self
            .exchange(vec![request], NLM_F_ACK)
            .pop()
            .unwrap_or(Err(Errno::EIO.into()));
        failpoint::pass("kernel.request");
        answer.map(drop)
    }

    /// Has one request done.
    pub(crate) fn once(&mut self, request: Request) -> Result<(), Failure> {
        self.batch(vec![request])
            .pop()
            .unwrap_or(Err(Errno::EIO.into()))
    }

    /// Asks questions that have exactly one message for an answer.
    pub(crate) fn fetch(&mut self, requests: Vec<Request>) -> Vec<Answer> {
        self.exchange(requests, 0)
    }

    /// Takes a dump, and reads every message's payload with `each`. When devices came or went
    /// meanwhile it is taken again; the last attempt counts as it is, since what neither came nor
    /// went is in all of them.
    pub(crate) fn dump<T>(
        &mut self,
        request: Request,
        each: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Failure> {
        let mut attempt = 1;
        loop {
            let (found, whole) = self.dump_once(request.clone(), &each)?;
            if whole || attempt == DUMP_ATTEMPTS {
                if !whole {
                    tracing::debug!(attempt, "netlink dump taken while devices came and went");
                }
                return Ok(found);
            }
            attempt += 1;
        }
    }

    fn dump_once<T>(
        &mut self,
        request: Request,
        each: &impl Fn(&[u8]) -> Option<T>,
    ) -> Result<(Vec<T>, bool), Failure> {
        let sequence = self.sequence.wrapping_add(1);
        self.sequence = sequence;
        self.outgoing.clear();
        push(&mut self.outgoing, request, NLM_F_DUMP, sequence);
        self.socket.send(&self.outgoing, 0)?;
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            self.receive(0)?;
            for message in messages(&self.incoming).filter(|message| message.sequence == sequence) {
                whole &= !message.is_interrupted();
                match message.kind {
                    // Both begin with an error number; an acknowledgement without one does not
                    // occur in dumps.
                    NLMSG_ERROR | NLMSG_DONE => return message.verdict().map(|()| (found, whole)),
                    _ => found.extend(each(message.payload)),
                }
            }
        }
    }

    fn exchange(&mut self, requests: Vec<Request>, flags: u16) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            self.outgoing.clear();
            let first = self.sequence.wrapping_add(1);
            let mut count = 0;
            while count < self.window && self.outgoing.len() < BATCH_BYTES {
                let Some(request) = requests.next() else {
                    break;
                };
                self.sequence = self.sequence.wrapping_add(1);
                push(&mut self.outgoing, request, flags, self.sequence);
                count += 1;
            }
            self.round(first, count, &mut answers);
        }
        answers
    }

    /// Sends what is in `outgoing` and collects the answers to its `count` requests.
    fn round(&mut self, first: u32, count: usize, answers: &mut Vec<Answer>) {
        let mut round: Vec<Option<Answer>> = vec![None; count];
        let mut missing = count;
        let mut wait = 0;
        let mut unanswered = Failure::from(Errno::ENOBUFS);
        if let Err(error) = self.socket.send(&self.outgoing, 0) {
            unanswered = error.into();
            missing = 0;
        }
        while missing > 0 {
            match self.receive(wait) {
                Ok(()) => {}
                // The queue overflowed: answers were lost, though the work was done. Take what is
                // left.
                Err(failure) if failure.errno == Errno::ENOBUFS => {
                    wait = nix::libc::MSG_DONTWAIT;
                    continue;
                }
                Err(failure) => {
                    if wait == 0 {
                        unanswered = failure;
                    }
                    break;
                }
            }
            for message in messages(&self.incoming) {
                // Of an earlier batch that went wrong: not ours to read.
                let Some(slot) = round.get_mut(message.sequence.wrapping_sub(first) as usize)
                else {
                    continue;
                };
                let answer = match message.kind {
                    NLMSG_ERROR => message.verdict().map(|()| Vec::new()),
                    _ => Ok(message.payload.to_vec()),
                };
                if slot.replace(answer).is_none() {
                    missing -= 1;
                }
            }
        }
        answers.extend(
            round
                .into_iter()
                .map(|answer| answer.unwrap_or_else(|| Err(unanswered.clone()))),
        );
    }

    /// Receives one datagram into `incoming`.
    fn receive(&mut self, flags: i32) -> Result<(), Failure> {
        loop {
            self.incoming.clear();
            // MSG_TRUNC: the real length is returned even when the datagram was longer than the
            // buffer.
            match self
                .socket
                .recv(&mut self.incoming, flags | nix::libc::MSG_TRUNC)
            {
                Ok(length) if length > self.incoming.len() => return Err(Errno::EMSGSIZE.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Errno::ETIMEDOUT.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
