//! Stitched links: devices in the node's namespace that pass on what they receive.

use ratchet_kernel::NetnsHandle;
use ratchet_model::{
    device::{Alias, At, Netns, Operation, Part, SourcePorts, Tunnel},
    link::End,
    wiring::name_on_node,
};

use crate::{
    frames::{Port, frame, samples},
    site::Site,
    world::{World, alias, at, eventually, link, new_device, pod, run, sh, tunnel},
};

/// The frame after which nothing more is expected.
const LAST: [u8; 4] = *b"last";

fn on_node(end: End, part: Part) -> At {
    at(Netns::Node, &name_on_node(link(1), end, part))
}

fn alias_of(end: End, part: Part, sandbox: usize) -> Alias {
    Alias {
        part,
        ..alias(end, Some(sandbox))
    }
}

/// What makes the veth of an end: the pod's interface eth1, and its node end, which stays down.
fn stub(end: End, sandbox: usize) -> Vec<Operation> {
    let (eth1, node) = (at(pod(sandbox), "eth1"), on_node(end, Part::Node));
    let last = 1 + end as u16;
    vec![
        Operation::CreateVeth {
            a: new_device(&eth1, last),
            z: new_device(&node, 0x100 + last),
        },
        Operation::Silence(node.clone()),
        Operation::SetUp(eth1.clone(), true),
        Operation::Commit(eth1, alias(end, Some(sandbox))),
        Operation::Commit(node, alias_of(end, Part::Node, sandbox)),
    ]
}

/// Joins two devices, and sets them up.
fn joint(one: &At, other: &At) -> Vec<Operation> {
    let both = [(one, other), (other, one)];
    both.into_iter()
        .flat_map(|(from, to)| {
            let (from, to) = (from.clone(), to.clone());
            [
                Operation::Join {
                    from: from.clone(),
                    to,
                },
                Operation::SetUp(from, true),
            ]
        })
        .collect()
}

/// A node with two pods and a stitched link between them.
fn cable() -> World {
    let world = World::new(2);
    world.do_all([stub(End::A, 0), stub(End::Z, 1)].concat());
    let ends = [End::A, End::Z].map(|end| on_node(end, Part::Node));
    world.do_all(joint(&ends[0], &ends[1]));
    world
}

/// Sends frames from one port to another, and compares.
fn carry(from: (&NetnsHandle, &str), to: (&NetnsHandle, &str), mtu: usize) {
    let (sender, receiver) = (Port::open(from.0, from.1), Port::open(to.0, to.1));
    let frames = samples(mtu);
    for sent in &frames {
        sender.send(sent);
        // The kernels of both ends may speak in between (IPv6 neighbour discovery).
        let is_ours = |frame: &Vec<u8>| frame[6..11] == sent[6..11];
        let mut received = std::iter::from_fn(|| receiver.receive());
        let received = received.find(is_ours);
        assert_eq!(received.as_ref(), Some(sent), "sent {sent:02x?}");
    }
}

#[test]
fn a_stitched_link_within_a_node_carries_every_frame_unchanged() {
    let world = cable();
    let [one, other] = &world.pods[..] else {
        unreachable!()
    };
    carry((one, "eth1"), (other, "eth1"), 1450);
    carry((other, "eth1"), (one, "eth1"), 1450);
}

#[test]
fn a_stitched_link_between_nodes_carries_every_frame_unchanged() {
    let site = Site::new(2);
    for (number, end, own, far) in [(0, End::A, 1, 2), (1, End::Z, 2, 1)] {
        let tunnel = tunnel(
            11,
            &format!("192.0.2.{own}"),
            &format!("192.0.2.{far}"),
            site.parent(number),
        );
        stitch_tunnel(&site.nodes[number], end, tunnel);
    }
    let [one, other] = [0, 1].map(|node| &site.nodes[node].pods[0]);
    carry((one, "eth1"), (other, "eth1"), 1450);
    carry((other, "eth1"), (one, "eth1"), 1450);
    // All that the pod has is a veth.
    let shown = sh(one, "ip -details link show eth1");
    assert!(
        shown.contains("veth") && !shown.contains("vxlan"),
        "{shown}"
    );
}

/// Makes the end of a link in pod 0 of a node, with its tunnel.
fn stitch_tunnel(node: &World, end: End, tunnel: Tunnel) {
    let device = on_node(end, Part::Tunnel);
    node.do_all(stub(end, 0));
    node.do_all([
        Operation::CreateVxlan {
            device: new_device(&device, 0x200 + end as u16),
            tunnel,
            source: Some(SourcePorts {
                low: 1024,
                high: 1040,
            }),
        },
        Operation::Silence(device.clone()),
        Operation::Commit(device.clone(), alias_of(end, Part::Tunnel, 0)),
    ]);
    node.do_all(joint(&on_node(end, Part::Node), &device));
}

