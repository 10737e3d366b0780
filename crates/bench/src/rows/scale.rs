//! One node with a growing number of links and pods.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

use crate::{
    Bench,
    line::Line,
    site::{Node, Pod, Site, Storage, TIMEOUT, links_to},
    stats::Sample,
    world::eventually,
};

/// Links of the pod whose ADD is timed.
const PROBE: usize = 10;
/// The growth that counts as none.
const FLAT: f64 = 1.2;
/// The memory that an agent may use, in MiB.
const MEMORY: f64 = 64.0;
/// The CPU time that an agent may use at rest, in percent of a core.
const IDLE: f64 = 0.1;

/// See [`super::ROWS`].
pub fn links(bench: &Bench) -> Result<Vec<Line>> {
    let levels: &[usize] = bench.pick(&[10, 100, 500], &[10, 100, 1000, 10_000]);
    let (mut filled, mut lines) = grow(bench, levels, 100, "link")?;
    let most = levels.last().copied().unwrap_or_default();
    let grown = pss(filled.node().agent())?;
    // The measurement starts after a resync, and is a little longer than the longest time to the
    // next one (LONGEST_PERIOD of the agent's engine). So there is exactly one resync in it.
    filled.site.nodes[0].restart()?;
    let agent = filled.node().agent();
    settle(agent)?;
    let before = (pss(agent)?, cpu_time(agent)?);
    let rest = Duration::from_secs(bench.pick(5, 610));
    std::thread::sleep(rest);
    let after = (pss(agent)?, cpu_time(agent)?);
    let memory = grown.max(before.0).max(after.0);
    lines.push(Line::at_most(
        format!("agent's memory (PSS) with {most} links"),
        "MiB",
        memory,
        MEMORY,
    ));
    let used = (after.1 - before.1) / rest.as_secs_f64() * 100.0;
    lines.push(Line::at_most(
        format!("agent's CPU at rest with {most} links"),
        "% of a core",
        used,
        IDLE,
    ));
    filled.clear()?;
    Ok(lines)
}

/// See [`super::ROWS`].
pub fn pods(bench: &Bench) -> Result<Vec<Line>> {
    let levels: &[usize] = bench.pick(&[10, 50], &[10, 100, 1000]);
    let (filled, lines) = grow(bench, levels, 1, "pod")?;
    filled.clear()?;
    Ok(lines)
}

/// A node with pods on it.
struct Filled {
    pods: Vec<Pod>,
    /// The number of links, or of pods if a pair has one link.
    level: usize,
    /// Links of each pair of pods.
    per_pair: usize,
    site: Site,
}

impl Filled {
    fn new(bench: &Bench, per_pair: usize) -> Result<Self> {
        Ok(Self {
            pods: Vec::new(),
            level: 0,
            per_pair,
            site: Site::new(bench, 1, Storage::Sqlite)?,
        })
    }

    fn node(&self) -> &Node {
        &self.site.nodes[0]
    }

    /// Adds pairs of pods until the level is reached.
    fn fill(&mut self, level: usize) -> Result<()> {
        while self.level < level {
            let number = self.pods.len();
            let (a, b) = (format!("a{number}"), format!("b{number}"));
            let count = self.per_pair.min(level - self.level);
            for pod in [Pod::with_links(&a, links_to(&b, count))?, Pod::new(&b)?] {
                self.node().ratchet("ADD", &pod)?;
                self.pods.push(pod);
            }
            self.level += if self.per_pair == 1 { 2 } else { count };
        }
        Ok(())
    }

    /// Measures the ADD of a pod whose peer exists, divided by its number of links.
    fn probe(&self, sample: &mut Sample) -> Result<()> {
        let (node, pods) = (
            self.node(),
            [
                Pod::with_links("probe-a", links_to("probe-b", PROBE))?,
                Pod::new("probe-b")?,
            ],
        );
        node.ratchet("ADD", &pods[0])?;
        sample.add(node.ratchet("ADD", &pods[1])? / u32::try_from(PROBE)?);
        pods.iter()
            .try_for_each(|pod| node.ratchet("DEL", pod).map(drop))
    }

    fn clear(&self) -> Result<()> {
        self.pods
            .iter()
            .try_for_each(|pod| self.node().ratchet("DEL", pod).map(drop))
    }
}

/// Fills a node level by level and measures the probe on each level, in turns with the same on
/// another node that stays at the first level.
fn grow(
    bench: &Bench,
    levels: &[usize],
    per_pair: usize,
    what: &str,
) -> Result<(Filled, Vec<Line>)> {
    let (mut large, mut small) = (Filled::new(bench, per_pair)?, Filled::new(bench, per_pair)?);
    small.fill(levels[0])?;
    let mut lines = Vec::new();
    for level in &levels[1..] {
        large.fill(*level)?;
        // The agent's work some seconds after it made a link is not part of the next link's time.
        std::thread::sleep(Duration::from_millis(bench.pick(500, 3000)));
        let (mut ours, mut theirs) = (Sample::default(), Sample::default());
        for _ in 0..bench.rounds(7, 31) {
            large.probe(&mut ours)?;
            small.probe(&mut theirs)?;
        }
        let work = format!(
            "time per link with {level} {what}s on the node, against {}",
            levels[0]
        );
        lines.push(Line::at_most_times(
            work,
            "ms",
            ours.median(),
            theirs.median(),
            FLAT,
        ));
    }
    small.clear()?;
    Ok((large, lines))
}

/// Waits until an agent that was just started has finished its work: it uses less than 2 ms of CPU
/// time within half a second.
fn settle(agent: u32) -> Result<()> {
    let mut used = cpu_time(agent)?;
    eventually("an agent at rest", TIMEOUT, || {
        std::thread::sleep(Duration::from_millis(500));
        let before = std::mem::replace(&mut used, cpu_time(agent)?);
        Ok(used - before < 0.002)
    })
}

/// Proportional set size, MiB.
fn pss(pid: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .context("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// CPU time of all threads in seconds; the first field of /proc/PID/task/TID/schedstat is in
/// nanoseconds.
fn cpu_time(pid: u32) -> Result<f64> {
    let mut seconds = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        seconds += text
            .split(' ')
            .next()
            .context("no schedstat")?
            .parse::<f64>()?
            / 1e9;
    }
    Ok(seconds)
}
