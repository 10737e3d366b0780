//! What the root of a pod can write on its devices, and what it cannot make them.

use std::{
    os::fd::{AsFd, AsRawFd},
    process::Command,
};

use ratchet_kernel::{KernelError, Look, NetnsHandle, NodeKey};
use ratchet_model::{
    device::{Alias, At, GROUP_OURS, Kind, Netns, Observed, Operation, Peer, Step},
    link::End,
};

use crate::world::{World, alias, at, fresh, link, new_device, pod, sh, within};

fn netns<'w>(world: &'w World, at: &At) -> &'w NetnsHandle {
    &world.pods[usize::from(at.netns != pod(0))]
}

/// The alias of a device in pod 0 or 1.
fn text(world: &World, at: &At) -> String {
    let shown = sh(
        netns(world, at),
        &format!("ip -o link show dev {}", at.name),
    );
    let (_, alias) = shown.split_once("alias ").expect("an alias");
    alias.trim_end().to_owned()
}

fn set_alias(world: &World, at: &At, text: &str) {
    let output = within(netns(world, at), || {
        let mut command = Command::new("ip");
        command.args(["link", "set", "dev", &at.name, "alias", text]);
        command.output().unwrap()
    });
    assert!(output.status.success(), "{output:?}");
}

/// A link between two pods, which is complete.
fn linked(world: &World) -> [At; 2] {
    let [a, z] = [at(pod(0), "eth1"), at(pod(1), "eth1")];
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
        Operation::SetUp(a.clone(), true),
        Operation::SetUp(z.clone(), true),
        Operation::Commit(a.clone(), alias(End::A, Some(0))),
        Operation::Commit(z.clone(), alias(End::Z, Some(1))),
    ]);
    [a, z]
}

fn peer(device: &Observed) -> Option<Peer> {
    match &device.kind {
        Kind::Veth { peer } => peer.clone(),
        other => panic!("{other:?}"),
    }
}

fn place(device: &Observed) -> Option<Peer> {
    Some(Peer {
        netns: device.netns.clone(),
        index: device.index,
    })
}

#[test]
fn the_kernel_says_who_is_whose_peer() {
    let world = World::new(3);
    let ends = [
        [at(pod(0), "a"), at(pod(1), "b")],
        [at(pod(0), "c"), at(pod(2), "d")],
        [at(pod(1), "e"), at(pod(1), "f")],
        [at(pod(2), "g"), at(Netns::Node, "h")],
        [at(Netns::Node, "i"), at(Netns::Node, "j")],
    ];
    for (number, [a, z]) in ends.iter().enumerate() {
        let number = u16::try_from(number).unwrap();
        world.do_all([Operation::CreateVeth {
            a: new_device(a, number),
            z: new_device(z, 100 + number),
        }]);
    }
    for _ in 0..2 {
        for [a, z] in &ends {
            let [one, other] = [a, z].map(|at| world.one(at));
            assert_eq!((peer(&one), peer(&other)), (place(&other), place(&one)));
            assert!(one.is_peer_of(&other) && other.is_peer_of(&one));
        }
    }
    let [a, b, c] = [&ends[0][0], &ends[0][1], &ends[1][0]].map(|at| world.one(at));
    assert!(a.is_peer_of(&b) && !a.is_peer_of(&c) && !c.is_peer_of(&b));
    // In a namespace that is not known here.
    let child = fresh();
    let path = path(&child);
    sh(
        &world.pods[0],
        &format!("ip link add away group {GROUP_OURS} type veth peer name gone netns {path}"),
    );
    assert_eq!(peer(&world.one(&at(pod(0), "away"))), None);
}

/// The path of a namespace that only this process knows.
fn path(netns: &NetnsHandle) -> String {
    let fd = netns.as_fd().as_raw_fd();
    format!("/proc/{}/fd/{fd}", std::process::id())
}

#[test]
fn an_alias_is_proven_on_its_device_in_its_place_only() {
    let world = World::new(2);
    let [a, z] = linked(&world);
    let (of_a, of_z) = (text(&world, &a), text(&world, &z));
    sh(
        &world.pods[0],
        &format!("ip link add copy group {GROUP_OURS} type veth peer name other"),
    );
    let copy = at(pod(0), "copy");
    for forged in [&of_a, &of_z, &alias(End::A, Some(0)).to_string()] {
        set_alias(&world, &copy, forged);
        let device = world.one(&copy);
        assert_eq!(device.alias, None, "{forged}");
        assert!(device.unproven.is_some(), "{forged}");
    }
    for altered in [&of_z, &of_a.replace("config=00000007", "config=00000009")] {
        set_alias(&world, &a, altered);
        assert_eq!(world.one(&a).alias, None, "{altered}");
    }
    set_alias(&world, &a, &of_a);
    assert_eq!(world.one(&a).alias, Some(alias(End::A, Some(0))));
    // Another name is not another place.
    sh(&world.pods[0], "ip link set eth1 down");
    sh(&world.pods[0], "ip link set eth1 name mine");
    let renamed = world.one(&at(pod(0), "mine"));
    assert_eq!(renamed.alias, Some(alias(End::A, Some(0))));
    // Another key proves nothing.
    let other = World::on(world.node.clone(), 0);
    let mut kernel = other.kernel;
    kernel = kernel.with_key(NodeKey::random().unwrap());
    kernel.register("s0".parse().unwrap(), world.pods[0].clone());
    let look = [(pod(0), Look::All)].into();
    let found = kernel.observe(&look, |_| false).unwrap();
    assert!(
        found.iter().all(|device| device.alias.is_none()),
        "{found:?}"
    );
}

