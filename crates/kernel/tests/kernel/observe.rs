//! Observations: by name and all, with and without addresses.

use std::collections::BTreeMap;

use ratchet_kernel::Look;
use ratchet_model::{
    device::{Kind, Netns, Operation},
    link::End,
};

use crate::world::{World, alias, at, new_device, pod, sh};

#[test]
fn by_name_and_all_tell_the_same() {
    let world = World::new(2);
    for number in 0..20_u16 {
        let (a, z) = (
            at(pod(0), &format!("a{number}")),
            at(pod(1), &format!("z{number}")),
        );
        world.do_all([
            Operation::CreateVeth {
                a: new_device(&a, number),
                z: new_device(&z, 100 + number),
            },
            Operation::SetUp(a.clone(), true),
            Operation::AddAddress(a, format!("10.1.{number}.1/24").parse().unwrap()),
        ]);
    }
    sh(&world.pods[0], "ip link add stranger type bridge");
    sh(&world.pods[0], "ip link set a7 up");
    sh(&world.pods[0], "ip route add 10.99.0.0/16 dev a7");
    let all = world.all(pod(0));
    assert_eq!(all.len(), 21);
    for device in &all {
        assert_eq!(&world.one(&device.at()), device);
    }
    let a7 = world.one(&at(pod(0), "a7"));
    assert_eq!(
        (a7.addresses.len(), a7.routes.len(), a7.routes[0].ours),
        (1, 1, false)
    );
    let stranger = world.one(&at(pod(0), "stranger"));
    assert_eq!((stranger.kind, stranger.alias), (Kind::Other, None));
    // One that does not exist is left out, and so it does not matter how many names are asked for.
    let names = (0..1000).map(|number| format!("a{number}")).collect();
    assert_eq!(world.look(pod(0), Look::Names(names)).len(), 20);
}

#[test]
fn alternative_names_lead_to_a_device_whether_few_or_many_are_asked_for() {
    let world = World::new(1);
    sh(&world.pods[0], "ip link add stranger type bridge");
    sh(
        &world.pods[0],
        "ip link property add dev stranger altname elsewhere",
    );
    for others in [0, 1000] {
        let names = (0..others)
            .map(|number| format!("a{number}"))
            .chain(["elsewhere".to_owned()])
            .collect();
        let found = world.look(pod(0), Look::Names(names));
        assert_eq!(
            found
                .iter()
                .map(|device| device.name.as_str())
                .collect::<Vec<_>>(),
            ["stranger"],
            "{others}"
        );
    }
}

#[test]
fn addresses_are_read_of_those_devices_of_ours_that_are_chosen() {
    let world = World::new(2);
    let (a, z) = (at(pod(0), "eth1"), at(pod(1), "eth1"));
    let settled = alias(End::A, Some(0));
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
        Operation::AddAddress(a.clone(), "10.1.0.1/24".parse().unwrap()),
        Operation::Commit(a.clone(), settled.clone()),
    ]);
    sh(&world.pods[0], "ip address add 127.0.0.1/8 dev lo");
    let scope = BTreeMap::from([
        (pod(0), Look::All),
        (Netns::Node, Look::All),
        (pod(1), Look::Names(Default::default())),
    ]);
    let addresses = |chosen: &ratchet_model::device::Alias| {
        let found = world
            .kernel
            .observe(&scope, |device| device.alias.as_ref() == Some(chosen))
            .unwrap();
        assert_eq!(found.len(), 3);
        found
            .into_iter()
            .map(|device| device.addresses.len())
            .sum::<usize>()
    };
    assert_eq!(addresses(&settled), 1);
    assert_eq!(addresses(&alias(End::Z, Some(0))), 0);
    let all = world.kernel.observe(&scope, |_| true).unwrap();
    assert_eq!(
        all.iter()
            .map(|device| device.addresses.len())
            .sum::<usize>(),
        1
    );
}
