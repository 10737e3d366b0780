//! veth pairs: born in place, configured, committed.

use ratchet_kernel::KernelError;
use ratchet_model::{
    device::{GROUP_OURS, Kind, NewDevice, Operation, Peer},
    link::{End, Route},
};

use crate::world::{World, alias, at, fresh, new_device, pod, run, sh, tunnel, within};

#[test]
fn a_pair_is_born_in_place_and_carries_frames() {
    let world = World::new(2);
    let (a, z) = (at(pod(0), "eth1.100"), at(pod(1), "eth1"));
    let route = Route {
        dst: "10.9.0.0/16".parse().unwrap(),
        via: Some("10.1.0.2".parse().unwrap()),
        metric: None,
    };
    let route6 = Route {
        dst: "fd09::/64".parse().unwrap(),
        via: Some("fd01::2".parse().unwrap()),
        metric: Some(7),
    };
    let onlink = Route {
        dst: "10.8.0.0/16".parse().unwrap(),
        via: None,
        metric: Some(9),
    };
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
        Operation::SetUp(a.clone(), true),
        Operation::SetUp(z.clone(), true),
        Operation::AddAddress(a.clone(), "10.1.0.1/24".parse().unwrap()),
        Operation::AddAddress(a.clone(), "10.3.0.0/31".parse().unwrap()),
        Operation::AddAddress(a.clone(), "fd01::1/64".parse().unwrap()),
        Operation::AddAddress(z.clone(), "10.1.0.2/24".parse().unwrap()),
        Operation::AddAddress(z.clone(), "fd01::2/64".parse().unwrap()),
        // Once more: no error.
        Operation::AddAddress(z.clone(), "10.1.0.2/24".parse().unwrap()),
        Operation::AddRoute(a.clone(), route.clone()),
        Operation::AddRoute(a.clone(), route6.clone()),
        Operation::AddRoute(a.clone(), onlink.clone()),
        Operation::AddRoute(a.clone(), onlink.clone()),
        Operation::Commit(a.clone(), alias(End::A, Some(0))),
        Operation::Commit(z.clone(), alias(End::Z, Some(1))),
    ]);
    // Nothing in the node's namespace, and exactly one device in each pod's.
    assert!(world.all(ratchet_model::device::Netns::Node).is_empty());
    let [one] = world.all(pod(0)).try_into().unwrap();
    assert_eq!(
        (one.name.as_str(), one.mtu, one.group),
        ("eth1.100", 1450, GROUP_OURS)
    );
    assert_eq!(one.mac, Some("02:00:00:00:00:01".parse().unwrap()));
    assert_eq!(one.alias, Some(alias(End::A, Some(0))));
    assert!(one.up && one.carrier);
    assert_eq!(
        one.kind,
        Kind::Veth {
            peer: Some(Peer {
                netns: pod(1),
                index: world.one(&z).index
            })
        }
    );
    let addresses: Vec<String> = one
        .addresses
        .iter()
        .map(|a| format!("{} {}", a.address, a.ours))
        .collect();
    assert_eq!(
        addresses,
        ["10.1.0.1/24 true", "10.3.0.0/31 true", "fd01::1/64 true"]
    );
    assert_eq!(
        one.routes
            .iter()
            .map(|r| r.route.clone())
            .collect::<Vec<_>>(),
        [onlink, route, route6]
    );
    assert!(one.routes.iter().all(|route| route.ours));
    // In other people's words.
    let text = sh(&world.pods[0], "ip address show dev eth1.100");
    assert!(
        text.contains("10.1.0.1/24 brd 10.1.0.255") && text.contains("10.3.0.0/31 scope"),
        "{text}"
    );
    assert!(
        sh(&world.pods[0], "ip route").contains("10.9.0.0/16 via 10.1.0.2 dev eth1.100 proto 82")
    );
    // An address without duplicate address detection can be used at once: no waiting here.
    within(&world.pods[0], || {
        std::net::UdpSocket::bind("[fd01::1]:0").unwrap()
    });
    sh(&world.pods[0], "ping -c 1 -W 2 10.1.0.2");
    sh(&world.pods[0], "ping -c 1 -W 2 fd01::2");
}

#[test]
fn a_pod_links_to_itself() {
    let world = World::new(1);
    let (a, z) = (at(pod(0), "eth1"), at(pod(0), "eth2"));
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
        Operation::SetUp(a, true),
        Operation::SetUp(z, true),
    ]);
    let found = world.all(pod(0));
    assert_eq!(found.len(), 2);
    assert!(
        found
            .iter()
            .all(|device| device.carrier && device.alias.is_none() && device.is_ours())
    );
}

