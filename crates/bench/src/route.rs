//! Counts a namespace's interfaces and addresses by a netlink dump, without a process, so that
//! waiting for them takes nearly no time from the work that is measured.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Result, bail};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::world::Netns;

/// include/uapi/linux/rtnetlink.h and netlink.h.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
const REQUEST_DUMP: u16 = 0x301;
const AF_INET: u8 = 2;
/// `RTMGRP_LINK | RTMGRP_IPV4_IFADDR`.
const GROUPS: u32 = 0x11;
/// include/uapi/linux/if.h.
const IFF_UP: u32 = 1;
/// The loopback interface's index.
const LOOPBACK: u32 = 1;

/// Counts the interfaces of a namespace, without loopback.
pub struct Interfaces {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Interfaces {
    /// A counter for this namespace.
    pub fn of(netns: &Netns) -> Result<Self> {
        Ok(Self {
            socket: netns.routing_socket(0)?,
            buffer: vec![0; 1 << 16],
        })
    }

    /// Whether `count` interfaces are up and have an IPv4 address each. The dump of interfaces is
    /// the more expensive one, so it is made only when the addresses are complete.
    pub fn are_complete(&mut self, count: usize) -> Result<bool> {
        if self.dump(RTM_GETADDR, 8, |kind, body| {
            kind == RTM_NEWADDR && word(body, 4) != LOOPBACK
        })? < count
        {
            return Ok(false);
        }
        let is_up = |kind, body: &[u8]| {
            kind == RTM_NEWLINK && word(body, 4) != LOOPBACK && word(body, 8) & IFF_UP != 0
        };
        Ok(self.dump(RTM_GETLINK, 16, is_up)? >= count)
    }

    /// The number of interfaces, up or not.
    pub fn count(&mut self) -> Result<usize> {
        self.dump(RTM_GETLINK, 16, |kind, body| {
            kind == RTM_NEWLINK && word(body, 4) != LOOPBACK
        })
    }

    /// Requests a dump and returns the number of messages for which `counts` is true. `length` is
    /// the length of the request's own header, whose first byte is the address family.
    fn dump(
        &mut self,
        request: u16,
        length: u8,
        counts: impl Fn(u16, &[u8]) -> bool,
    ) -> Result<usize> {
        let mut message = Vec::with_capacity(32);
        message.extend((16 + u32::from(length)).to_ne_bytes());
        message.extend(request.to_ne_bytes());
        message.extend(REQUEST_DUMP.to_ne_bytes());
        message.extend([0; 8]);
        message.push(if request == RTM_GETADDR { AF_INET } else { 0 });
        message.resize(16 + usize::from(length), 0);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut count = 0;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            for (kind, body) in messages(&self.buffer[..length]) {
                match kind {
                    NLMSG_DONE => return Ok(count),
                    NLMSG_ERROR => bail!("the kernel refuses to list interfaces or addresses"),
                    _ => count += usize::from(counts(kind, body)),
                }
            }
        }
    }
}

/// Waits for an interface to be up with an address.
pub struct Arrival {
    socket: OwnedFd,
}

impl Arrival {
    /// Starts to listen to a namespace.
    pub fn of(netns: &Netns) -> Result<Self> {
        let socket = netns.routing_socket(GROUPS)?;
        let timeout = nix::sys::time::TimeVal::new(20, 0);
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::ReceiveTimeout, &timeout)?;
        Ok(Self { socket })
    }

    /// Returns when an interface is up and has an address.
    pub fn wait(&self) -> Result<()> {
        let (mut is_up, mut has_address) = (false, false);
        let mut buffer = vec![0; 1 << 15];
        while !(is_up && has_address) {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, body) in messages(&buffer[..length]) {
                is_up |= kind == RTM_NEWLINK && word(body, 8) & IFF_UP != 0;
                has_address |= kind == RTM_NEWADDR;
            }
        }
        Ok(())
    }
}

/// The number at this offset of a message; 0 if the message is too short.
fn word(body: &[u8], at: usize) -> u32 {
    body.get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

/// Splits received bytes into messages: type and payload.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let payload = rest.get(16..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}
