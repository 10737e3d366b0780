//! The same kernel work by `ip -batch`: the time of the kernel alone, without planning, state or
//! store.

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    site::subnet,
    world::{Netns, run},
};

/// The device group of the comparison's devices.
const GROUP: u32 = 7411;

/// Runs `ip -batch` in a namespace.
fn batch(netns: &Netns, file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text)?;
    run(netns.command("ip")?.arg("-batch").arg(file)).map(drop)
}

/// The commands that set up the interfaces of one end.
fn configure(count: usize, end: usize) -> Result<String> {
    let mut text = String::new();
    for number in 0..count {
        writeln!(text, "link set l{number} up")?;
        writeln!(text, "address add {} dev l{number}", subnet(number)[end])?;
    }
    Ok(text)
}

/// Makes `count` veth pairs between two pods: created in the pods' namespaces, up, with one address
/// per end. Returns the time it took.
pub fn veths(dir: &Path, pods: [&Netns; 2], count: usize, mtu: u32) -> Result<Duration> {
    let mut create = String::new();
    for number in 0..count {
        writeln!(
            create,
            "link add name l{number} mtu {mtu} group {GROUP} type veth peer name l{number} mtu \
             {mtu} group {GROUP} netns {}",
            pods[1].name()
        )?;
    }
    let texts = [configure(count, 0)?, configure(count, 1)?];
    let begun = Instant::now();
    batch(pods[0], &dir.join("create"), &create)?;
    batch(pods[0], &dir.join("configure0"), &texts[0])?;
    batch(pods[1], &dir.join("configure1"), &texts[1])?;
    Ok(begun.elapsed())
}

/// Makes `count` VXLAN tunnels between two pods of two nodes, on both nodes at the same time.
/// Returns the time it took.
pub fn tunnels(
    dir: &Path,
    nodes: [(&Netns, &str); 2],
    pods: [&Netns; 2],
    count: usize,
    (vni, mtu): (usize, u32),
) -> Result<Duration> {
    let mut texts = Vec::new();
    for end in [0, 1] {
        let mut create = String::new();
        for number in 0..count {
            writeln!(
                create,
                "link add name l{number} mtu {mtu} group {GROUP} netns {} type vxlan id {} local \
                 {} remote {} dev eth0 dstport 4789",
                pods[end].name(),
                vni + number,
                nodes[end].1,
                nodes[1 - end].1
            )?;
        }
        texts.push((create, configure(count, end)?));
    }
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let halves: Vec<_> = [0, 1]
            .into_iter()
            .map(|end| {
                let (create, up) = &texts[end];
                scope.spawn(move || {
                    batch(nodes[end].0, &dir.join(format!("create{end}")), create)?;
                    batch(pods[end], &dir.join(format!("configure{end}")), up)
                })
            })
            .collect();
        halves.into_iter().try_for_each(|half| {
            half.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok(begun.elapsed())
}

/// Deletes all of a pod's links by one command. Returns the time it took.
pub fn delete(pod: &Netns) -> Result<Duration> {
    let mut command = pod.command("ip")?;
    command.args(["link", "del", "group", &GROUP.to_string()]);
    let begun = Instant::now();
    run(&mut command)?;
    Ok(begun.elapsed())
}
