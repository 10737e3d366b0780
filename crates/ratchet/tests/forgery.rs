//! What the root of a pod writes on its devices harms nobody else: aliases, groups, names and
//! alternative names, forged, copied and altered.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{collections::BTreeMap, fs, path::PathBuf};

use ratchet_model::{LinkId, PodKey, device::GROUP_OURS};
use serde_json::Value;

use support::{Cluster, Netns, Node, Pinger, Pod, Sandbox, eventually};

/// Two pods with a link, whose addresses are 10.0.0.1 and 10.0.0.2.
fn victims(node: &Node) -> [Sandbox; 2] {
    let link = "[{interface: eth1, peer: v2/eth1, addresses: [10.0.0.1/24], \
                  peerAddresses: [10.0.0.2/24]}]";
    let pods = [Pod::with_links("v1", link), Pod::with_links("v2", "[]")];
    let sandboxes = pods.map(|pod| pod.sandbox());
    sandboxes.iter().for_each(|sandbox| drop(node.add(sandbox)));
    sandboxes
}

fn link_of_victims() -> LinkId {
    let eth1 = "eth1".parse().unwrap();
    let [one, other] = ["v1", "v2"].map(|name| PodKey::new("default", name).unwrap());
    LinkId::derive((&one, &eth1), (&other, &eth1))
}

/// The devices in a namespace, by name, with their indexes.
fn indexes(netns: &Netns) -> BTreeMap<String, Value> {
    let links = netns.links().into_iter();
    links
        .map(|(name, link)| (name, link["ifindex"].clone()))
        .collect()
}

fn alias(netns: &Netns, name: &str) -> String {
    let links = netns.links();
    links[name]["ifalias"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A resync looks at everything.
fn resync(node: &mut Node) {
    node.stop_agent();
    node.start_agent();
}

/// The pod's root makes two veths whose indexes make them look like a pair, gives them the aliases
/// of another link, and waits until that must be made again. Their real peers are its own.
#[test]
fn a_forged_pair_does_not_become_the_link_of_two_others() {
    let mut cluster = Cluster::with_agents(1);
    let node = &mut cluster.nodes[0];
    let [v1, v2] = victims(node);
    let forger = Pod::with_links("forger", "[]").sandbox();
    node.add(&forger);
    let child = Netns::new("child");
    for (name, end, index, peer) in [("f1", 'a', 1000, 1001), ("f2", 'z', 1001, 1000)] {
        forger.netns.sh(&format!(
            "ip link add {name} index {index} group {GROUP_OURS} type veth \
             peer name {name} index {peer} netns {}",
            child.name
        ));
        let text = format!(
            "ratchet link={} end={end} config=00000000 parked",
            link_of_victims()
        );
        forger
            .netns
            .sh(&format!("ip link set {name} alias '{text}'"));
        child.sh(&format!("ip link set {name} up"));
    }
    v1.netns.sh("ip link del eth1");
    resync(node);
    node.wait_for_links(1);
    assert!(
        v1.netns.ping("10.0.0.2"),
        "the link of v1 and v2 goes elsewhere"
    );
    let left = indexes(&child);
    assert!(
        left.is_empty(),
        "devices that stood in our group are gone with their peers: {left:?}"
    );
    for sandbox in [&v1, &v2, &forger] {
        node.del(sandbox);
    }
    cluster.assert_nothing_left();
}

/// The aliases say in which namespaces the sandboxes of a lost state directory are.
#[test]
fn a_lost_state_directory_is_not_restored_from_forged_aliases() {
    let mut cluster = Cluster::with_agents(1);
    let node = &mut cluster.nodes[0];
    let [v1, v2] = victims(node);
    let forgers: Vec<Sandbox> = (0..6)
        .map(|number| Pod::with_links(&format!("forger{number}"), "[]").sandbox())
        .collect();
    for forger in &forgers {
        node.add(forger);
        forger.netns.sh(&format!(
            "ip link add f1 group {GROUP_OURS} type veth peer name f2"
        ));
        let copied = alias(&v1.netns, "eth1");
        assert!(copied.contains(&v1.id), "{copied}");
        forger.netns.sh(&format!("ip link set f1 alias '{copied}'"));
    }
    let all = || [&v1.netns, &v2.netns, &forgers[0].netns].map(indexes);
    let before = all();
    let pinger = Pinger::start(&v1.netns, "10.0.0.2");
    node.stop_agent();
    fs::remove_dir_all(&node.state_dir).unwrap();
    node.start_agent();
    node.wait_for_links(1);
    assert_eq!(all(), before);
    pinger.assert_no_loss();
    for sandbox in [&v1, &v2] {
        node.del(sandbox);
    }
}

/// Each act of the forger's root, on its own two links: e1 to v1 and e2 to v2.
const ACTS: [&str; 12] = [
    "ip link set e1 alias ''",
    "ip link set e1 alias '' group 0",
    "a=$(cat $ALIASES/e1); ip link set e2 alias \"$a\"",
    "a=$(cat $ALIASES/e2); ip link set e1 alias \"$a\" group 7",
    "ip link set e1 down; ip link set e1 name tmp; ip link set e2 down; ip link set e2 name e1; \
     ip link set tmp name e2",
    "ip link set e1 group 1383359352",
    "ip link property add dev e2 altname eth1; ip link set e2 alias \"$VICTIMS\"",
    "ip link add forged group 1383359336 type veth peer name inner; \
     ip link set forged alias \"$VICTIMS\"; ip link set inner alias \"$VICTIMS\"",
    "i=$(cat /sys/class/net/e1/ifindex); ip link del e1; \
     ip link add e1 index $i group 1383359336 type veth peer name inner; \
     ip link set e1 alias \"$(cat $ALIASES/e1)\"",
    "i=$(cat /sys/class/net/e2/ifindex); ip link set e2 netns $CHILD; \
     ip link add e2 index $i group 1383359336 type veth peer name far netns $CHILD index 99; \
     ip link set e2 alias \"$(cat $ALIASES/e2)\"",
    "ip link set lo group 1383359336 alias \"$VICTIMS\"",
    "ip link set lo group 1383359352",
];

#[test]
fn nothing_that_a_pods_root_writes_changes_links_of_others() {
    let mut cluster = Cluster::with_agents(1);
    let aliases = cluster.dir.path().join("aliases");
    fs::create_dir(&aliases).unwrap();
    let node = &mut cluster.nodes[0];
    let [v1, v2] = victims(node);
    let links = "[{interface: e1, peer: v1/m1}, {interface: e2, peer: v2/m2}]";
    let forger = Pod::with_links("forger", links).sandbox();
    node.add(&forger);
    node.wait_for_links(3);
    let child = Netns::new("child");
    let victims = alias(&v1.netns, "eth1");
    let of_victims = || {
        [&v1, &v2].map(|sandbox| {
            let mut found = sandbox.netns.links().remove("eth1").unwrap();
            (found["ifindex"].take(), found["ifalias"].take())
        })
    };
    let before = of_victims();
    let pinger = Pinger::start(&v1.netns, "10.0.0.2");
    for act in ACTS {
        for name in ["e1", "e2"] {
            fs::write(aliases.join(name), alias(&forger.netns, name)).unwrap();
        }
        let mut root = forger.netns.command("sh");
        root.args(["-c", &format!("mount -t sysfs sys /sys; {act}")]);
        root.env("ALIASES", &aliases)
            .env("VICTIMS", &victims)
            .env("CHILD", &child.name);
        let output = in_own_mounts(root).output().unwrap();
        assert!(output.status.success(), "{act}: {output:?}");
        resync(node);
        assert_eq!(of_victims(), before, "{act}");
        // Nothing else is in the pods of others, and the forger's links come back.
        eventually(&format!("all links after {act}"), || {
            let names = [&v1, &v2, &forger].map(|sandbox| indexes(&sandbox.netns).into_keys());
            let [one, two, own] = names.map(|names| names.collect::<Vec<_>>().join(" "));
            let found = format!("v1: {one}; v2: {two}; forger: {own}");
            let is_right = found == "v1: eth1 m1; v2: eth1 m2; forger: e1 e2";
            if is_right { Ok(()) } else { Err(found) }
        });
        node.wait_for_links(3);
    }
    pinger.assert_no_loss();
    for sandbox in [&forger, &v1, &v2] {
        node.del(sandbox);
    }
    cluster.assert_nothing_left();
}

/// A command whose mounts are its own.
fn in_own_mounts(mut command: std::process::Command) -> std::process::Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: unshare and mount are plain system calls, safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            use nix::mount::{MsFlags, mount};
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
            let all = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
            Ok(mount(None::<&str>, "/", None::<&str>, all, None::<&str>)?)
        });
    }
    command
}

