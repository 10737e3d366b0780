//! Nodes on a common wire, and pods with VXLAN devices whose sockets are on their nodes.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    process::Command,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use ratchet_filter::Filter;
use ratchet_model::device::{Passage, SourcePorts};

use crate::packet::{self, PORT, within};

/// The port in a pod that listens.
const LISTENING: u16 = 7777;

/// A new network namespace.
pub fn fresh() -> File {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        File::open("/proc/thread-self/ns/net").unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

/// Runs a command line in a namespace, which must succeed.
pub fn sh(netns: &File, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let output = within(netns, || {
        Command::new(words[0]).args(&words[1..]).output().unwrap()
    });
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {text}");
    text.into_owned()
}

/// A path by which other processes find a namespace.
fn path(netns: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd())
}

/// The family of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Three nodes, 1 to 3, with the addresses 192.0.2.N and fd00::N.
pub struct Site {
    _wire: File,
    nodes: Vec<File>,
}

impl Site {
    pub fn new() -> Self {
        let wire = fresh();
        sh(&wire, "ip link add br0 type bridge");
        sh(&wire, "ip link set br0 up");
        let nodes: Vec<File> = (0..3).map(|_| fresh()).collect();
        for (number, node) in (1..).zip(&nodes) {
            let there = path(node);
            let port = format!("port{number}");
            sh(
                &wire,
                &format!("ip link add {port} type veth peer name eth0 netns {there}"),
            );
            sh(&wire, &format!("ip link set {port} master br0 up"));
            sh(node, "ip link set lo up");
            sh(node, "ip link set eth0 up");
            sh(
                node,
                &format!("ip address add 192.0.2.{number}/24 dev eth0"),
            );
            let v6 = format!("ip address add fd00::{number}/64 dev eth0 nodad");
            sh(node, &v6);
        }
        Self { _wire: wire, nodes }
    }

    pub fn node(&self, number: usize) -> &File {
        &self.nodes[number - 1]
    }

    pub fn filter(&self, number: usize) -> Filter {
        within(self.node(number), || Filter::open_here().unwrap())
    }

    /// A pod on a node with a tunnel to another node.
    pub fn pod(&self, tunnel: &Tunnel) -> Pod {
        self.pod_in(tunnel, fresh())
    }

    pub fn pod_in(&self, tunnel: &Tunnel, netns: File) -> Pod {
        let Tunnel {
            family,
            vni,
            node,
            peer,
            source,
        } = *tunnel;
        let ports = source.map_or(String::new(), |(low, high)| {
            format!(" srcport {low} {high}")
        });
        let create = format!(
            "ip link add in1 netns {} address {} mtu 1400 type vxlan id {vni} local {} remote {} \
             dstport {PORT} nolearning udp6zerocsumrx{ports}",
            path(&netns),
            mac(node),
            vtep(family, node),
            vtep(family, peer),
        );
        sh(self.node(node), &create);
        sh(&netns, "ip link set lo up");
        sh(&netns, "ip link set in1 up");
        sh(&netns, &format!("ip address add 10.1.0.{node}/24 dev in1"));
        let neighbour = format!(
            "ip neighbour add 10.1.0.{peer} lladdr {} dev in1",
            mac(peer)
        );
        sh(&netns, &neighbour);
        let socket = within(&netns, || UdpSocket::bind(("0.0.0.0", LISTENING)).unwrap());
        socket.set_nonblocking(true).unwrap();
        Pod {
            netns,
            socket,
            node,
            peer,
        }
    }
}

/// The VTEP of a node.
pub fn vtep(family: Family, node: usize) -> IpAddr {
    let text = match family {
        Family::V4 => format!("192.0.2.{node}"),
        Family::V6 => format!("fd00::{node}"),
    };
    text.parse().unwrap()
}

/// The MAC address of the device in a node's pod.
pub fn mac(node: usize) -> String {
    format!("02:00:00:00:00:0{node}")
}

/// A tunnel from a node to another one.
#[derive(Debug, Clone, Copy)]
pub struct Tunnel {
    pub family: Family,
    pub vni: u32,
    pub node: usize,
    pub peer: usize,
    /// The source ports of its device.
    pub source: Option<(u16, u16)>,
}

impl Tunnel {
    pub fn new(family: Family, vni: u32, node: usize, peer: usize) -> Self {
        Self {
            family,
            vni,
            node,
            peer,
            source: Some((2048, 2052)),
        }
    }

    /// The same as seen from the other node.
    pub fn reverse(self) -> Self {
        Self {
            node: self.peer,
            peer: self.node,
            ..self
        }
    }

    pub fn passage(self) -> Passage {
        let source = |(low, high)| SourcePorts { low, high };
        Passage {
            port: PORT,
            vni: self.vni.try_into().unwrap(),
            local: vtep(self.family, self.node),
            remote: vtep(self.family, self.peer),
            source: self.source.map(source),
        }
    }
}

/// A pod with a tunnel.
pub struct Pod {
    pub netns: File,
    socket: UdpSocket,
    node: usize,
    peer: usize,
}

impl Pod {
    /// Sends a text through the tunnel.
    pub fn send(&self, text: &str) {
        let there = format!("10.1.0.{}:{LISTENING}", self.peer);
        self.send_to(text, &there);
    }

    pub fn send_to(&self, text: &str, there: &str) {
        let there: SocketAddr = there.parse().unwrap();
        self.socket.send_to(text.as_bytes(), there).unwrap();
    }

    /// The frame that carries a text to this pod, as if from its peer.
    pub fn frame(&self, text: &str) -> Vec<u8> {
        packet::frame(self.peer, self.node, LISTENING, text)
    }

    /// What arrives until a text does, which must be within five seconds.
    pub fn read_until(&self, last: &str) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut texts = Vec::new();
        let mut buffer = [0; 9000];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    if text == last {
                        return texts;
                    }
                    texts.push(text);
                }
                Err(_) => std::thread::yield_now(),
            }
            assert!(
                Instant::now() < deadline,
                "{last} has not arrived: {texts:?}"
            );
        }
    }
}

/// Sends something, then a text from the peer, and returns what arrived before that.
pub fn arrived(from: &Pod, to: &Pod, send: impl FnOnce()) -> Vec<String> {
    send();
    from.send("last");
    to.read_until("last")
}
