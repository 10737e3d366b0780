//! Moves: parking, returning, renaming.

use ratchet_kernel::KernelError;
use ratchet_model::{
    device::{Kind, Netns, Operation, Peer},
    link::End,
};

use crate::world::{World, alias, at, new_device, pod, sh};

#[test]
fn an_end_is_parked_and_taken_over() {
    let world = World::new(3);
    let (a, z, parked) = (
        at(pod(0), "eth1"),
        at(pod(1), "eth1"),
        at(Netns::Node, "rt-parked"),
    );
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
        Operation::SetUp(a.clone(), true),
        Operation::SetUp(z.clone(), true),
        Operation::AddAddress(a.clone(), "10.1.0.1/24".parse().unwrap()),
        Operation::Commit(a.clone(), alias(End::A, Some(0))),
    ]);
    let survivor = world.one(&z);
    let rest = alias(End::A, None);
    world.do_all([Operation::Move {
        from: a,
        to: parked.clone(),
        alias: rest.clone(),
    }]);
    assert!(world.all(pod(0)).is_empty());
    let device = world.one(&parked);
    assert!(!device.up && device.addresses.is_empty() && device.is_ours());
    assert_eq!(device.alias, Some(rest.clone()));
    let after = world.one(&z);
    assert_eq!(
        (after.index, after.up, after.carrier),
        (survivor.index, true, false)
    );
    // The pod returns as another sandbox.
    let back = at(pod(2), "eth1");
    world.do_all([
        Operation::Move {
            from: parked,
            to: back.clone(),
            alias: rest,
        },
        Operation::SetUp(back.clone(), true),
        Operation::Commit(back.clone(), alias(End::A, Some(2))),
    ]);
    assert!(world.one(&z).carrier);
    let device = world.one(&back);
    assert_eq!(device.alias, Some(alias(End::A, Some(2))));
    assert_eq!(
        device.kind,
        Kind::Veth {
            peer: Some(Peer {
                netns: pod(1),
                index: survivor.index
            })
        }
    );
    assert!(world.all(Netns::Node).is_empty());
}

#[test]
fn a_move_may_go_where_an_earlier_one_made_room() {
    let world = World::new(1);
    let (a, z) = (at(pod(0), "one"), at(pod(0), "two"));
    let (interim, rest) = (at(Netns::Node, "interim"), alias(End::A, None));
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
        Operation::SetUp(z.clone(), true),
        Operation::Commit(a.clone(), alias(End::A, Some(0))),
        Operation::Commit(z.clone(), alias(End::Z, Some(0))),
    ]);
    world.do_all([
        Operation::Move {
            from: a.clone(),
            to: interim.clone(),
            alias: rest.clone(),
        },
        Operation::Move {
            from: z.clone(),
            to: a.clone(),
            alias: alias(End::Z, None),
        },
        Operation::Move {
            from: interim,
            to: z.clone(),
            alias: rest.clone(),
        },
    ]);
    assert_eq!(world.one(&z).alias, Some(rest));
    assert!(!world.one(&a).up);
}

#[test]
fn a_move_does_not_go_half_way() {
    let world = World::new(2);
    let (a, z) = (at(pod(0), "eth1"), at(pod(1), "eth1"));
    let whole = alias(End::A, Some(0));
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
        Operation::Commit(a.clone(), whole.clone()),
    ]);
    sh(
        &world.node,
        "ip link add rt-parked type veth peer name other",
    );
    let rest = alias(End::A, None);
    let to = at(Netns::Node, "rt-parked");
    let error = world
        .attempt([Operation::Move {
            from: a.clone(),
            to: to.clone(),
            alias: rest.clone(),
        }])
        .remove(0)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot move eth1 in sandbox s0 to rt-parked in node: the name rt-parked is taken in node \
         by another device"
    );
    assert_eq!(world.one(&a).alias, Some(whole));
    let missing = Operation::Move {
        from: at(pod(0), "nobody"),
        to,
        alias: rest,
    };
    assert!(matches!(
        world.attempt([missing]).remove(0),
        Err(KernelError::NoDevice { .. })
    ));
}
