//! Random histories of a node: which links there are, where their pods are, and what happens to
//! the node in between.
#![allow(dead_code, missing_docs)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use ratchet_model::{
    End, Endpoint, InterfaceName, LinkId, Mac, Mtu, PodKey, Reason, SandboxId, Vni, WiringKind,
    device::{At, Joint, Kind, Netns, Observed, Part, Tunnel, Wanted, WantedEnd},
    planner::{Plan, PlanScope, plan},
    resolve::Link,
    wiring::{Node, Place, VniState, Vtep, wire},
};

use super::world::World;

pub const PODS: usize = 4;

/// One link of the random topology: pods, interface numbers, an address or none.
#[derive(Debug, Clone)]
pub struct Cable {
    pub pods: (usize, usize),
    pub addressed: bool,
    pub frozen: bool,
    pub wiring: WiringKind,
}

/// Where a pod is in an epoch.
#[derive(Debug, Clone, Copy)]
pub enum Spot {
    /// Here, in its n-th sandbox.
    Here(u8),
    There(u8),
    Gone,
    Unknown,
}

/// What happens to the node between two reconciles.
#[derive(Debug, Clone)]
pub enum Mishap {
    None,
    /// The plan is cut off after so many steps.
    Crash(usize),
    /// A sandbox's namespace vanishes with all in it.
    NetnsGone(usize, u8),
    /// Another program deletes the n-th device.
    Deleted(usize),
    /// A user makes a device where a pod's n-th interface is to be.
    Stranger(usize, usize),
    /// A user adds an address to the n-th device.
    Address(usize),
}

#[derive(Debug, Clone)]
pub struct Epoch {
    /// Which of two configurations the links have.
    pub variant: u8,
    pub spots: Vec<Spot>,
    pub present: Vec<bool>,
    pub mishap: Mishap,
}

fn spot() -> impl Strategy<Value = Spot> {
    prop_oneof![
        4 => (0u8..2).prop_map(Spot::Here),
        2 => (0u8..2).prop_map(Spot::There),
        1 => Just(Spot::Gone),
        1 => Just(Spot::Unknown),
    ]
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        3 => Just(Mishap::None),
        4 => (0usize..40).prop_map(Mishap::Crash),
        2 => (0..PODS, 0u8..2).prop_map(|(pod, n)| Mishap::NetnsGone(pod, n)),
        2 => (0usize..20).prop_map(Mishap::Deleted),
        1 => (0..PODS, 0usize..8).prop_map(|(pod, n)| Mishap::Stranger(pod, n)),
        2 => (0usize..20).prop_map(Mishap::Address),
    ]
}

pub fn history() -> impl Strategy<Value = (Vec<Cable>, Vec<Epoch>)> {
    let cable = (
        (0..PODS, 0..PODS),
        any::<bool>(),
        proptest::bool::weighted(0.1),
        prop_oneof![Just(WiringKind::Direct), Just(WiringKind::Stitched)],
    )
        .prop_map(|(pods, addressed, frozen, wiring)| Cable {
            pods,
            addressed,
            frozen,
            wiring,
        });
    proptest::collection::vec(cable, 1..8).prop_flat_map(|cables| {
        let count = cables.len();
        let epoch = (
            proptest::collection::vec(spot(), PODS),
            proptest::collection::vec(proptest::bool::weighted(0.85), count),
            mishap(),
            0u8..2,
        )
            .prop_map(|(spots, present, mishap, variant)| Epoch {
                variant,
                spots,
                present,
                mishap,
            });
        (Just(cables), proptest::collection::vec(epoch, 1..6))
    })
}

pub fn pod(number: usize) -> PodKey {
    PodKey::new("default", &format!("p{number}")).unwrap()
}

pub fn sandbox(pod: usize, n: u8) -> SandboxId {
    format!("p{pod}-{n}").parse().unwrap()
}

