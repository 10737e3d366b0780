//! Tests of what is decided for every link, and of the two wirings.

use super::*;
use crate::{
    WiringKind,
    device::Wanted,
    link::{End, Endpoint, Mac, Mtu, Route, Vni},
    names::{InterfaceName, LinkId, PodKey},
    reason::Reason,
    resolve::Link,
};

fn link(mtu: Option<u32>) -> Link {
    let pods = ["r1", "r2"].map(|name| PodKey::new("default", name).unwrap());
    let eth1: InterfaceName = "eth1".parse().unwrap();
    let id = LinkId::derive((&pods[0], &eth1), (&pods[1], &eth1));
    let [a, z] = [End::A, End::Z].map(|end| Endpoint {
        pod: pods[end as usize].clone(),
        interface: eth1.clone(),
        addresses: Vec::new(),
        mac: Mac::derive(id, end),
        routes: Vec::<Route>::new(),
    });
    let mtu = mtu.map(|mtu| Mtu::try_from(mtu).unwrap());
    Link {
        id,
        a,
        z,
        mtu,
        vni: None,
        wiring: None,
        declared_by: Vec::new(),
        barred: None,
        problem: None,
        warnings: Vec::new(),
        remarks: Vec::new(),
    }
}

fn node() -> Node {
    Node {
        name: "n1".parse().unwrap(),
        vtep: Some(Vtep {
            address: "10.0.0.1".parse().unwrap(),
            parent: 2,
        }),
        mtu: Mtu::try_from(1450).unwrap(),
        default_mtu: None,
        default_wiring: WiringKind::Direct,
        full: None,
    }
}

fn there(vtep: &str, mtu: u32) -> Place {
    Place::There {
        node: "n2".parse().unwrap(),
        vtep: vtep.parse().unwrap(),
        mtu: Mtu::try_from(mtu).unwrap(),
    }
}

fn at_odds() -> Reason {
    let pod = |name| PodKey::new("default", name).unwrap();
    Reason::DeclarationsContradict {
        first: pod("r1"),
        second: pod("r2"),
        what: "MTU".into(),
        one: "1300".into(),
        other: "1400".into(),
    }
}

fn here(id: &str) -> Place {
    Place::Here(id.parse().unwrap())
}

fn direct_wire(link: &Link, places: &[Place; 2], vni: VniState, node: &Node) -> Wiring {
    wire(link, places, vni, node, WiringKind::Direct)
}

#[test]
fn a_node_of_its_own_means_veth_and_two_mean_vxlan() {
    let granted = VniState::Granted(Vni::try_from(11).unwrap());
    let wiring = direct_wire(
        &link(None),
        &[here("s1"), here("s2")],
        VniState::None,
        &node(),
    );
    assert!(matches!(&wiring.wanted[..], [Wanted::Veth { a, .. }] if a.mtu.bytes() == 1450));
    let wiring = direct_wire(
        &link(None),
        &[there("10.0.0.2", 1400), here("s2")],
        granted,
        &node(),
    );
    let [Wanted::Vxlan { end, tunnel, .. }] = &wiring.wanted[..] else {
        panic!("{wiring:?}")
    };
    assert_eq!(
        (end.alias.end, end.mtu.bytes(), tunnel.port),
        (End::Z, 1400, 4789)
    );
}

