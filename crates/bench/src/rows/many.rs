//! Many links between two pods, against the same kernel work by `ip -batch`.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{
    Bench, batch,
    line::Line,
    route::Interfaces,
    site::{Pod, Site, Storage, TIMEOUT, links_to},
    stats::Sample,
    world::{Netns, eventually},
};

/// The MTU of a VXLAN link on an underlay of 1500 bytes, also for veth links here.
const MTU: u32 = 1450;
/// The limit of the ratio.
const LIMIT: f64 = 1.5;
/// The pause before a measurement: the kernel removes namespaces in the background.
const CLEANUP: Duration = Duration::from_secs(1);

/// The times of the row `local`.
#[derive(Default)]
struct Times {
    add: Sample,
    /// DEL of both pods at once.
    del_at_once: Sample,
    /// DEL of one pod after the other.
    del_in_turn: Sample,
    batch_add: Sample,
    batch_del: Sample,
}

/// See [`super::ROWS`].
pub fn local(bench: &Bench) -> Result<Vec<Line>> {
    let count = bench.pick(300, 1500);
    let mut times = Times::default();
    for round in 0..bench.rounds(2, 5) {
        ratchet_local(bench, count, round % 2 == 0, &mut times)?;
        std::thread::sleep(CLEANUP);
        {
            let pods = [Netns::new("a")?, Netns::new("b")?];
            let ends = [&pods[0], &pods[1]];
            let add = batch::veths(&bench.scratch, ends, count, MTU)?;
            times.batch_add.add(add);
            times.batch_del.add(batch::delete(&pods[0])?);
        }
        std::thread::sleep(CLEANUP);
    }
    let line = |work: String, ours: &Sample, theirs: &Sample| {
        Line::at_most_times(work, "ms", ours.median(), theirs.median(), LIMIT)
    };
    let mut lines = vec![
        line(
            format!("{count} links between two pods of one node"),
            &times.add,
            &times.batch_add,
        ),
        line(
            format!("DEL of both pods with {count} links, at once"),
            &times.del_at_once,
            &times.batch_del,
        ),
    ];
    if times.del_in_turn.len() > 0 {
        lines.push(line(
            format!("DEL of both pods with {count} links, one after the other"),
            &times.del_in_turn,
            &times.batch_del,
        ));
    }
    Ok(lines)
}

/// One round of Ratchet: ADD of two pods with `count` links between them, then DEL of both.
fn ratchet_local(bench: &Bench, count: usize, at_once: bool, times: &mut Times) -> Result<()> {
    let site = Site::new(bench, 1, Storage::Sqlite)?;
    let node = &site.nodes[0];
    let pods = [Pod::with_links("a", links_to("b", count))?, Pod::new("b")?];
    node.ratchet("ADD", &pods[0])?;
    let begun = Instant::now();
    node.ratchet("ADD", &pods[1])?;
    until_complete(&pods, count)?;
    times.add.add(begun.elapsed());
    check(&pods, count)?;
    let begun = Instant::now();
    if at_once {
        in_parallel(&[&|| node.ratchet("DEL", &pods[0]).map(drop), &|| {
            node.ratchet("DEL", &pods[1]).map(drop)
        }])?;
        until_deleted(&pods)?;
        times.del_at_once.add(begun.elapsed());
    } else {
        node.ratchet("DEL", &pods[0])?;
        node.ratchet("DEL", &pods[1])?;
        until_deleted(&pods)?;
        times.del_in_turn.add(begun.elapsed());
    }
    Ok(())
}

/// See [`super::ROWS`].
pub fn remote(bench: &Bench) -> Result<Vec<Line>> {
    let count = bench.pick(300, 1500);
    let (mut ours, mut theirs) = (Sample::default(), Sample::default());
    for _ in 0..bench.rounds(1, 5) {
        {
            let site = Site::new(bench, 2, Storage::Etcd)?;
            let pods = [Pod::with_links("a", links_to("b", count))?, Pod::new("b")?];
            site.nodes[0].ratchet("ADD", &pods[0])?;
            let begun = Instant::now();
            site.nodes[1].ratchet("ADD", &pods[1])?;
            until_complete(&pods, count)?;
            ours.add(begun.elapsed());
            check(&pods, count)?;
            for (node, pod) in site.nodes.iter().zip(&pods) {
                node.ratchet("DEL", pod)?;
            }
            until_deleted(&pods)?;

            std::thread::sleep(CLEANUP);
            let pods = [Netns::new("a")?, Netns::new("b")?];
            let nodes = [&site.nodes[0].netns, &site.nodes[1].netns];
            let ends = [(nodes[0], "10.92.1.2"), (nodes[1], "10.92.1.3")];
            theirs.add(batch::tunnels(
                &bench.scratch,
                ends,
                [&pods[0], &pods[1]],
                count,
                (100_000, MTU),
            )?);
            for pod in &pods {
                batch::delete(pod)?;
            }
        }
        std::thread::sleep(CLEANUP);
    }
    let work = format!("{count} links between two pods of two nodes, VXLAN");
    Ok(vec![Line::at_most_times(
        work,
        "ms",
        ours.median(),
        theirs.median(),
        LIMIT,
    )])
}

/// Waits until all interfaces of both pods are up with their addresses.
fn until_complete(pods: &[Pod; 2], count: usize) -> Result<()> {
    for pod in pods {
        let mut interfaces = Interfaces::of(&pod.netns)?;
        eventually("all links", TIMEOUT, || interfaces.are_complete(count))?;
    }
    Ok(())
}

/// Waits until neither pod has an interface: a DEL may leave the deletion to a busy agent.
fn until_deleted(pods: &[Pod; 2]) -> Result<()> {
    for pod in pods {
        let mut interfaces = Interfaces::of(&pod.netns)?;
        eventually("the deletion of all links", TIMEOUT, || {
            Ok(interfaces.count()? == 0)
        })?;
    }
    Ok(())
}

/// Checks that all interfaces exist and are up; outside of the measured time.
fn check(pods: &[Pod; 2], count: usize) -> Result<()> {
    for pod in pods {
        let up = pod
            .netns
            .sh("ip -o link show up | grep -vc ': lo:' || true")?;
        let all = pod.netns.sh("ip -o link show | grep -vc ': lo:' || true")?;
        if [&up, &all]
            .iter()
            .any(|found| found.trim() != count.to_string())
        {
            bail!(
                "pod {}: expected {count} interfaces that are up, found {} interfaces, {} up",
                pod.name,
                all.trim(),
                up.trim()
            );
        }
    }
    Ok(())
}

/// Runs functions at the same time.
fn in_parallel(works: &[&(dyn Fn() -> Result<()> + Sync)]) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = works.iter().map(|work| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}
