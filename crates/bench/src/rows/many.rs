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

/// What links get on an underlay of 1500 bytes.
const MTU: u32 = 1450;
/// The kernel buries namespaces in the background: it is left in peace before the next measurement.
const BURIAL: Duration = Duration::from_secs(1);

/// See [`super::ROWS`].
pub fn local(bench: &Bench) -> Result<Vec<Line>> {
    let count = bench.pick(300, 1500);
    let [mut ours, mut theirs, mut del, mut one_by_one, mut group] =
        [const { None }; 5].map(|none: Option<Sample>| none.unwrap_or_default());
    for round in 0..bench.rounds(2, 5) {
        {
            let site = Site::new(bench, 1, Storage::Sqlite)?;
            let node = &site.nodes[0];
            let pods = [Pod::with_links("a", links_to("b", count))?, Pod::new("b")?];
            node.ratchet("ADD", &pods[0])?;
            let begun = Instant::now();
            node.ratchet("ADD", &pods[1])?;
            until_complete(&pods, count)?;
            ours.add(begun.elapsed());
            check(&pods, count)?;
            let begun = Instant::now();
            if round % 2 == 0 {
                at_once(&[&|| node.ratchet("DEL", &pods[0]).map(drop), &|| {
                    node.ratchet("DEL", &pods[1]).map(drop)
                }])?;
                until_gone(&pods)?;
                del.add(begun.elapsed());
            } else {
                node.ratchet("DEL", &pods[0])?;
                node.ratchet("DEL", &pods[1])?;
                until_gone(&pods)?;
                one_by_one.add(begun.elapsed());
            }
        }
        std::thread::sleep(BURIAL);
        let pods = [Netns::new("a")?, Netns::new("b")?];
        theirs.add(batch::veths(
            &bench.scratch,
            [&pods[0], &pods[1]],
            count,
            MTU,
        )?);
        group.add(batch::delete(&pods[0])?);
        drop(pods);
        std::thread::sleep(BURIAL);
    }
    let mut lines = vec![
        Line::at_most_times(
            format!("{count} links between two pods of one node"),
            "ms",
            ours.median(),
            theirs.median(),
            1.5,
        ),
        Line::at_most_times(
            format!("DEL of both pods with {count} links, at once"),
            "ms",
            del.median(),
            group.median(),
            1.5,
        ),
    ];
    if one_by_one.len() > 0 {
        let work = format!("DEL of both pods with {count} links, one after the other");
        lines.push(Line::at_most_times(
            work,
            "ms",
            one_by_one.median(),
            group.median(),
            1.5,
        ));
    }
    Ok(lines)
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
            until_gone(&pods)?;

            std::thread::sleep(BURIAL);
            let pods = [Netns::new("a")?, Netns::new("b")?];
            let nodes = [&site.nodes[0].netns, &site.nodes[1].netns];
            let addresses = [("10.92.1.2"), ("10.92.1.3")];
            let ends = [(nodes[0], addresses[0]), (nodes[1], addresses[1])];
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
        std::thread::sleep(BURIAL);
    }
    let work = format!("{count} links between two pods of two nodes, VXLAN");
    Ok(vec![Line::at_most_times(
        work,
        "ms",
        ours.median(),
        theirs.median(),
        1.5,
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

/// Waits until neither pod has an interface left: DEL may leave that to the agent, when it is busy.
fn until_gone(pods: &[Pod; 2]) -> Result<()> {
    for pod in pods {
        let mut interfaces = Interfaces::of(&pod.netns)?;
        eventually("the end of all links", TIMEOUT, || {
            Ok(interfaces.count()? == 0)
        })?;
    }
    Ok(())
}

/// That all of them are there and up; outside the measured time.
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
                "pod {}: {} interfaces, {} up, of {count}",
                pod.name,
                all.trim(),
                up.trim()
            );
        }
    }
    Ok(())
}

/// Does things at the same time.
fn at_once(works: &[&(dyn Fn() -> Result<()> + Sync)]) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = works.iter().map(|work| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}