/// The link of the n-th cable: interface `e<n>` at its first pod, `f<n>` at its second.
pub fn link(number: usize, cable: &Cable, variant: u8) -> Link {
    let near: (PodKey, InterfaceName) = (pod(cable.pods.0), format!("e{number}").parse().unwrap());
    let far: (PodKey, InterfaceName) = (pod(cable.pods.1), format!("f{number}").parse().unwrap());
    let id = LinkId::derive((&near.0, &near.1), (&far.0, &far.1));
    let (a, z) = if near <= far {
        (near, far)
    } else {
        (far, near)
    };
    let endpoint = |(pod, interface): (PodKey, InterfaceName), end| Endpoint {
        pod,
        interface,
        addresses: if cable.addressed {
            vec![
                format!("10.{number}.{variant}.{}/24", 1 + end as u8)
                    .parse()
                    .unwrap(),
            ]
        } else {
            vec![]
        },
        mac: Mac::derive(id, end),
        routes: vec![],
    };
    Link {
        id,
        a: endpoint(a, End::A),
        z: endpoint(z, End::Z),
        mtu: Mtu::try_from(1400 + u32::from(variant)).ok(),
        vni: None,
        wiring: None,
        declared_by: vec![],
        barred: None,
        problem: cable.frozen.then(|| Box::new(Reason::RouteInvalid {})),
        warnings: vec![],
        remarks: vec![],
    }
}

fn node() -> Node {
    Node {
        name: "here".parse().unwrap(),
        vtep: Some(Vtep {
            address: "10.99.0.1".parse().unwrap(),
            parent: 2,
        }),
        mtu: Mtu::try_from(1450).unwrap(),
        default_mtu: None,
        default_wiring: WiringKind::Direct,
        full: None,
    }
}

pub fn wanted(cables: &[Cable], epoch: &Epoch) -> Vec<Wanted> {
    let place = |key: &PodKey| {
        let number: usize = key.name()[1..].parse().unwrap();
        match epoch.spots[number] {
            Spot::Here(n) => Place::Here(sandbox(number, n)),
            Spot::There(n) => Place::There {
                node: format!("there{n}").parse().unwrap(),
                vtep: format!("10.99.0.{}", 10 + n).parse().unwrap(),
                mtu: Mtu::try_from(1450).unwrap(),
            },
            Spot::Gone => Place::Gone,
            Spot::Unknown => Place::Unknown,
        }
    };
    cables
        .iter()
        .enumerate()
        .filter(|(number, _)| epoch.present[*number])
        .flat_map(|(number, cable)| {
            let link = link(number, cable, epoch.variant);
            let places = [place(&link.a.pod), place(&link.z.pod)];
            let vni = VniState::Granted(Vni::try_from(11 + number as u32).unwrap());
            wire(&link, &places, vni, &node(), cable.wiring).wanted
        })
        .collect()
}

fn find<'a>(observed: &'a [Observed], end: &WantedEnd) -> Option<&'a Observed> {
    observed
        .iter()
        .find(|device| device.netns == end.netns && device.name == end.name)
}

/// The end is in place and is all that was wanted.
fn assert_end(observed: &[Observed], end: &WantedEnd) {
    let device = find(observed, end).unwrap_or_else(|| panic!("{end:?} is missing"));
    assert_eq!(device.alias.as_ref(), Some(&end.alias));
    assert_eq!(
        (device.mac, device.mtu, device.up),
        (Some(end.mac), end.mtu.bytes(), end.up)
    );
    for address in &end.addresses {
        assert!(
            device
                .addresses
                .iter()
                .any(|o| o.address == *address && o.ours),
            "{end:?} lacks {address}"
        );
    }
}

fn assert_veth(observed: &[Observed], a: &WantedEnd, z: &WantedEnd) {
    assert_end(observed, a);
    assert_end(observed, z);
    let (one, other) = (find(observed, a).unwrap(), find(observed, z).unwrap());
    assert!(one.is_peer_of(other), "{one:?} and {other:?}");
}

fn assert_vxlan(observed: &[Observed], end: &WantedEnd, tunnel: &Tunnel) {
    assert_end(observed, end);
    assert_eq!(find(observed, end).unwrap().kind, Kind::from(tunnel));
}

fn assert_stub(observed: &[Observed], pod: &WantedEnd, node: &WantedEnd, joint: &Joint) {
    let is_up = find(observed, node).is_some_and(|device| device.up);
    let is_dark = |name: &String| {
        let mut on_node = observed.iter().filter(|other| other.netns == Netns::Node);
        let far = on_node.find(|other| other.name == *name);
        far.is_some_and(|far| far.up && !far.carrier)
    };
    let as_it_is = WantedEnd {
        up: match joint {
            Joint::Keep => is_up,
            Joint::To(name) => !is_dark(name),
            Joint::Cut => false,
        },
        ..node.clone()
    };
    assert_veth(observed, pod, &as_it_is);
    if let Joint::To(name) = joint {
        assert_joined(observed, node, name);
    }
}

