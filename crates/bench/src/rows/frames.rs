//! Throughput and round trips over Ratchet's links and over equal links made by hand.

use std::{ops::Range, process::Stdio, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    Bench,
    line::Line,
    site::{Pod, Site, Storage, TIMEOUT, links_to},
    stats::Pairs,
    world::{Netns, Process, eventually},
};

/// The limits of the ratio of equal links.
const EQUAL: (f64, f64) = (0.97, 1.03);
/// How long each measurement takes: short, since there are many.
const SECONDS: usize = 1;
/// How many round trips stand for a second of measurement.
const PINGS_PER_SECOND: usize = 10_000;
/// How many pairs of measurements are made with each set-up.
const ROUNDS_PER_SETUP: usize = 4;
/// The address of the second end of the first link, see [`crate::site::subnet`].
const FAR: &str = "10.0.0.2";

/// A pair of namespaces with a link between them, and an iperf3 server in the second.
struct Path<'a> {
    ends: [&'a Netns; 2],
    _server: Process,
}

/// What is measured.
#[derive(Clone, Copy)]
enum Quantity {
    /// Measured by iperf3 with this number of streams, in Gbit/s.
    Throughput(u32),
    /// Measured by ping, in µs.
    RoundTrip,
}

impl Quantity {
    const ALL: [Self; 3] = [Self::Throughput(1), Self::Throughput(8), Self::RoundTrip];

    fn name(self) -> (String, &'static str) {
        match self {
            Self::Throughput(1) => ("TCP, 1 stream".into(), "Gbit/s"),
            Self::Throughput(streams) => (format!("TCP, {streams} streams"), "Gbit/s"),
            Self::RoundTrip => ("round trip".into(), "µs"),
        }
    }
}

impl<'a> Path<'a> {
    fn new(ends: [&'a Netns; 2]) -> Result<Self> {
        let mut server = ends[1].command("iperf3")?;
        server
            .args(["-s", "-B", FAR])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server =
            Process::start(&mut server).context("iperf3 is needed: apt-get install iperf3")?;
        eventually("iperf3", TIMEOUT, || {
            Ok(ends[1].sh("ss -ltn")?.contains(":5201"))
        })?;
        eventually("an answer", TIMEOUT, || {
            Ok(ends[0]
                .sh(&format!("ping -c1 -W1 {FAR} || true"))?
                .contains(" 0% "))
        })?;
        Ok(Self {
            ends,
            _server: server,
        })
    }

    fn measure(&self, quantity: Quantity, seconds: usize) -> Result<f64> {
        match quantity {
            Quantity::Throughput(streams) => {
                // The first second is not counted (-O 1): in it, eight streams reach between two
                // thirds and three halves of their later rate, on any link.
                let output = self.ends[0].sh(&format!(
                    "iperf3 -J -c {FAR} -O 1 -t {seconds} -P {streams}"
                ))?;
                let report: Value = serde_json::from_str(&output)?;
                let bits = report["end"]["sum_received"]["bits_per_second"]
                    .as_f64()
                    .context("iperf3 reports no end.sum_received.bits_per_second")?;
                Ok(bits / 1e9)
            }
            Quantity::RoundTrip => {
                // A flood sends the next request when the last answer has arrived. The total time
                // ("2000 packets transmitted, …, time 25ms") is finer than ping's average.
                let count = seconds * PINGS_PER_SECOND;
                let output = self.ends[0].sh(&format!("ping -q -f -c {count} {FAR}"))?;
                let took = output
                    .split("time ")
                    .nth(1)
                    .and_then(|rest| rest.split("ms").next());
                let took: f64 = took.context("ping reports no time")?.parse()?;
                Ok(took * 1e3 / f64::from(u32::try_from(count)?))
            }
        }
    }
}

/// See [`super::ROWS`].
pub fn frames(bench: &Bench) -> Result<Vec<Line>> {
    let mut lines = compare(bench, "veth", 1)?;
    lines.extend(compare(bench, "VXLAN", 2)?);
    Ok(lines)
}

fn compare(bench: &Bench, kind: &str, nodes: usize) -> Result<Vec<Line>> {
    let mut measured = Quantity::ALL.map(|quantity| (quantity, Pairs::default()));
    // Even two links made in the same way differ a little. With several set-ups this does not look
    // like a difference between Ratchet and the comparison.
    let rounds = bench.rounds(2, 16);
    for first in (0..rounds).step_by(ROUNDS_PER_SETUP) {
        compare_once(
            bench,
            nodes,
            first..rounds.min(first + ROUNDS_PER_SETUP),
            &mut measured,
        )?;
    }
    let line = |(quantity, pairs): &(Quantity, Pairs)| {
        let (name, unit) = quantity.name();
        Line::within(format!("{kind}: {name}"), unit, pairs, EQUAL)
    };
    Ok(measured.iter().map(line).collect())
}

/// Measures one set-up: a new link of Ratchet and a new one made by hand.
fn compare_once(
    bench: &Bench,
    nodes: usize,
    rounds: Range<usize>,
    measured: &mut [(Quantity, Pairs)],
) -> Result<()> {
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
        crate::batch::tunnels(
            &bench.scratch,
            ends,
            [&hand[0], &hand[1]],
            1,
            (100_000, 1450),
        )?;
    }
    let ours = Path::new([&pods[0].netns, &pods[1].netns])?;
    let theirs = Path::new([&hand[0], &hand[1]])?;
    std::thread::sleep(Duration::from_millis(200));
    for (quantity, pairs) in measured {
        let measure = |path: &Path<'_>| path.measure(*quantity, SECONDS);
        for round in rounds.clone() {
            // Alternating, so that neither is always measured after the other.
            let (ours, theirs) = if round % 2 == 0 {
                let ours = measure(&ours)?;
                (ours, measure(&theirs)?)
            } else {
                let theirs = measure(&theirs)?;
                (measure(&ours)?, theirs)
            };
            pairs.push(ours, theirs);
        }
    }
    drop((ours, theirs));
    for (end, pod) in pods.iter().enumerate() {
        node(end).ratchet("DEL", pod)?;
    }
    Ok(())
}
