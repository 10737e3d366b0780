//! Finding the underlay.

use std::net::IpAddr;

use ratchet_kernel::UnderlayError;

use crate::world::{World, sh};

fn node() -> World {
    let world = World::new(0);
    for line in [
        "ip link add eth0 mtu 1400 type veth peer name far0",
        "ip link add eth1 type veth peer name far1",
        "ip link set eth0 up",
        "ip link set eth1 up",
        "ip link set far0 up",
        "ip link set far1 up",
        "ip address add 192.0.2.1/24 dev eth0",
        "ip address add fd00::1/64 dev eth0 nodad",
        "ip address add 198.51.100.1/24 dev eth1",
    ] {
        sh(&world.node, line);
    }
    world
}

#[test]
fn the_default_route_with_the_lowest_metric_leads_to_it() {
    let world = node();
    assert_eq!(
        world.kernel.underlay(None, None),
        Err(UnderlayError::NoDefaultRoute)
    );
    // IPv6 only, at first.
    sh(&world.node, "ip -6 route add default via fd00::99 dev eth0");
    assert_eq!(world.kernel.underlay(None, None).unwrap().interface, "eth0");
    sh(
        &world.node,
        "ip route add default via 198.51.100.9 dev eth1 metric 50",
    );
    let found = world.kernel.underlay(None, None).unwrap();
    assert_eq!(
        (
            found.interface.as_str(),
            found.address.to_string().as_str(),
            found.mtu
        ),
        ("eth1", "198.51.100.1", 1500)
    );
    sh(&world.node, "ip route add default via 192.0.2.9 dev eth0");
    let found = world.kernel.underlay(None, None).unwrap();
    assert_eq!(
        (
            found.interface.as_str(),
            found.address.to_string().as_str(),
            found.mtu
        ),
        ("eth0", "192.0.2.1", 1400)
    );
    let all: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(all, ["192.0.2.1/24", "fd00::1/64"]);
}

#[test]
fn interface_and_address_can_be_chosen_and_must_agree() {
    let world = node();
    let find = |interface, address: Option<&str>| {
        world.kernel.underlay(
            interface,
            address.map(|text| text.parse::<IpAddr>().unwrap()),
        )
    };
    let text = |interface, address| find(interface, address).unwrap_err().to_string();
    assert_eq!(
        find(Some("eth0"), Some("fd00::1"))
            .unwrap()
            .address
            .to_string(),
        "fd00::1"
    );
    assert_eq!(find(None, Some("198.51.100.1")).unwrap().interface, "eth1");
    assert_eq!(
        text(Some("eth0"), Some("198.51.100.1")),
        "parent_address 198.51.100.1 is not on parent interface eth0, which has 192.0.2.1/24, \
         fd00::1/64"
    );
    assert_eq!(
        text(Some("eth7"), None),
        "parent_interface eth7: the node has no such interface; it has lo, far0, eth0, far1, eth1"
    );
    assert_eq!(
        text(Some("far0"), None),
        "parent interface far0 has no global address; give it one, or set parent_interface to \
         another"
    );
    assert!(text(None, Some("10.0.0.1")).contains("set parent_interface"));
}
