//! A resync over more links than one portion has: leftovers of Ratchet are found wherever they are,
//! wanted devices stay as they are, and devices of others are not touched.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeMap;

use ratchet_model::{
    End,
    device::{GROUP_DOOMED, GROUP_OURS},
    wiring::parked_name,
};
use serde_json::Value;

use support::{Cluster, Netns, Node, Pod, Sandbox, eventually};

/// Links of a pair of pods. Three pairs are more than two portions, and one of the pairs is split
/// between portions.
const LINKS: usize = 260;

/// Two pods with many links.
fn pair(node: &Node, number: usize) -> [Sandbox; 2] {
    let link = |n| format!("{{interface: e{n}, peer: z{number}/f{n}}}");
    let links: Vec<String> = (0..LINKS).map(link).collect();
    let declarer = Pod::with_links(&format!("a{number}"), &format!("[{}]", links.join(",")));
    let pods = [declarer, Pod::with_links(&format!("z{number}"), "[]")].map(|pod| pod.sandbox());
    pods.iter().for_each(|sandbox| drop(node.add(sandbox)));
    pods
}

/// The indexes of the interfaces in a namespace, by name.
fn indexes(netns: &Netns) -> BTreeMap<String, Value> {
    netns
        .links()
        .into_iter()
        .map(|(name, link)| (name, link["ifindex"].clone()))
        .collect()
}

/// Makes a veth pair with one end in each namespace, in this device group and with this alias.
fn plant(near: (&Netns, &str), far: (&Netns, &str), group: u32, alias: Option<&str>) {
    near.0.sh(&format!(
        "ip link add {} type veth peer name {} netns {}",
        near.1, far.1, far.0.name
    ));
    for (netns, name) in [near, far] {
        netns.sh(&format!("ip link set {name} group {group}"));
        if let Some(alias) = alias {
            netns.sh(&format!("ip link set {name} alias '{alias}'"));
        }
    }
}

#[test]
fn leftovers_of_every_kind_are_found_and_nothing_else_is_touched() {
    let mut cluster = Cluster::with_agents(1);
    let node = &mut cluster.nodes[0];
    let pairs: Vec<[Sandbox; 2]> = (0..3).map(|number| pair(node, number)).collect();
    // A link whose pod was deleted: the survivor's end is parked in the node's namespace.
    let [gone, survivor] = [
        Pod::with_links("gone", "[{interface: eth1, peer: survivor}]"),
        Pod::with_links("survivor", "[]"),
    ]
    .map(|pod| pod.sandbox());
    node.add(&survivor);
    node.add(&gone);
    node.del(&gone);
    let link = node
        .links()
        .links
        .iter()
        .find(|link| link.a.pod.name() == "a0")
        .unwrap()
        .id;
    node.kill_agent();

    let sandboxes: Vec<&Sandbox> = pairs.iter().flatten().chain([&survivor]).collect();
    let [first, last] = [&pairs[0][0], &pairs[2][1]];
    let middle = &pairs[1];
    plant((&first.netns, "mine"), (&last.netns, "mine"), 0, None);
    plant(
        (&node.netns, "mine0"),
        (&node.netns, "mine1"),
        0,
        Some("of another program"),
    );
    // What reads like our alias proves nothing.
    let copied = format!("ratchet link={link} end=a config=00000000 parked");
    plant(
        (&node.netns, "mine2"),
        (&last.netns, "mine3"),
        0,
        Some(&copied),
    );
    // Two links need a repair. Their pod's links are in two portions.
    middle[0].netns.sh("ip link del e7");
    middle[1].netns.sh("ip link set f8 alias ''");
    let wanted = |netns: &Netns| {
        let mut all = indexes(netns);
        all.retain(|name, _| !["e7", "f7", "e8", "f8"].contains(&name.as_str()));
        all
    };
    let in_sandboxes = || {
        sandboxes
            .iter()
            .map(|sandbox| wanted(&sandbox.netns))
            .collect::<Vec<_>>()
    };
    let before = (in_sandboxes(), indexes(&node.netns));

    // Devices whose creation was not finished, in two portions and in the node's namespace.
    plant((&first.netns, "s0"), (&last.netns, "s1"), GROUP_OURS, None);
    plant((&node.netns, "s2"), (&node.netns, "s3"), GROUP_OURS, None);
    // Devices whose deletion was not finished.
    plant(
        (&middle[0].netns, "s4"),
        (&first.netns, "s5"),
        GROUP_DOOMED,
        None,
    );
    plant(
        (&node.netns, "s6"),
        (&survivor.netns, "s7"),
        GROUP_DOOMED,
        None,
    );
    // Devices of unknown links: in a sandbox, and parked.
    let of = |sandbox: &Sandbox| {
        format!(
            "ratchet link=00000000000000aa end=a config=00000000 sandbox={}",
            sandbox.id
        )
    };
    plant(
        (&middle[1].netns, "s8"),
        (&last.netns, "s9"),
        GROUP_OURS,
        Some(&of(&middle[1])),
    );
    let parked = "ratchet link=00000000000000bb end=z config=00000000 parked";
    plant(
        (&node.netns, "s10"),
        (&survivor.netns, "s11"),
        GROUP_OURS,
        Some(parked),
    );
    // Surplus parked ends of a link that is complete.
    let surplus = format!("ratchet link={link} end=a config=00000000 parked");
    let [one, other] = End::BOTH.map(|end| parked_name(link, end));
    plant(
        (&node.netns, &one),
        (&node.netns, &other),
        GROUP_OURS,
        Some(&surplus),
    );

    node.start_agent();
    eventually("the wanted devices and no others", || {
        let now = (in_sandboxes(), indexes(&node.netns));
        if now == before {
            Ok(())
        } else {
            Err(format!("{now:?}, not {before:?}"))
        }
    });
    eventually("the repaired links", || {
        let all = [&middle[0], &middle[1]].map(|sandbox| indexes(&sandbox.netns).len());
        let aliased = middle[1].netns.links()["f8"]["ifalias"]
            .as_str()
            .is_some_and(|alias| alias.contains(" end="));
        if all == [LINKS; 2] && aliased {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    });
    for sandbox in sandboxes {
        node.del(sandbox);
    }
    node.netns.sh("ip link del mine0; ip link del mine2");
    cluster.assert_nothing_left();
}
