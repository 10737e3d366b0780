//! A socket of nfnetlink: transactions and dumps.
//!
//! nfnetlink works a datagram off inside of sendmsg(2) (net/netfilter/nfnetlink.c,
//! `nfnetlink_rcv`): when that returns, a transaction is done or refused, and its answers lie in
//! the receive queue.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR, NetlinkDeserializable, NetlinkHeader,
};
use netlink_packet_netfilter::{
    NetfilterMessage, NetfilterMessageInner,
    nftables::{GenMessage, NfTablesMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::{
    errno::Errno,
    libc::MSG_DONTWAIT,
    sys::{
        socket::{setsockopt, sockopt},
        time::TimeVal,
    },
};

use crate::{
    error::Failure,
    messages::{self, Part},
};

/// Length of `struct nlmsghdr`, include/uapi/linux/netlink.h.
const HEADER: usize = 16;
/// NLM_F_DUMP_INTR there: the dump was not taken in one piece.
const DUMP_INTERRUPTED: u16 = 0x10;
/// NLM_F_ACK_TLVS there, and NLMSGERR_ATTR_MSG: the kernel's explanation.
const ACK_HAS_ATTRIBUTES: u16 = 0x200;
const ATTRIBUTE_EXPLANATION: u16 = 1;
/// The longest datagram of a dump is 32 KiB (net/netlink/af_netlink.c, `netlink_recvmsg`).
const DATAGRAM_BYTES: usize = 64 << 10;
/// How often a dump is taken again because the table changed meanwhile.
const DUMP_ATTEMPTS: usize = 8;
/// How long the kernel may take for a part of a dump; this only keeps a broken kernel from hanging
/// us.
const TIMEOUT_SECONDS: i64 = 10;

pub(crate) struct Channel {
    socket: Socket,
    sequence: u32,
    incoming: Vec<u8>,
    /// What one datagram may be long.
    send_bytes: usize,
}

impl Channel {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open_here() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        let timeout = TimeVal::new(TIMEOUT_SECONDS, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
        Ok(Self {
            socket,
            sequence: 0,
            incoming: Vec::with_capacity(DATAGRAM_BYTES),
            send_bytes: 0,
        })
    }

    /// Does all parts, or none.
    pub(crate) fn transact(&mut self, parts: Vec<Part>) -> Result<(), Failure> {
        if parts.is_empty() {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let (bytes, last) = messages::transaction(parts, first);
        self.sequence = last.wrapping_add(1);
        self.make_room(bytes.len())?;
        self.socket.send(&bytes, 0)?;
        let (mut is_done, mut refusal) = (false, None);
        loop {
            match self.receive(MSG_DONTWAIT) {
                Ok(()) => {}
                Err(failure) if failure.errno == Errno::EAGAIN => break,
                Err(failure) => return Err(failure),
            }
            for message in split(&self.incoming) {
                let is_ours = message.sequence.wrapping_sub(first) <= last.wrapping_sub(first);
                if !is_ours || message.kind != NLMSG_ERROR {
                    continue;
                }
                match message.verdict() {
                    Ok(()) => is_done |= message.sequence == last,
                    Err(failure) => {
                        refusal.get_or_insert(failure);
                    }
                }
            }
        }
        match refusal {
            Some(failure) => Err(failure),
            None if is_done => Ok(()),
            None => Err(Errno::EPROTO.into()),
        }
    }

    /// A transaction is one datagram; what the kernel accepts as one is bounded by the send buffer.
    fn make_room(&mut self, bytes: usize) -> Result<(), Failure> {
        let needed = bytes + 4096;
        if needed > self.send_bytes {
            if setsockopt(&self.socket, sockopt::SndBufForce, &needed).is_err() {
                setsockopt(&self.socket, sockopt::SndBuf, &needed).map_err(Failure::from)?;
            }
            self.send_bytes = needed;
        }
        Ok(())
    }

    /// Takes a dump and reads each message; one that makes no sense is none of ours. The last
    /// attempt counts as it is.
    pub(crate) fn dump<T>(
        &mut self,
        request: &NfTablesMessage,
        each: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Failure> {
        let mut attempt = 1;
        loop {
            let (found, is_whole) = self.dump_once(request.clone(), &each)?;
            if is_whole || attempt == DUMP_ATTEMPTS {
                return Ok(found);
            }
            attempt += 1;
        }
    }

    /// Takes a dump of objects. (Too slow for lists of elements: reading one takes time that grows
    /// with the square of its length.)
    pub(crate) fn objects(
        &mut self,
        request: &NfTablesMessage,
    ) -> Result<Vec<NfTablesMessage>, Failure> {
        self.dump(request, |message| message.object())
    }

    fn dump_once<T>(
        &mut self,
        request: NfTablesMessage,
        each: &impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<(Vec<T>, bool), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut bytes = Vec::new();
        messages::push(&mut bytes, messages::inet(request), NLM_F_DUMP, sequence);
        self.socket.send(&bytes, 0)?;
        let (mut found, mut is_whole) = (Vec::new(), true);
        loop {
            self.receive(0)?;
            for message in split(&self.incoming).filter(|message| message.sequence == sequence) {
                is_whole &= message.flags & DUMP_INTERRUPTED == 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match message.verdict() {
                            Ok(()) => Ok((found, is_whole)),
                            // The rules changed while they were read (nf_tables_api.c).
                            Err(failure) if failure.errno == Errno::EINTR => Ok((found, false)),
                            Err(failure) => Err(failure),
                        };
                    }
                    _ => found.extend(each(&message)),
                }
            }
        }
    }

    /// Receives one datagram into `incoming`.
    fn receive(&mut self, flags: i32) -> Result<(), Failure> {
        loop {
            self.incoming.clear();
            match self.socket.recv(&mut self.incoming, flags) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether the kernel has nftables; it loads the module if it lacks it. Asks for the number of the
/// rules' generation, which changes nothing.
pub(crate) fn has_nftables() -> bool {
    let ask = || -> Result<bool, Failure> {
        let mut channel = Channel::open_here()?;
        let request = NfTablesMessage::GetGen(GenMessage { attributes: vec![] });
        let mut bytes = Vec::new();
        messages::push(&mut bytes, messages::inet(request), 0, 1);
        channel.socket.send(&bytes, 0)?;
        channel.receive(0)?;
        Ok(split(&channel.incoming).any(|message| message.kind != NLMSG_ERROR))
    };
    ask().unwrap_or(false)
}

/// A message that was received.
pub(crate) struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    /// What is behind its header, from `struct nfgenmsg` on.
    pub(crate) payload: &'a [u8],
}

impl Message<'_> {
    /// Reads an acknowledgement or the end of a dump.
    fn verdict(&self) -> Result<(), Failure> {
        let code = u32_at(self.payload, 0).map_or(-(Errno::EBADMSG as i32), u32::cast_signed);
        if code == 0 {
            return Ok(());
        }
        let skip = if self.kind == NLMSG_DONE {
            4
        } else {
            4 + HEADER
        };
        let reason = (self.flags & ACK_HAS_ATTRIBUTES != 0)
            .then(|| self.payload.get(skip..))
            .flatten()
            .and_then(explanation);
        Err(Failure {
            errno: Errno::from_raw(code.wrapping_neg()),
            reason,
        })
    }

    fn object(&self) -> Option<NfTablesMessage> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        match NetfilterMessage::deserialize(&header, self.payload) {
            Ok(message) => match message.inner {
                NetfilterMessageInner::NfTables(message) => Some(message),
                _ => None,
            },
            Err(error) => {
                tracing::debug!(%error, "an nftables object could not be read");
                None
            }
        }
    }
}

/// The text among the attributes behind an acknowledgement.
fn explanation(rest: &[u8]) -> Option<String> {
    let mut texts = attributes(rest).filter(|(kind, _)| *kind == ATTRIBUTE_EXPLANATION);
    let (_, text) = texts.next()?;
    let text = String::from_utf8_lossy(text);
    Some(text.trim_end_matches('\0').to_owned())
}

/// Splits netlink attributes into type and value (include/uapi/linux/netlink.h, `struct nlattr`);
/// ends at the first one that is not whole.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        // NLA_TYPE_MASK: less NLA_F_NESTED and NLA_F_NET_BYTEORDER.
        let kind = u16_at(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Splits a datagram; ends at the first message that is not whole.
fn split(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let message = datagram.get(..length)?;
        let found = Message {
            kind: u16_at(message, 4)?,
            flags: u16_at(message, 6)?,
            sequence: u32_at(message, 8)?,
            payload: message.get(HEADER..)?,
        };
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(found)
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