#[test]
fn what_was_configured_can_be_changed_and_removed() {
    let world = World::new(2);
    let (a, z) = (at(pod(0), "eth1"), at(pod(1), "eth1"));
    let address = "10.1.0.1/24".parse().unwrap();
    let route = Route {
        dst: "fd09::/64".parse().unwrap(),
        via: None,
        metric: None,
    };
    let route4 = Route {
        dst: "10.9.0.0/16".parse().unwrap(),
        via: None,
        metric: None,
    };
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
        Operation::SetUp(a.clone(), true),
        // Before anything was ever there.
        Operation::RemoveAddress(a.clone(), address),
        Operation::RemoveRoute(a.clone(), route4.clone()),
        Operation::RemoveRoute(a.clone(), route.clone()),
    ]);
    world.do_all([
        Operation::SetMac(a.clone(), "02:00:00:00:00:09".parse().unwrap()),
        Operation::SetMtu(a.clone(), 9000.try_into().unwrap()),
        Operation::AddAddress(a.clone(), address),
        Operation::AddRoute(a.clone(), route.clone()),
        Operation::AddRoute(a.clone(), route4.clone()),
    ]);
    let read = world
        .kernel
        .interfaces(&[a.clone(), at(pod(0), "eth9")])
        .unwrap();
    assert_eq!(read[1], None);
    let read = read[0].as_ref().unwrap();
    assert_eq!(
        (read.mtu, read.mac),
        (9000, Some("02:00:00:00:00:09".parse().unwrap()))
    );
    assert_eq!(
        world
            .one(&a)
            .routes
            .iter()
            .map(|r| r.route.clone())
            .collect::<Vec<_>>(),
        [route4.clone(), route.clone()]
    );
    let removal = [
        Operation::RemoveRoute(a.clone(), route.clone()),
        Operation::RemoveRoute(a.clone(), route4.clone()),
        Operation::RemoveAddress(a.clone(), address),
        Operation::SetUp(a.clone(), false),
    ];
    world.do_all(removal.clone());
    world.do_all(removal);
    let device = world.one(&a);
    assert!(!device.up && device.addresses.is_empty() && device.routes.is_empty());
    // From a device that is gone, removing is done as well; adding is not.
    let gone = at(pod(0), "eth9");
    world.do_all([
        Operation::RemoveAddress(gone.clone(), address),
        Operation::RemoveRoute(gone.clone(), route),
    ]);
    let error = world
        .attempt([Operation::AddAddress(gone, address)])
        .remove(0)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot add the address 10.1.0.1/24 to eth9 in sandbox s0: there is no device eth9 in \
         sandbox s0"
    );
}

#[test]
fn ipv6_is_enabled_where_the_runtime_disabled_it() {
    let world = World::new(2);
    within(&world.pods[0], || {
        for scope in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1").unwrap();
        }
    });
    let (a, z) = (at(pod(0), "eth1.7"), at(pod(1), "eth1"));
    let route = Route {
        dst: "fd09::/64".parse().unwrap(),
        via: Some("fd01::2".parse().unwrap()),
        metric: None,
    };
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
        Operation::SetUp(a.clone(), true),
        Operation::SetUp(z, true),
        Operation::AddAddress(a.clone(), "fd01::1/64".parse().unwrap()),
        Operation::AddRoute(a.clone(), route),
        Operation::Commit(a.clone(), alias(End::A, Some(0))),
    ]);
    let device = world.one(&a);
    assert_eq!((device.addresses.len(), device.routes.len()), (1, 1));
    // Only for the device of ours.
    let lo = within(&world.pods[0], || {
        std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6").unwrap()
    });
    assert_eq!(lo, "1\n");
}

#[test]
fn a_device_with_a_failed_step_is_not_committed() {
    let world = World::new(2);
    let (a, z) = (at(pod(0), "eth1"), at(pod(1), "eth1"));
    let mut small = new_device(&a, 1);
    small.mtu = 576.try_into().unwrap();
    let outcomes = world.attempt([
        Operation::CreateVeth {
            a: small,
            z: new_device(&z, 2),
        },
        Operation::AddAddress(a.clone(), "fd01::1/64".parse().unwrap()),
        Operation::Commit(a.clone(), alias(End::A, Some(0))),
        Operation::Commit(z.clone(), alias(End::Z, Some(1))),
    ]);
    assert_eq!(outcomes[0], Ok(()));
    assert!(
        outcomes[1]
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("MTU of 1280"),
        "{:?}",
        outcomes[1]
    );
    assert_eq!(outcomes[2], Err(KernelError::Skipped));
    assert_eq!(outcomes[3], Ok(()));
    assert_eq!(world.one(&a).alias, None);
    assert_eq!(world.one(&z).alias, Some(alias(End::Z, Some(1))));
}