#[test]
fn a_node_end_without_a_joint_gives_the_pod_no_carrier() {
    let world = World::new(1);
    world.do_all(stub(End::A, 0));
    let eth1 = world.one(&at(pod(0), "eth1"));
    assert!(eth1.up && !eth1.carrier);
    assert_eq!(world.one(&on_node(End::A, Part::Node)).joined, None);
}

#[test]
fn the_node_has_nothing_of_what_passes_and_says_nothing() {
    let world = cable();
    sh(&world.node, "ip link set lo up");
    sh(&world.node, "ip address add 10.9.9.1/32 dev lo");
    for name in [End::A, End::Z].map(|end| on_node(end, Part::Node).name) {
        let addresses = sh(&world.node, &format!("ip address show dev {name}"));
        assert!(!addresses.contains("inet"), "{addresses}");
        let flags = sh(&world.node, &format!("ip link show dev {name}"));
        assert!(flags.contains("NOARP"), "{flags}");
    }
    let ports = [&world.pods[0], &world.pods[1]].map(|pod| Port::open(pod, "eth1"));
    let before = node_received(&world.node);
    // Who has 10.9.9.1? Tell 10.9.9.2. And an echo request to the MAC of the node end.
    let mut question = frame([0xff; 6], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], 1, 22);
    question.extend([2, 0, 0, 0, 0, 1, 10, 9, 9, 2, 0, 0, 0, 0, 0, 0, 10, 9, 9, 1]);
    ports[0].send(&question);
    let node_mac = [2, 0, 0, 0, 1, 1];
    ports[0].send(&frame(node_mac, &[8, 0, 0x45, 0, 0, 28], 2, 60));
    let mut last = frame([0xff; 6], &[0x88, 0xb5], 3, 60);
    last.extend(LAST);
    ports[0].send(&last);
    // What the other pod gets is what was sent, and the first pod gets no answer.
    let is_test = |frame: &&Vec<u8>| frame[6..11] == last[6..11];
    let passed = ports[1].receive_until(&LAST);
    assert_eq!(passed.iter().filter(is_test).count(), 2, "{passed:02x?}");
    ports[1].send(&last);
    let answers = ports[0].receive_until(&LAST);
    let is_arp = |frame: &&Vec<u8>| frame[12..14] == [8, 6];
    assert_eq!(answers.iter().filter(is_arp).count(), 0, "{answers:02x?}");
    assert_eq!(node_received(&world.node), before);
}

/// How many IPv4 packets the node has received, and how many ARP requests are under way.
fn node_received(node: &NetnsHandle) -> String {
    let snmp = sh(node, "cat /proc/self/net/snmp");
    let received = snmp.lines().filter(|line| line.starts_with("Ip:")).nth(1);
    let received = received.unwrap().split(' ').nth(3).unwrap().to_owned();
    format!("{received} {}", sh(node, "ip neighbour show"))
}

#[test]
fn a_joint_is_seen_until_its_target_has_gone_and_is_made_again() {
    let world = cable();
    let [a, z] = [End::A, End::Z].map(|end| on_node(end, Part::Node));
    let [one, other] = [&a, &z].map(|at| world.one(at));
    assert_eq!(
        (one.joined, other.joined),
        (Some(other.index), Some(one.index))
    );

    world.do_all([Operation::Delete(at(pod(1), "eth1"))]);
    assert_eq!(world.one(&a).joined, None);
    world.do_all(stub(End::Z, 1));
    world.do_all(joint(&a, &z));
    assert_eq!(world.one(&a).joined, Some(world.one(&z).index));
    let [one, other] = &world.pods[..] else {
        unreachable!()
    };
    carry((one, "eth1"), (other, "eth1"), 1450);
}

#[test]
fn joints_that_somebody_removes_are_seen_to_be_gone() {
    let world = cable();
    let a = on_node(End::A, Part::Node);
    let (removed, text) = run(&world.node, &format!("tc qdisc del dev {} clsact", a.name));
    assert!(removed, "{text}");
    eventually("no joint", || world.one(&a).joined.is_none());
}

#[test]
fn a_joint_needs_both_devices() {
    let world = World::new(1);
    world.do_all(stub(End::A, 0));
    let join = Operation::Join {
        from: on_node(End::A, Part::Node),
        to: on_node(End::Z, Part::Node),
    };
    let error = world.attempt([join]).remove(0).unwrap_err().to_string();
    let missing = on_node(End::Z, Part::Node).name;
    assert!(
        error.contains("join") && error.contains(&missing),
        "{error}"
    );
}