/// An index can be chosen, so an alias can be copied to where it is proven. But the kernel does not
/// take such a device for the peer of the other end.
#[test]
fn a_device_with_a_chosen_index_and_a_copied_alias_is_nobodys_peer() {
    let world = World::new(2);
    sh(&world.pods[1], "ip link add filler type bridge");
    let [a, z] = linked(&world);
    let (index, of_a) = (world.one(&a).index, text(&world, &a));
    let far = world.one(&z).index;
    // The real end goes to a namespace of the root's own, where it lives on, and the other end with
    // it. The forged one has the index of the real one, and a peer with the index of the other end.
    let child = fresh();
    let path = path(&child);
    sh(&world.pods[0], &format!("ip link set eth1 netns {path}"));
    let forge = format!(
        "ip link add eth1 index {index} group {GROUP_OURS} type veth \
         peer name forged index {far} netns {path}"
    );
    sh(&world.pods[0], &forge);
    set_alias(&world, &a, &of_a);
    let (forged, other) = (world.one(&a), world.one(&z));
    assert_eq!(forged.index, index);
    assert_eq!(
        forged.alias,
        Some(alias(End::A, Some(0))),
        "the place is the same"
    );
    assert_eq!((peer(&forged), peer(&other)), (None, None));
    assert!(!forged.is_peer_of(&other) && !other.is_peer_of(&forged));
}

#[test]
fn what_is_not_that_end_is_neither_moved_nor_deleted() {
    let world = World::new(2);
    let [a, z] = linked(&world);
    let parked = at(Netns::Node, "rt-parked");
    let of = |link, operation| world.kernel.execute(&[Step { link, operation }]).remove(0);
    let park = |from: &At, end| Operation::Move {
        from: from.clone(),
        to: parked.clone(),
        alias: Alias {
            config: Alias::UNFINISHED,
            ..alias(end, None)
        },
    };
    // Another end, and another link.
    for step in [
        (link(1), park(&a, End::Z)),
        (link(2), Operation::Delete(z.clone())),
    ] {
        let refused = of(step.0, step.1);
        assert!(
            matches!(refused, Err(KernelError::Foreign { .. })),
            "{refused:?}"
        );
    }
    // The root has put another device into its place, in our group.
    sh(&world.pods[0], "ip link set eth1 down");
    sh(&world.pods[0], "ip link set eth1 name real");
    sh(
        &world.pods[0],
        &format!("ip link add eth1 group {GROUP_OURS} type veth peer name inner"),
    );
    set_alias(&world, &a, &text(&world, &at(pod(0), "real")));
    let refused = of(link(1), park(&a, End::A));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "will not move eth1 in sandbox s0 to rt-parked in node: eth1 in sandbox s0 is not the \
         device that Ratchet made there for this link"
    );
    assert!(world.all(Netns::Node).is_empty());
    assert_eq!(world.all(pod(0)).len(), 3);
    // A device of a kind that Ratchet does not make is not its own, although it says so.
    sh(
        &world.pods[1],
        &format!("ip link add d0 group {GROUP_OURS} type bridge"),
    );
    let dummy = at(pod(1), "d0");
    set_alias(&world, &dummy, &text(&world, &z));
    assert!(!world.one(&dummy).is_ours());
    let refused = of(link(1), Operation::Delete(dummy));
    assert!(
        matches!(refused, Err(KernelError::Foreign { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_moved_device_is_proven_where_it_is_with_any_index() {
    let world = World::new(2);
    let [a, z] = linked(&world);
    let index = world.one(&a).index;
    sh(
        &world.node,
        &format!("ip link add taken index {index} type bridge"),
    );
    let parked = at(Netns::Node, "rt-parked");
    let rest = alias(End::A, None);
    world.do_all([Operation::Move {
        from: a,
        to: parked.clone(),
        alias: rest.clone(),
    }]);
    let device = world.one(&parked);
    assert_ne!(device.index, index);
    assert_eq!(device.alias, Some(rest));
    assert!(device.is_peer_of(&world.one(&z)));
}
