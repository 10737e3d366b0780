//! What the source filter costs: small packets over a tunnel, with it and without.

use std::{
    fs,
    net::UdpSocket,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ratchet_filter::Filter;
use ratchet_model::device::{Passage, SourcePorts};

use crate::{Bench, line::Line, stats::Pairs, world::Netns};

/// The part of the packets a second that must be left.
const LEFT: f64 = 0.92;
/// How long each measurement takes.
const TIME: Duration = Duration::from_millis(500);
/// The payload of a packet: with its headers the shortest frame of Ethernet.
const PAYLOAD: [u8; 18] = [0; 18];
/// How many packets are sent between two looks at the clock.
const BURST: usize = 256;

/// Two pods on two nodes, with a tunnel between them.
struct Tunnel {
    nodes: [Netns; 2],
    pods: [Netns; 2],
}

/// See [`super::ROWS`].
pub fn filter(bench: &Bench) -> Result<Vec<Line>> {
    let tunnel = Tunnel::new()?;
    let mut lines = Vec::new();
    for links in [10, 10_000] {
        let mut pairs = Pairs::default();
        let mut filters = tunnel.filters()?;
        for round in 0..bench.rounds(4, 40) {
            // In turns, so that nothing is always first.
            let with = |filters: &mut [Filter; 2]| -> Result<f64> {
                for (node, filter) in filters.iter_mut().enumerate() {
                    filter.set((0..links).map(|number| passage(node, number)))?;
                }
                tunnel.rate()
            };
            let without = |filters: &mut [Filter; 2]| -> Result<f64> {
                filters.iter_mut().try_for_each(|filter| filter.set([]))?;
                tunnel.rate()
            };
            let (ours, theirs) = if round % 2 == 0 {
                let ours = with(&mut filters)?;
                (ours, without(&mut filters)?)
            } else {
                let theirs = without(&mut filters)?;
                (with(&mut filters)?, theirs)
            };
            pairs.push(ours, theirs);
        }
        let work = format!("packets over VXLAN, a filter for {links} links");
        lines.push(Line::at_least_part(work, "k/s", &pairs, LEFT));
    }
    Ok(lines)
}

/// What a node's filter lets through for a link; the first is that of the tunnel.
fn passage(node: usize, number: u32) -> Passage {
    let low = u16::try_from(1024 + 4 * (number % 16_000)).unwrap_or(1024);
    let [local, remote] = if node == 0 { [1, 2] } else { [2, 1] };
    Passage {
        port: 4789,
        vni: (11 + number)
            .try_into()
            .expect("there are fewer links than VNIs"),
        local: [10, 93, 0, local].into(),
        remote: [10, 93, 0, remote].into(),
        source: Some(SourcePorts { low, high: low + 4 }),
    }
}

impl Tunnel {
    fn new() -> Result<Self> {
        let nodes = [Netns::new("node")?, Netns::new("node")?];
        let pods = [Netns::new("a")?, Netns::new("b")?];
        nodes[0].sh(&format!(
            "ip link add eth0 type veth peer name eth0 netns {}",
            nodes[1].name()
        ))?;
        for (number, (node, pod)) in (1..).zip(nodes.iter().zip(&pods)) {
            let other = 3 - number;
            node.sh(&format!(
                "ip link set eth0 up; ip address add 10.93.0.{number}/24 dev eth0; \
                 ip link add eth1 address 02:00:00:00:00:0{number} mtu 1450 netns {} type vxlan \
                 id 11 local 10.93.0.{number} remote 10.93.0.{other} dstport 4789 nolearning \
                 srcport 1024 1028",
                pod.name()
            ))?;
            pod.sh(&format!(
                "ip link set eth1 up; ip address add 10.0.0.{number}/24 dev eth1; \
                 ip neighbour add 10.0.0.{other} lladdr 02:00:00:00:00:0{other} dev eth1"
            ))?;
        }
        Ok(Self { nodes, pods })
    }

    fn filters(&self) -> Result<[Filter; 2]> {
        let open = |node: &Netns| node.inside(|| Ok(Filter::open_here()?));
        Ok([open(&self.nodes[0])?, open(&self.nodes[1])?])
    }

    /// The packets that arrive, in thousands a second.
    fn rate(&self) -> Result<f64> {
        let before = received(&self.pods[1])?;
        let took = self.pods[0].inside(|| {
            let socket = UdpSocket::bind(("10.0.0.1", 0))?;
            socket.connect(("10.0.0.2", 9))?;
            let begun = Instant::now();
            while begun.elapsed() < TIME {
                for _ in 0..BURST {
                    // The other pod answers that nothing listens there, which send reports.
                    let _ = socket.send(&PAYLOAD);
                }
            }
            Ok(begun.elapsed())
        })?;
        let count = received(&self.pods[1])? - before;
        #[allow(clippy::cast_precision_loss)]
        Ok(count as f64 / took.as_secs_f64() / 1e3)
    }
}

/// How many packets the device of a pod has received.
fn received(pod: &Netns) -> Result<u64> {
    pod.inside(|| {
        let text = fs::read_to_string("/proc/thread-self/net/dev")?;
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("eth1:"));
        let packets = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(packets.context("/proc/net/dev has no eth1")?.parse()?)
    })
}