/// What the end receives goes to the device of this name.
fn assert_joined(observed: &[Observed], end: &WantedEnd, to: &str) {
    let from = find(observed, end).unwrap();
    let on_node = observed.iter().filter(|device| device.netns == Netns::Node);
    let to = on_node.clone().find(|device| device.name == to).unwrap();
    assert_eq!(from.joined, Some(to.index), "{from:?}");
    assert_ne!(from.alias.as_ref().unwrap().part, Part::Pod);
}

/// All devices of a link.
fn devices_of(observed: &[Observed], link: LinkId) -> impl Iterator<Item = At> {
    let is_of_link = move |device: &&Observed| {
        let alias = device.alias.as_ref();
        alias.is_some_and(|alias| alias.link == link)
    };
    observed.iter().filter(is_of_link).map(Observed::at)
}

/// What is there after a plan is what is wanted, and nothing of ours besides.
pub fn assert_effect(wanted: &[Wanted], observed: &[Observed], plan: &Plan) {
    let conflicts = plan.conflicts.iter();
    let blocked: BTreeSet<LinkId> = conflicts.map(|conflict| conflict.link).collect();
    let mut expected: BTreeSet<At> = BTreeSet::new();
    for object in wanted {
        let link = object.link();
        if blocked.contains(&link) {
            expected.extend(devices_of(observed, link));
            continue;
        }
        match object {
            Wanted::Veth { a, z } => assert_veth(observed, a, z),
            Wanted::Vxlan {
                end,
                tunnel,
                joined,
            } => {
                assert_vxlan(observed, end, tunnel);
                if let Some(name) = joined {
                    assert_joined(observed, end, name);
                }
            }
            Wanted::Stub { pod, node, joint } => {
                let kept = observed.iter().filter(|device| {
                    let alias = device.alias.as_ref();
                    alias.is_some_and(|alias| object.keeps_joined(alias))
                });
                expected.extend(kept.map(Observed::at));
                assert_stub(observed, pod, node, joint);
            }
            Wanted::Hold { parked, .. } => {
                if let Some(held) = find(observed, parked) {
                    assert_eq!(held.alias.as_ref(), Some(&parked.alias));
                    assert!(!held.up);
                }
            }
            Wanted::Frozen(_) => expected.extend(devices_of(observed, link)),
        }
        expected.extend(object.ends().map(WantedEnd::at));
    }
    for device in observed.iter().filter(|device| device.is_ours()) {
        assert!(expected.contains(&device.at()), "{device:?} is not wanted");
    }
}

pub fn strangers(observed: &[Observed]) -> Vec<Observed> {
    observed
        .iter()
        .filter(|device| !device.is_ours())
        .cloned()
        .collect()
}

/// Plans for everything that is there.
pub fn plan_all(wanted: &[Wanted], world: &World) -> Plan {
    let observed = world.observe();
    let namespaces = observed.iter().map(|device| device.netns.clone()).collect();
    let scope = PlanScope {
        links: &BTreeSet::new(),
        namespaces: &namespaces,
    };
    plan(wanted, &observed, &world.leftovers, scope)
}

/// Plans and executes, all or the first steps only. Then the agent dies.
pub fn reconcile(world: &mut World, wanted: &[Wanted], crash_after: Option<usize>) -> Plan {
    let plan = plan_all(wanted, world);
    world.leftovers.remember(&plan.leftovers);
    let count = crash_after.unwrap_or(plan.steps.len());
    for step in plan.steps.iter().take(count) {
        world.apply(step);
    }
    if crash_after.is_none() {
        world.leftovers.finish(&plan.leftovers, |link| {
            let mut conflicts = plan.conflicts.iter();
            conflicts.any(|conflict| conflict.link == link)
        });
    }
    plan
}

pub fn befall(world: &mut World, mishap: &Mishap) {
    match mishap {
        Mishap::None | Mishap::Crash(_) => {}
        Mishap::NetnsGone(pod, n) => world.remove_netns(&Netns::Sandbox(sandbox(*pod, *n))),
        Mishap::Deleted(n) => world.remove_nth(*n),
        Mishap::Stranger(pod, n) => {
            for name in [format!("e{n}"), format!("f{n}")] {
                world.stranger(At {
                    netns: Netns::Sandbox(sandbox(*pod, 0)),
                    name,
                });
            }
        }
        Mishap::Address(n) => world.user_address(*n, "172.31.0.1/24".parse().unwrap()),
    }
}
