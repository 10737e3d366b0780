//! Packets as forgers make them, sent from a namespace. The tests of real agents use them, too.

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::{AtomicU8, Ordering},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
        socket,
    },
};

/// The UDP port of tunnels.
pub const PORT: u16 = 4789;

/// Runs something in a namespace.
pub fn within<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = || {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        scope.spawn(inside).join().unwrap()
    })
}

/// An Ethernet frame with a UDP datagram for a pod, as the pod of another node sends it.
pub fn frame(from: usize, to: usize, port: u16, text: &str) -> Vec<u8> {
    let [from, to] = [from, to].map(|node| u8::try_from(node).unwrap());
    let udp = udp_datagram(port, port, text.as_bytes());
    let source = [10, 1, 0, from];
    let ip = ipv4_packet(source, [10, 1, 0, to], 0, 0, &udp);
    let addresses = [[2, 0, 0, 0, 0, to], [2, 0, 0, 0, 0, from]].concat();
    [&addresses[..], &[8, 0], &ip].concat()
}

/// A VXLAN header with a frame behind it.
pub fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    let header = [[8, 0, 0, 0], (vni << 8).to_be_bytes()].concat();
    [&header, frame].concat()
}

/// Without a checksum, which both inside of a tunnel and for one over IPv4 is allowed.
fn udp_datagram(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let header: Vec<u8> = [source, destination, length, 0]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    [&header, payload].concat()
}

/// `offset` is the fragment field: flags and an offset in units of 8 bytes.
fn ipv4_packet(source: [u8; 4], target: [u8; 4], id: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let [high, low] = offset.to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0x47, id, high, low];
    header.extend([64, 17, 0, 0]);
    header.extend(source.iter().chain(&target));
    let words = header
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    header[10..12].copy_from_slice(&(!folded).to_be_bytes());
    [&header, payload].concat()
}

/// An IPv6 packet with a fragment header.
fn ipv6_fragment(source: IpAddr, target: IpAddr, id: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(_) => panic!("not IPv6"),
    };
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], 44, 64];
    packet.extend(octets(source).iter().chain(&octets(target)));
    // More fragments is the lowest bit here, and the offset begins at the fourth.
    let field = (offset & 0x1fff) << 3 | u16::from(offset & 0x2000 != 0);
    packet.extend([17, 0]);
    packet.extend(field.to_be_bytes());
    packet.extend([0x47, 0x11, 0x47, id]);
    [&packet, payload].concat()
}

/// Sends VXLAN packets from a node as any program can.
pub fn forge(node: &File, from: IpAddr, to: IpAddr, payload: &[u8]) -> io::Result<()> {
    within(node, || {
        let socket = UdpSocket::bind((from, 0))?;
        socket.send_to(payload, SocketAddr::new(to, PORT)).map(drop)
    })
}

/// Sends a UDP datagram in two fragments, of which the first has so many bytes.
pub fn forge_in_fragments(node: &File, from: IpAddr, to: IpAddr, payload: &[u8], first: usize) {
    const MORE: u16 = 0x2000;
    /// Fragments that were let through must not be completed by those of another datagram.
    static ID: AtomicU8 = AtomicU8::new(0);
    let id = ID.fetch_add(1, Ordering::Relaxed);
    let mut datagram = udp_datagram(40000, PORT, payload);
    if from.is_ipv6() {
        let sum = checksum_v6(from, to, &datagram);
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    let (head, tail) = datagram.split_at(first);
    let offset = u16::try_from(first / 8).unwrap();
    let packet = |offset, part: &[u8]| match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            ipv4_packet(from.octets(), to.octets(), id, offset, part)
        }
        _ => ipv6_fragment(from, to, id, offset, part),
    };
    let packets = [packet(MORE, head), packet(offset, tail)];
    within(node, || {
        let socket = raw_socket(to);
        for packet in &packets {
            send_raw(&socket, to, packet);
        }
    });
}

fn checksum_v6(from: IpAddr, to: IpAddr, datagram: &[u8]) -> u16 {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else {
        panic!("not IPv6");
    };
    let length = u32::try_from(datagram.len()).unwrap().to_be_bytes();
    let pseudo = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, 17]].concat();
    let mut bytes = [&pseudo, datagram].concat();
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let words = bytes
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn raw_socket(to: IpAddr) -> OwnedFd {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    // With IPPROTO_RAW the program makes the header.
    socket(
        family,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Raw,
    )
    .unwrap()
}

fn send_raw(socket: &OwnedFd, to: IpAddr, packet: &[u8]) {
    let fd = socket.as_raw_fd();
    let sent = match to {
        IpAddr::V4(to) => {
            let there = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
            sendto(fd, packet, &there, MsgFlags::empty())
        }
        IpAddr::V6(to) => {
            let there = SockaddrIn6::from(std::net::SocketAddrV6::new(to, 0, 0, 0));
            sendto(fd, packet, &there, MsgFlags::empty())
        }
    };
    sent.unwrap();
}
