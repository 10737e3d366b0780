//! Raw Ethernet frames, sent and received by packet sockets.

use std::{
    mem,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    libc,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};
use ratchet_kernel::NetnsHandle;

use crate::world::within;

const DEADLINE: Duration = Duration::from_secs(5);

/// TP_STATUS_VLAN_VALID, include/uapi/linux/if_packet.h: the kernel has taken a VLAN tag out of the
/// frame and tells it beside.
const VLAN_VALID: u32 = 1 << 4;

/// A packet socket on one interface.
pub struct Port {
    socket: OwnedFd,
    index: i32,
}

impl Port {
    pub fn open(netns: &NetnsHandle, name: &str) -> Self {
        let (socket, index) = within(netns, || {
            let flags = SockFlag::SOCK_CLOEXEC;
            let all = SockProtocol::EthAll;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, all).unwrap();
            let index = nix::net::if_::if_nametoindex(name).unwrap();
            (socket, i32::try_from(index).unwrap())
        });
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(1, 0)).unwrap();
        let port = Self { socket, index };
        port.bind();
        port
    }

    fn address(&self) -> libc::sockaddr_ll {
        // SAFETY: all bytes zero are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = self.index;
        address
    }

    fn bind(&self) {
        let address = self.address();
        let length = mem::size_of_val(&address) as u32;
        let on: libc::c_int = 1;
        // SAFETY: the pointers are to live values of the lengths that are given.
        let results = unsafe {
            [
                libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), length),
                libc::setsockopt(
                    self.socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    libc::PACKET_AUXDATA,
                    (&raw const on).cast(),
                    mem::size_of_val(&on) as u32,
                ),
            ]
        };
        assert_eq!(results, [0, 0], "{}", std::io::Error::last_os_error());
    }

    pub fn send(&self, frame: &[u8]) {
        let flags = MsgFlags::empty();
        let sent = nix::sys::socket::send(self.socket.as_raw_fd(), frame, flags);
        assert_eq!(sent, Ok(frame.len()), "{frame:02x?}");
    }

    /// The next frame from outside, with its VLAN tag.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(frame) = self.receive_one() {
                return Some(frame);
            }
        }
        None
    }

    /// Frames up to one that ends with `last`.
    pub fn receive_until(&self, last: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Some(frame) = self.receive() {
            if frame.ends_with(last) {
                return found;
            }
            found.push(frame);
        }
        panic!("no frame that ends with {last:02x?}: {found:02x?}");
    }

    fn receive_one(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0_u8; 70_000];
        let mut control = [0_u64; 16];
        let mut part = libc::iovec {
            iov_base: frame.as_mut_ptr().cast(),
            iov_len: frame.len(),
        };
        let mut from = self.address();
        // SAFETY: all bytes zero are a valid msghdr; it points to live buffers of these lengths,
        // and the control messages are read as far as the kernel says that it wrote them.
        let (length, tag) = unsafe {
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_name = (&raw mut from).cast();
            message.msg_namelen = mem::size_of_val(&from) as u32;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = mem::size_of_val(&control) as _;
            let length = libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0);
            (usize::try_from(length).ok()?, tag(&message))
        };
        frame.truncate(length);
        if i32::from(from.sll_pkttype) == i32::from(libc::PACKET_OUTGOING) {
            return None;
        }
        if let Some(tag) = tag {
            frame.splice(12..12, tag);
        }
        Some(frame)
    }
}

/// The VLAN tag that was received beside a frame.
///
/// # Safety
/// The message is one that recvmsg(2) has filled.
unsafe fn tag(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: as the caller says.
    let data = unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null() || (*header).cmsg_type != libc::PACKET_AUXDATA {
            return None;
        }
        libc::CMSG_DATA(header)
            .cast::<libc::tpacket_auxdata>()
            .read_unaligned()
    };
    let [a, b] = data.tp_vlan_tpid.to_be_bytes();
    let [c, d] = data.tp_vlan_tci.to_be_bytes();
    (data.tp_status & VLAN_VALID != 0).then_some([a, b, c, d])
}

/// A frame: destination, what follows the source, and bytes that no two frames share.
pub fn frame(destination: [u8; 6], rest: &[u8], number: u8, length: usize) -> Vec<u8> {
    let source = [2, 0, 0, 0, 0xee, number];
    let mut frame = [&destination[..], &source, rest].concat();
    let start = frame.len();
    frame.resize(length.max(start), 0);
    for (at, byte) in frame[start..].iter_mut().enumerate() {
        *byte = number.wrapping_add(at as u8);
    }
    frame
}

/// Frames of all kinds that a cable must carry, the longest for this MTU.
pub fn samples(mtu: usize) -> Vec<Vec<u8>> {
    let group = |last| [1, 0x80, 0xc2, 0, 0, last];
    let neighbour = [2, 0, 0, 0, 0, 9];
    let kinds: Vec<([u8; 6], Vec<u8>)> = vec![
        (group(0x0e), vec![0x88, 0xcc]),                              // LLDP
        (group(0x02), vec![0x88, 0x09, 1]),                           // LACP
        (group(0x00), vec![0, 38, 0x42, 0x42, 3]),                    // STP
        (group(0x01), vec![0x88, 0x08, 0, 1, 0, 9]),                  // PAUSE
        (group(0x14), vec![5, 0xdc, 0xfe, 0xfe, 3, 0x83]),            // IS-IS
        (group(0x03), vec![0x88, 0x8e]),                              // EAPOL
        ([1, 0, 0x0c, 0xcc, 0xcc, 0xcc], vec![0, 64, 0xaa, 0xaa, 3]), // CDP
        ([0xff; 6], vec![8, 6, 0, 1, 8, 0, 6, 4, 0, 1]),              // ARP
        (neighbour, vec![8, 0, 0x45, 0, 0, 9]),                       // IPv4, malformed
        (neighbour, vec![0x86, 0xdd, 0x60, 0, 0, 0]),                 // IPv6, malformed
        (neighbour, vec![0x81, 0, 0, 5, 8, 0]),                       // 802.1Q
        (neighbour, vec![0x81, 0, 0x20, 0, 8, 0]),                    // 802.1Q, priority only
        (neighbour, vec![0x88, 0xa8, 0, 7, 0x81, 0, 0, 5, 8, 0]),     // 802.1ad
        (neighbour, vec![0xff, 0xff]),                                // a type of nobody's
    ];
    let lengths = [60, 61, 64, 128, 590, mtu + 14];
    let mut frames = Vec::new();
    for (destination, rest) in &kinds {
        for length in lengths {
            let number = u8::try_from(frames.len()).unwrap();
            frames.push(frame(*destination, rest, number, length));
        }
    }
    frames
}