#[test]
fn link_local_addresses_of_the_kernel_are_left_out() {
    let world = World::new(2);
    let (a, z) = (at(pod(0), "eth1"), at(pod(1), "eth1"));
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
        Operation::SetUp(a.clone(), true),
        Operation::SetUp(z, true),
        Operation::AddAddress(a.clone(), "fe80::1/64".parse().unwrap()),
    ]);
    sh(&world.pods[0], "ip address add 10.7.0.1/24 dev eth1");
    crate::world::eventually("the kernel's own address", || {
        run(&world.pods[0], "ip -6 address show dev eth1")
            .1
            .contains("fe80::ff:fe00:1/64")
    });
    let found: Vec<String> = world
        .one(&a)
        .addresses
        .iter()
        .map(|a| format!("{} {}", a.address, a.ours))
        .collect();
    assert_eq!(found, ["10.7.0.1/24 false", "fe80::1/64 true"]);
}

#[test]
fn a_forgotten_namespace_can_die() {
    let mut world = World::new(0);
    let pod0 = fresh();
    world
        .kernel
        .register(crate::world::sandbox(0), pod0.clone());
    world.kernel.register(crate::world::sandbox(1), fresh());
    let (a, z) = (at(pod(0), "eth1"), at(pod(1), "eth1"));
    world.do_all([Operation::CreateVeth {
        a: new_device(&a, 1),
        z: new_device(&z, 2),
    }]);
    drop(pod0);
    world.kernel.forget(&crate::world::sandbox(0));
    // The pair dies with it: the proof that nothing holds the namespace any more.
    crate::world::eventually("the death of the namespace", || {
        world.all(pod(1)).is_empty()
    });
}

#[test]
fn a_default_route_out_of_a_link_leaves_the_pods_own_in_place() {
    let world = World::new(2);
    let (a, z) = (at(pod(0), "eth1"), at(pod(1), "eth1"));
    for line in [
        "ip link add eth0 type veth peer name eth0p",
        "ip link set eth0 up",
        "ip link set eth0p up",
        "ip addr add 10.2.0.1/24 dev eth0",
        "ip route add default via 10.2.0.254",
    ] {
        sh(&world.pods[0], line);
    }
    let default = Route {
        dst: "0.0.0.0/0".parse().unwrap(),
        via: Some("10.1.0.2".parse().unwrap()),
        metric: None,
    };
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        },
        Operation::SetUp(z, true),
        Operation::AddAddress(a.clone(), "10.1.0.1/24".parse().unwrap()),
        Operation::SetUp(a.clone(), true),
        Operation::AddRoute(a.clone(), default.clone()),
    ]);
    assert!(sh(&world.pods[0], "ip route get 10.99.0.1").contains("dev eth1"));
    world.do_all([Operation::RemoveRoute(a, default)]);
    assert!(sh(&world.pods[0], "ip route get 10.99.0.1").contains("via 10.2.0.254 dev eth0"));
}

#[test]
fn an_index_is_had_if_it_is_free() {
    let world = World::new(2);
    let (a, z) = (at(pod(0), "eth1"), at(pod(1), "eth1"));
    let indexed = |at, last, index| NewDevice {
        index,
        ..new_device(at, last)
    };
    // Only the second end asks; and a device's index is no hindrance to another namespace's.
    world.do_all([Operation::CreateVeth {
        a: new_device(&a, 1),
        z: indexed(&z, 2, Some(77)),
    }]);
    assert_eq!(world.one(&z).index, 77);
    // Taken: it comes under another one.
    let (b, y) = (at(pod(0), "eth2"), at(pod(1), "eth2"));
    world.do_all([Operation::CreateVeth {
        a: indexed(&b, 3, Some(99)),
        z: indexed(&y, 4, Some(77)),
    }]);
    assert_ne!(world.one(&y).index, 77);
    assert_eq!(world.one(&z).index, 77);
}

/// Fresh namespaces number their devices from 2 on, so that whichever comes first gets 2.
#[test]
fn what_asks_for_an_index_is_created_before_what_takes_any() {
    let world = World::new(2);
    let asked = |name, last| NewDevice {
        index: Some(2),
        ..new_device(&at(pod(1), name), last)
    };
    // By a device that is made over another socket, that of the node.
    world.do_all([
        Operation::CreateVxlan {
            device: new_device(&at(pod(1), "eth1"), 1),
            tunnel: tunnel(11, "192.0.2.1", "192.0.2.2", 0),
            source: None,
        },
        Operation::CreateVeth {
            a: new_device(&at(pod(0), "eth2"), 2),
            z: asked("eth2", 3),
        },
    ]);
    assert_eq!(world.one(&at(pod(1), "eth2")).index, 2);

    // By one that asked for an index that was taken.
    let world = World::new(2);
    sh(&world.pods[1], "ip link add taken index 7 type bridge");
    world.do_all([
        Operation::CreateVeth {
            a: new_device(&at(pod(0), "eth1"), 1),
            z: NewDevice {
                index: Some(7),
                ..new_device(&at(pod(1), "eth1"), 2)
            },
        },
        Operation::CreateVeth {
            a: new_device(&at(pod(0), "eth2"), 3),
            z: asked("eth2", 4),
        },
    ]);
    assert_eq!(world.one(&at(pod(1), "eth2")).index, 2);
}
