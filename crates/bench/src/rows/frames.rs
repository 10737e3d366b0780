//! Frames over our links and over the same made by hand.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    Bench,
    line::Line,
    site::{PATIENCE, Pod, Site, Storage, links_to},
    stats::Sample,
    world::{Netns, Process, eventually},
};

/// What equal links may differ by.
const EQUAL: (f64, f64) = (0.97, 1.03);
/// Round trips for each second that iperf3 is given.
const PINGS_A_SECOND: usize = 10_000;
/// iperf3's numbers of streams.
const STREAMS: [u32; 2] = [1, 8];
/// The address of the second end of the first link, see [`crate::site::subnet`].
const FAR: &str = "10.0.0.2";

/// A pair of namespaces with a link between them, and an iperf3 server in the second.
struct Path<'a> {
    ends: [&'a Netns; 2],
    _server: Process,
    throughput: [Sample; 2],
    latency: Sample,
}

impl<'a> Path<'a> {
    fn new(ends: [&'a Netns; 2]) -> Result<Self> {
        let mut server = ends[1].command("iperf3")?;
        server.args(["-s", "-B", FAR]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Process::start(&mut server).context("iperf3 is needed: apt-get install iperf3")?;
        eventually("iperf3", PATIENCE, || Ok(ends[1].sh("ss -ltn")?.contains(":5201")))?;
        eventually("an answer", PATIENCE, || Ok(ends[0].sh(&format!("ping -c1 -W1 {FAR} || true"))?.contains(" 0% ")))?;
        Ok(Self {
            ends,
            _server: server,
            throughput: [Sample::default(), Sample::default()],
            latency: Sample::default(),
        })
    }

    fn measure(&mut self, seconds: usize) -> Result<()> {
        for (streams, sample) in STREAMS.iter().zip(&mut self.throughput) {
            let said = self.ends[0].sh(&format!("iperf3 -J -c {FAR} -t {seconds} -P {streams}"))?;
            let said: Value = serde_json::from_str(&said)?;
            let bits = said["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 says nothing")?;
            sample.push(bits / 1e9);
        }
        // In a flood the next goes when the last has come back. "2000 packets transmitted, …, time 25ms": finer than ping's own average.
        let count = seconds * PINGS_A_SECOND;
        let said = self.ends[0].sh(&format!("ping -q -f -c {count} {FAR}"))?;
        let took = said.split("time ").nth(1).and_then(|rest| rest.split("ms").next());
        let took: f64 = took.context("ping says nothing")?.parse()?;
        self.latency.push(took * 1e3 / f64::from(u32::try_from(count)?));
        Ok(())
    }
}

/// See [`super::ROWS`].
pub fn frames(bench: &Bench) -> Result<Vec<Line>> {
    let mut lines = compare(bench, "veth", 1)?;
    lines.extend(compare(bench, "VXLAN", 2)?);
    Ok(lines)
}

fn compare(bench: &Bench, kind: &str, nodes: usize) -> Result<Vec<Line>> {
    let site = Site::new(bench, nodes, Storage::Sqlite)?;
    let pods = [Pod::with_links("a", links_to("b", 1))?, Pod::new("b")?];
    let node = |end: usize| &site.nodes[end.min(nodes - 1)];
    for (end, pod) in pods.iter().enumerate() {
        node(end).ratchet("ADD", pod)?;
    }
    let hand = [Netns::new("a")?, Netns::new("b")?];
    if nodes == 1 {
        crate::batch::veths(&bench.scratch, [&hand[0], &hand[1]], 1, 1450)?;
    } else {
        let ends = [(&node(0).netns, "10.92.1.2"), (&node(1).netns, "10.92.1.3")];
        crate::batch::tunnels(&bench.scratch, ends, [&hand[0], &hand[1]], 1, (100_000, 1450))?;
    }
    let mut ours = Path::new([&pods[0].netns, &pods[1].netns])?;
    let mut theirs = Path::new([&hand[0], &hand[1]])?;
    std::thread::sleep(Duration::from_millis(200));
    for round in 0..bench.rounds(2, 5) {
        // In turns, so that neither always comes after the other.
        let order = if round % 2 == 0 { [&mut ours, &mut theirs] } else { [&mut theirs, &mut ours] };
        for path in order {
            path.measure(bench.pick(1, 3))?;
        }
    }
    let mut lines = Vec::new();
    for (n, streams) in STREAMS.iter().enumerate() {
        let work = format!("{kind}: TCP, {streams} stream{}", if *streams == 1 { "" } else { "s" });
        lines.push(Line::within(work, "Gbit/s", ours.throughput[n].median(), theirs.throughput[n].median(), EQUAL));
    }
    lines.push(Line::within(
        format!("{kind}: round trip"),
        "µs",
        ours.latency.median(),
        theirs.latency.median(),
        EQUAL,
    ));
    drop((ours, theirs));
    for (end, pod) in pods.iter().enumerate() {
        node(end).ratchet("DEL", pod)?;
    }
    Ok(lines)
}