#[test]
fn a_lost_key_costs_nothing() {
    let mut cluster = Cluster::with_agents(2);
    let [v1, v2] = victims(&cluster.nodes[0]);
    let across = "[{interface: x, peer: v2/x, addresses: [10.1.0.1/24], \
                    peerAddresses: [10.1.0.2/24]}]";
    let far = Pod::with_links("far", across).sandbox();
    cluster.nodes[1].add(&far);
    // A survivor whose peer is gone.
    let gone = Pod::with_links("gone", "[{interface: g, peer: v1/g}]").sandbox();
    cluster.nodes[0].add(&gone);
    cluster.nodes[0].del(&gone);
    cluster.nodes[1].wait_for_links(1);
    let node = &mut cluster.nodes[0];
    let all = |node: &Node| {
        let namespaces = [&v1.netns, &v2.netns, &node.netns];
        namespaces.map(|netns| {
            netns
                .links()
                .into_iter()
                .map(without_alias)
                .collect::<Vec<_>>()
        })
    };
    // Users may have changed what is theirs.
    v1.netns.sh("ip link set g mtu 1300");
    let (before, signed) = (all(node), alias(&v1.netns, "eth1"));
    let pingers =
        [(&v1, "10.0.0.2"), (&far, "10.1.0.2")].map(|(from, to)| Pinger::start(&from.netns, to));
    let key = PathBuf::from(format!("{}.key", node.state_dir.display()));
    node.stop_agent();
    fs::remove_file(&key).unwrap();
    node.start_agent();
    eventually("a new code in the alias", || {
        match alias(&v1.netns, "eth1") {
            again if again != signed && again.contains(" mac=") => Ok(()),
            again => Err(again),
        }
    });
    assert_eq!(all(node), before);
    pingers.into_iter().for_each(Pinger::assert_no_loss);
    for sandbox in [&v1, &v2] {
        node.del(sandbox);
    }
    cluster.nodes[1].del(&far);
    cluster.assert_nothing_left();
}

/// A device as `ip` shows it, but for its alias.
fn without_alias((name, mut link): (String, Value)) -> (String, Value) {
    link["ifalias"].take();
    (name, link)
}
