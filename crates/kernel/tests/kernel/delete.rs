//! Deletions.

use ratchet_kernel::KernelError;
use ratchet_model::device::{At, GROUP_DOOMED, Netns, Operation};

use crate::world::{World, at, new_device, pod, sh};

/// The ends of one of many pairs.
fn ends(number: u16) -> (At, At) {
    (
        at(pod(0), &format!("a{number}")),
        at(pod(1), &format!("z{number}")),
    )
}

fn create(number: u16) -> Operation {
    let (a, z) = ends(number);
    Operation::CreateVeth {
        a: new_device(&a, number),
        z: new_device(&z, number + 1000),
    }
}

#[test]
fn many_pairs_go_at_once_and_strangers_stay() {
    const PAIRS: u16 = 400;
    let world = World::new(2);
    world.do_all((0..PAIRS).map(create));
    sh(
        &world.pods[0],
        "ip link add stranger type veth peer name other",
    );
    assert_eq!(world.all(pod(0)).len(), usize::from(PAIRS) + 2);
    assert_eq!(world.all(pod(1)).len(), usize::from(PAIRS));
    let started = std::time::Instant::now();
    // Both ends of some, one end of others, and some that never were.
    let mut operations = vec![
        Operation::Delete(at(pod(0), "nobody")),
        Operation::Delete(at(Netns::Node, "nobody")),
    ];
    for number in 0..PAIRS {
        let (a, z) = ends(number);
        operations.push(Operation::Delete(if number % 3 == 0 {
            z.clone()
        } else {
            a.clone()
        }));
        if number % 2 == 0 {
            operations.push(Operation::Delete(if number % 3 == 0 { a } else { z }));
        }
    }
    world.do_all(operations);
    // One by one it is 24 ms each: 4.8 s. With room for a busy machine.
    assert!(
        started.elapsed().as_secs_f32() < 3.0,
        "{:?}",
        started.elapsed()
    );
    let mut left: Vec<String> = world
        .all(pod(0))
        .into_iter()
        .map(|device| device.name)
        .collect();
    left.sort();
    assert_eq!(left, ["other", "stranger"]);
    assert!(world.all(pod(1)).is_empty());
}

/// As many as that are deleted by the group that all of ours are in, unless some of ours are to
/// stay.
#[test]
fn ours_that_are_not_meant_stay_when_many_go() {
    const PAIRS: u16 = 300;
    let world = World::new(2);
    world.do_all((0..PAIRS).map(create));
    let doom_one = || {
        sh(
            &world.pods[0],
            &format!("ip link set a7 group {GROUP_DOOMED}"),
        )
    };
    doom_one();
    let all_but = |stays: u16| (0..PAIRS).filter(move |number| *number != stays);
    world.do_all(all_but(5).map(|number| Operation::Delete(ends(number).0)));
    for place in [pod(0), pod(1)] {
        assert_eq!(world.all(place).len(), 1);
    }
    let (a, z) = ends(5);
    assert!(world.one(&a).is_ours() && world.one(&z).is_ours());

    world.do_all(all_but(5).map(create));
    doom_one();
    sh(
        &world.pods[0],
        "ip link add stranger type veth peer name other",
    );
    world.do_all((0..PAIRS).map(|number| Operation::Delete(ends(number).0)));
    assert_eq!(world.all(pod(0)).len(), 2);
    assert!(world.all(pod(1)).is_empty());
}

#[test]
fn one_device_goes_alone_and_gone_is_gone() {
    let world = World::new(2);
    let (a, z) = (at(pod(0), "eth1"), at(pod(1), "eth1"));
    world.do_all([Operation::CreateVeth {
        a: new_device(&a, 1),
        z: new_device(&z, 2),
    }]);
    world.do_all([Operation::Delete(a.clone()), Operation::Delete(z.clone())]);
    world.do_all([Operation::Delete(a)]);
    assert!(world.all(pod(1)).is_empty());
}

#[test]
fn a_stranger_is_not_deleted_and_its_name_not_taken() {
    let world = World::new(2);
    sh(&world.pods[0], "ip link add eth1 type veth peer name other");
    let (a, z) = (at(pod(0), "eth1"), at(pod(1), "eth1"));
    let outcomes = world.attempt([
        Operation::Delete(a.clone()),
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
    ]);
    assert_eq!(
        outcomes,
        [
            Err(KernelError::Foreign {
                doing: "delete eth1 in sandbox s0".into(),
                at: a.clone()
            }),
            Err(KernelError::Skipped)
        ]
    );
    assert!(!world.one(&a).is_ours());
}

/// The kernel deletes no device of a group in which one cannot be deleted.
#[test]
fn a_device_that_cannot_be_deleted_keeps_no_other_from_it() {
    let world = World::new(2);
    let ends = [("e1", "z1"), ("e2", "z2")].map(|(a, z)| (at(pod(0), a), at(pod(1), z)));
    for (number, (a, z)) in (0..).zip(&ends) {
        world.do_all([Operation::CreateVeth {
            a: new_device(a, number),
            z: new_device(z, 100 + number),
        }]);
    }
    sh(
        &world.pods[0],
        &format!("ip link set lo group {GROUP_DOOMED}"),
    );
    world.do_all(ends.map(|(a, _)| Operation::Delete(a)));
    assert!(world.all(pod(0)).is_empty() && world.all(pod(1)).is_empty());
}