#[test]
fn what_cannot_be_is_said_and_nothing_is_made() {
    let granted = VniState::Granted(Vni::try_from(11).unwrap());
    let granted = || granted.clone();
    let taken = VniState::TakenBy(Vni::try_from(77).unwrap(), link(None).id);
    let blocked = VniState::Blocked(Vni::try_from(78).unwrap(), "n2".parse().unwrap());
    for (link, place, vni, expected) in [
        (
            link(Some(9000)),
            there("10.0.0.2", 1450),
            granted(),
            "MTU 9000 is asked for, but the underlay between nodes n1 and n2 has room for 1450",
        ),
        (
            link(None),
            there("10.0.0.1", 1450),
            granted(),
            "same parent address 10.0.0.1",
        ),
        (
            link(None),
            there("fd00::2", 1450),
            granted(),
            "both must be IPv4 or both IPv6",
        ),
        (
            link(None),
            there("10.0.0.2", 1450),
            taken,
            "VNI 77 is asked for, but it is that of link",
        ),
        (
            link(None),
            there("10.0.0.2", 1450),
            blocked,
            "VNI 78 is asked for, but another VXLAN device of node n2 has it",
        ),
        (
            Link {
                problem: Some(Box::new(at_odds())),
                ..link(None)
            },
            here("s2"),
            granted(),
            "MTU is 1300 on default/r1",
        ),
        (
            Link {
                problem: Some(Box::new(at_odds())),
                ..link(None)
            },
            there("10.0.0.2", 1450),
            granted(),
            "MTU is 1300 on default/r1",
        ),
    ] {
        let wiring = direct_wire(&link, &[here("s1"), place], vni, &node());
        assert_eq!(wiring.wanted, [Wanted::Frozen(link.id)]);
        let obstacle = wiring.obstacle.unwrap();
        assert!(!obstacle.is_waiting(), "{obstacle:?}");
        let text = obstacle.to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_missing_peer_is_waited_for() {
    for (place, expected) in [
        (Place::Unknown, "pod default/r2 is not known yet"),
        (Place::Gone, "pod default/r2 has gone"),
        (
            Place::Lost("old".parse().unwrap()),
            "sandbox old, which this agent does not know",
        ),
        (there("10.0.0.2", 1450), "waiting for a VNI"),
    ] {
        let wiring = direct_wire(&link(None), &[here("s1"), place], VniState::None, &node());
        assert!(matches!(wiring.wanted[..], [Wanted::Hold { .. }]));
        let obstacle = wiring.obstacle.unwrap();
        assert!(obstacle.is_waiting(), "{obstacle:?}");
        let text = obstacle.to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn without_an_underlay_a_tunnel_waits_and_a_veth_does_not() {
    let node = Node {
        vtep: None,
        ..node()
    };
    let far = direct_wire(
        &link(None),
        &[here("s1"), there("10.0.0.2", 1450)],
        VniState::Granted(Vni::try_from(11).unwrap()),
        &node,
    );
    assert!(matches!(far.wanted[..], [Wanted::Hold { .. }]), "{far:?}");
    assert_eq!(
        far.obstacle.unwrap().to_string(),
        "waiting for this node's underlay, on which the tunnel to node n2 starts"
    );
    let near = direct_wire(
        &link(None),
        &[here("s1"), here("s2")],
        VniState::None,
        &node,
    );
    assert!(matches!(near.wanted[..], [Wanted::Veth { .. }]), "{near:?}");
    assert_eq!(near.obstacle, None);
}

#[test]
fn of_a_barred_link_nothing_is_made_or_kept_and_only_its_declarer_is_told() {
    let reason = Reason::NoConsent {
        pod: PodKey::new("default", "r2").unwrap(),
        declarer: PodKey::new("default", "r1").unwrap(),
    };
    let link = Link {
        barred: Some(Box::new(reason.clone())),
        declared_by: vec![PodKey::new("default", "r1").unwrap()],
        ..link(None)
    };
    let granted = VniState::Granted(Vni::try_from(11).unwrap());
    let there = || there("10.0.0.2", 1400);
    for (places, told) in [
        ([here("s1"), here("s2")], true),
        ([here("s1"), there()], true),
        ([here("s1"), Place::Gone], true),
        ([there(), here("s2")], false),
        ([Place::Gone, here("s2")], false),
        ([Place::Unknown, here("s2")], false),
    ] {
        let wiring = direct_wire(&link, &places, granted.clone(), &node());
        assert_eq!(wiring.wanted, [], "{places:?}");
        assert_eq!(wiring.obstacle.is_some(), told, "{places:?}");
        assert!(!needs_vni(&link, &places));
    }
    let unknown = direct_wire(&link, &[here("s1"), Place::Unknown], granted, &node());
    assert!(matches!(unknown.wanted[..], [Wanted::Hold { .. }]));
    assert_eq!(unknown.obstacle.as_deref(), Some(&reason));
}

#[test]
fn on_a_node_without_room_what_a_link_has_stays() {
    let node = Node {
        full: Some(2),
        ..node()
    };
    let granted = VniState::Granted(Vni::try_from(11).unwrap());
    for place in [here("s2"), there("10.0.0.2", 1450)] {
        let wiring = direct_wire(&link(None), &[here("s1"), place], granted.clone(), &node);
        assert_eq!(wiring.wanted, [Wanted::Frozen(link(None).id)]);
        let obstacle = wiring.obstacle.unwrap();
        assert!(obstacle.is_waiting());
        let expected = "node n1 has the 2 devices of links that it may have (max_devices)";
        assert_eq!(obstacle.to_string(), expected);
    }
    let gone = direct_wire(&link(None), &[here("s1"), Place::Gone], granted, &node);
    assert!(matches!(gone.wanted[..], [Wanted::Hold { .. }]));
}
