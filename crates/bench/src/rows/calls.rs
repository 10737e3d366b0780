//! Single calls of the plugin, from the start of the process to its exit.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    Bench, NOOP,
    line::Line,
    site::{Node, PLUGINS, Pod, Site, Storage, links_to, timed_call},
    stats::Sample,
};

/// The config of ptp, with Debian's host-local; its files are in the benchmark's directory.
fn ptp(bench: &Bench) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "rb-ptp", "type": "ptp",
        "ipam": {"type": "host-local", "subnet": "10.93.0.0/16",
                 "dataDir": bench.scratch.join("host-local")},
    })
}

/// The times of a plugin's ADD and DEL.
struct Both {
    add: Sample,
    del: Sample,
}

impl Both {
    fn new() -> Self {
        Self {
            add: Sample::default(),
            del: Sample::default(),
        }
    }

    fn run(
        &mut self,
        node: &Node,
        program: &Path,
        pod: &Pod,
        config: &Value,
        round: usize,
    ) -> Result<()> {
        self.add.add(node.call(program, "ADD", pod, config)?.0);
        pause(round);
        self.del.add(node.call(program, "DEL", pod, config)?.0);
        Ok(())
    }
}

/// The pause between ADD and DEL: 0 to 40 ms, each length equally often. A DEL waits for the
/// kernel's grace periods. How long depends on when the last one began, which right after an ADD
/// would be the same in each round.
fn pause(round: usize) {
    thread::sleep(Duration::from_millis((round * 17 % 41) as u64));
}

/// The pause before a round. The kernel still removes the last round's namespaces, for which it
/// takes RTNL many times; without the pause only the first measurement of a round would wait.
const CLEANUP: Duration = Duration::from_millis(150);

/// See [`super::ROWS`].
pub fn calls(bench: &Bench) -> Result<Vec<Line>> {
    let site = Site::new(bench, 1, Storage::Sqlite)?;
    let node = &site.nodes[0];
    let (noop, ptp_path) = (bench.scratch.join(NOOP), Path::new(PLUGINS).join("ptp"));
    let ptp_config = ptp(bench);
    let [mut ours, mut theirs, mut nothing] = [Both::new(), Both::new(), Both::new()];
    for number in 0..bench.rounds(30, 300) {
        thread::sleep(CLEANUP);
        let peer = Pod::with_links(&format!("a{number}"), links_to(&format!("b{number}"), 1))?;
        let pod = Pod::new(&format!("b{number}"))?;
        node.ratchet("ADD", &peer)?;
        ours.add.add(node.ratchet("ADD", &pod)?);
        pause(number);
        ours.del.add(node.ratchet("DEL", &pod)?);
        node.ratchet("DEL", &peer)?;
        nothing.run(
            node,
            &noop,
            &pod,
            &json!({"cniVersion": "1.0.0", "name": "rb-net", "type": NOOP}),
            number,
        )?;
        theirs.run(node, &ptp_path, &Pod::unmanaged("p")?, &ptp_config, number)?;
    }
    let mut lines = Vec::new();
    for (verb, ours, theirs, nothing) in [
        ("ADD", &ours.add, &theirs.add, &nothing.add),
        ("DEL", &ours.del, &theirs.del, &nothing.del),
    ] {
        let ours = ours.less(nothing.median());
        for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
            let work = format!("{verb} of a pod with one link, {name} of {}", ours.len());
            lines.push(Line::at_most_times(
                work,
                "ms",
                ours.percentile(part),
                theirs.percentile(part),
                0.5,
            ));
        }
    }
    Ok(lines)
}

/// See [`super::ROWS`].
pub fn pass_through(bench: &Bench) -> Result<Vec<Line>> {
    let site = Site::new(bench, 1, Storage::Sqlite)?;
    let node = &site.nodes[0];
    let path = Path::new(PLUGINS).join("ptp");
    let config = ptp(bench);
    let wrapped = node.config_with(config.clone());
    let (mut ours, mut theirs) = (Both::new(), Both::new());
    for round in 0..bench.rounds(30, 400) {
        ours.run(node, &bench.ratchet, &Pod::unmanaged("p")?, &wrapped, round)?;
        theirs.run(node, &path, &Pod::unmanaged("p")?, &config, round)?;
    }
    let line = |verb, ours: &Sample, theirs: &Sample| {
        Line::at_most_more(
            format!("{verb} of a pod that is not ours, p50"),
            "ms",
            ours.median(),
            theirs.median(),
            3.0,
        )
    };
    Ok(vec![
        line("ADD", &ours.add, &theirs.add),
        line("DEL", &ours.del, &theirs.del),
    ])
}

/// See [`super::ROWS`].
pub fn start(bench: &Bench) -> Result<Vec<Line>> {
    let programs: [PathBuf; 2] = [bench.ratchet.clone(), Path::new(PLUGINS).join("loopback")];
    let mut samples = [Sample::default(), Sample::default()];
    for _ in 0..bench.rounds(100, 1000) {
        for (program, sample) in programs.iter().zip(&mut samples) {
            let mut command = Command::new(program);
            command.env("CNI_COMMAND", "VERSION");
            sample.add(timed_call(&mut command, br#"{"cniVersion":"1.0.0"}"#)?.0);
        }
    }
    let [ours, theirs] = samples;
    let line = |name, part| {
        Line::at_most_times(
            format!("VERSION, {name}"),
            "ms",
            ours.percentile(part),
            theirs.percentile(part),
            1.0,
        )
    };
    Ok(vec![line("p50", 0.5), line("p99", 0.99)])
}
