//! Hears of the carriers of node ends: of pods that set their ends of stitched links up and down.
//!
//! It only hears, and what it says is a hint: who reads it looks at the devices. A pod's end that
//! is down shows as a node end that is up and has no carrier. A node end that is down itself says
//! nothing of its pod.

use std::{
    collections::{BTreeSet, HashMap},
    io,
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    libc::MSG_DONTWAIT,
    sys::socket::{setsockopt, sockopt},
};
use ratchet_model::{
    LinkId,
    device::{Netns, Observed, Part},
};

use crate::{
    error::{KernelError, errno_of},
    observe, reply, request,
    socket::{Channel, messages},
};

/// RTMGRP_LINK, RTM_NEWLINK and RTM_DELLINK, include/uapi/linux/rtnetlink.h.
const LINKS: u32 = 1;
const NEW_LINK: u16 = 16;
const DELETED_LINK: u16 = 17;
/// The end of a namespace with 1,500 interfaces is heard in one go.
const RECEIVE_BYTES: usize = 4 << 20;
const DATAGRAM_BYTES: usize = 64 << 10;

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CarrierNews {
    /// The carriers of these links' node ends have changed.
    Of(BTreeSet<LinkId>),
    /// There was more than could be heard: any may have changed.
    Lost,
}

/// A socket that hears of devices in the namespace in which it was made.
pub struct Carriers {
    socket: Socket,
    /// The carriers of node ends that are up, by index.
    known: HashMap<u32, bool>,
    incoming: Vec<u8>,
}

impl Carriers {
    /// Listens in the calling thread's namespace.
    ///
    /// # Errors
    /// When the kernel has no such socket.
    pub fn listen() -> Result<Self, KernelError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, LINKS))?;
            if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES).is_err() {
                setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BYTES)?;
            }
            Ok(socket)
        };
        let opened: io::Result<Socket> = open();
        let socket = opened.map_err(|error| KernelError::io("listen to devices", &error))?;
        let mut carriers = Self {
            socket,
            known: HashMap::new(),
            incoming: Vec::with_capacity(DATAGRAM_BYTES),
        };
        carriers.look()?;
        Ok(carriers)
    }

    /// Learns how the carriers are now: what is heard from here on is compared with that.
    fn look(&mut self) -> Result<(), KernelError> {
        let open = Channel::open_here();
        let mut channel = open.map_err(|error| KernelError::io("open a netlink socket", &error))?;
        let read = |payload: &[u8]| reply::link(&Netns::Node, payload);
        let found = channel.dump(request::dump_links(), read);
        let found = found.map_err(|failure| observe::refused("read devices".into(), failure))?;
        let carriers = found
            .into_iter()
            .filter(|device| device.up && link_of(device).is_some());
        self.known = carriers
            .map(|device| (device.index, device.carrier))
            .collect();
        Ok(())
    }

    /// Waits for a change, and reads all that there is to hear.
    ///
    /// # Errors
    /// When the socket is of no use any more.
    pub fn read(&mut self) -> Result<CarrierNews, KernelError> {
        let (mut links, mut is_lost) = (BTreeSet::new(), false);
        loop {
            // What comes at once is told at once.
            let has_news = is_lost || !links.is_empty();
            let flags = if has_news { MSG_DONTWAIT } else { 0 };
            self.incoming.clear();
            match self.socket.recv(&mut self.incoming, flags) {
                Ok(_) => {
                    let known = &mut self.known;
                    let heard = messages(&self.incoming);
                    let heard = heard.map(|message| (message.kind, message.payload));
                    links.extend(heard.filter_map(|heard| hear(known, heard)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if errno_of(&error) == Errno::ENOBUFS => is_lost = true,
                Err(error) => return Err(KernelError::io("listen to devices", &error)),
            }
        }
        if is_lost {
            self.look()?;
            return Ok(CarrierNews::Lost);
        }
        Ok(CarrierNews::Of(links))
    }
}

/// The link whose carrier has changed by a message. What is heard first of a node end, and is as it
/// is made, is no change.
fn hear(known: &mut HashMap<u32, bool>, (kind, payload): (u16, &[u8])) -> Option<LinkId> {
    if !matches!(kind, NEW_LINK | DELETED_LINK) {
        return None;
    }
    let device = reply::link(&Netns::Node, payload)?;
    let link = link_of(&device)?;
    if kind == DELETED_LINK {
        known.remove(&device.index);
        return None;
    }
    if !device.up {
        return None;
    }
    let before = known.insert(device.index, device.carrier).unwrap_or(true);
    (before != device.carrier).then_some(link)
}

/// The link of which a device says that it is a node end.
fn link_of(device: &Observed) -> Option<LinkId> {
    let alias = device.unproven.as_ref();
    let node_end = alias.filter(|alias| alias.part == Part::Node);
    node_end.map(|alias| alias.link)
}

#[cfg(test)]
mod tests;
