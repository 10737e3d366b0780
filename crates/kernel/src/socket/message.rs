//! The messages of a netlink socket: requests as they are written into a batch, and the kernel's
//! messages as they are read out of a datagram. It sends and receives nothing.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NLMSG_DONE, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

use crate::{
    error::errno_of,
    reply::{attributes, u32_at},
};

/// Length of `struct nlmsghdr`, include/uapi/linux/netlink.h.
const HEADER: usize = 16;
/// NLM_F_DUMP_INTR there: the dump was not taken in one piece.
const DUMP_INTERRUPTED: u16 = 0x10;
/// NLM_F_ACK_TLVS there: attributes follow the acknowledgement.
const ACK_HAS_ATTRIBUTES: u16 = 0x200;
/// NLMSGERR_ATTR_MSG there: the kernel's explanation.
const ATTRIBUTE_EXPLANATION: u16 = 1;

/// One rtnetlink request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    /// NLM_F_* beside NLM_F_REQUEST and those that the way of talking adds.
    pub(crate) flags: u16,
}

/// The kernel's refusal of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) errno: Errno,
    pub(crate) reason: Option<String>,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self {
            errno,
            reason: None,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        errno_of(&error).into()
    }
}

/// Appends a request to a batch.
pub(super) fn push(batch: &mut Vec<u8>, request: Request, flags: u16, sequence: u32) {
    let mut message = NetlinkMessage::from(request.message);
    message.header.flags = NLM_F_REQUEST | request.flags | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let start = batch.len();
    batch.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut batch[start..]);
}

/// A message of the kernel's.
pub(crate) struct Message<'a> {
    pub kind: u16,
    flags: u16,
    pub sequence: u32,
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// Whether it is of a dump that was not taken in one piece.
    pub fn is_interrupted(&self) -> bool {
        self.flags & DUMP_INTERRUPTED != 0
    }

    /// Reads an acknowledgement, `struct nlmsgerr`: a negative error number, the request's header,
    /// and, since NETLINK_CAP_ACK leaves out the rest of the request, attributes. A dump's end has
    /// no header in between.
    pub fn verdict(&self) -> Result<(), Failure> {
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
            .and_then(|rest| attributes(rest).find(|(kind, _)| *kind == ATTRIBUTE_EXPLANATION))
            .map(|(_, text)| {
                String::from_utf8_lossy(text)
                    .trim_end_matches('\0')
                    .to_owned()
            });
        Err(Failure {
            errno: Errno::from_raw(code.wrapping_neg()),
            reason,
        })
    }
}

/// Splits a datagram; ends at the first message that is not whole.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let message = datagram.get(..length)?;
        let half = |at: usize| {
            Some(u16::from_ne_bytes(
                message.get(at..at + 2)?.try_into().ok()?,
            ))
        };
        let found = Message {
            kind: half(4)?,
            flags: half(6)?,
            sequence: u32_at(message, 8)?,
            payload: message.get(HEADER..)?,
        };
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(found)
    })
}
