//! Links with several objects on one node, of kinds that no wiring makes: the planner must tell
//! their devices apart.
#![allow(clippy::unwrap_used, missing_docs)]

mod history;
mod world;

use std::collections::BTreeSet;

use ratchet_model::{
    End, Endpoint, LinkId, SandboxId, WiringKind,
    device::{
        Alias, At, Kind, Netns, Observed, Operation, Part, Tunnel, VXLAN_PORT, Wanted, WantedEnd,
    },
    planner::{MOVE_LIMIT, Plan, settled},
    resolve::Link,
    wiring::parked_name,
};

use history::{Cable, assert_effect, link, plan_all, reconcile, sandbox};
use world::World;

fn cable_link(number: usize) -> Link {
    let cable = Cable {
        pods: (0, 1),
        addressed: true,
        frozen: false,
        wiring: WiringKind::Direct,
    };
    link(number, &cable, 0)
}

/// Two veths: one for each pod, from its n-th sandbox to the node.
fn pairs(number: usize, sandboxes: [u8; 2]) -> Vec<Wanted> {
    let link = cable_link(number);
    let pair = |end: End| pair(&link, end, &sandbox(end as usize, sandboxes[end as usize]));
    End::BOTH.map(pair).into()
}

/// A veth from a pod to the node's namespace.
fn pair(link: &Link, end: End, sandbox: &SandboxId) -> Wanted {
    let mtu = link.mtu.unwrap();
    let Endpoint {
        interface,
        addresses,
        mac,
        ..
    } = link.endpoint(end);
    let alias = |sandbox| Alias {
        link: link.id,
        end,
        part: Part::Pod,
        sandbox,
        config: mtu.bytes(),
    };
    let in_pod = WantedEnd {
        netns: Netns::Sandbox(sandbox.clone()),
        name: interface.to_string(),
        mac: *mac,
        mtu,
        addresses: addresses.clone(),
        routes: vec![],
        up: true,
        alias: alias(Some(sandbox.clone())),
    };
    let on_node = WantedEnd {
        netns: Netns::Node,
        name: format!("st{end}{:012x}", link.id.number() >> 16),
        mac: *mac,
        mtu,
        addresses: vec![],
        routes: vec![],
        up: true,
        alias: alias(None),
    };
    Wanted::Veth {
        a: in_pod,
        z: on_node,
    }
}

fn netns(pod: usize, n: u8) -> Netns {
    Netns::Sandbox(sandbox(pod, n))
}

fn devices(world: &World, netns: &Netns) -> Vec<Observed> {
    let mut devices = world.observe();
    devices.retain(|device| device.netns == *netns);
    // A carrier is the other end's.
    for device in &mut devices {
        device.carrier = false;
    }
    devices
}

/// The namespaces in which a plan changes something.
fn touched(plan: &Plan) -> BTreeSet<At> {
    let ats = plan.steps.iter().flat_map(|step| step.operation.devices());
    ats.cloned().collect()
}

fn moves(plan: &Plan) -> usize {
    let is_move = |operation: &Operation| matches!(operation, Operation::Move { .. });
    let operations = plan.steps.iter().map(|step| &step.operation);
    operations.filter(|operation| is_move(operation)).count()
}

#[test]
fn two_pairs_of_a_link_are_made_and_then_left_alone() {
    let (mut world, wanted) = (World::default(), pairs(0, [0, 0]));
    let plan = reconcile(&mut world, &wanted, None);
    assert_effect(&wanted, &world.observe(), &plan);
    assert_eq!(world.observe().len(), 4);
    assert_eq!(plan_all(&wanted, &world).steps, []);
    let mut reversed = wanted.clone();
    reversed.reverse();
    assert_eq!(plan_all(&reversed, &world).steps, []);
}

#[test]
fn a_link_is_settled_when_all_of_its_objects_are() {
    let (mut world, wanted) = (World::default(), pairs(0, [0, 0]));
    reconcile(&mut world, &wanted, None);
    let id = cable_link(0).id;
    let in_namespaces = |world: &World, wanted: &[Wanted], whole: BTreeSet<Netns>| {
        let mut observed = world.observe();
        observed.retain(|device| whole.contains(&device.netns));
        settled(wanted, &observed, &world.leftovers, &whole)
    };
    let all: BTreeSet<Netns> = [Netns::Node, netns(0, 0), netns(1, 0)].into();
    assert_eq!(in_namespaces(&world, &wanted, all.clone()), [id].into());
    let one: BTreeSet<Netns> = [netns(0, 0)].into();
    assert_eq!(in_namespaces(&world, &wanted, one.clone()), [id].into());
    // A device of an object that is not wanted any more.
    assert_eq!(in_namespaces(&world, &wanted[..1], all.clone()), [].into());
    // An object that lacks its devices.
    world.remove_netns(&netns(1, 0));
    assert_eq!(in_namespaces(&world, &wanted, all), [].into());
    assert_eq!(in_namespaces(&world, &wanted, one), [id].into());
}

#[test]
fn an_object_that_is_lost_is_made_again_and_the_other_is_not_touched() {
    let (mut world, wanted) = (World::default(), pairs(0, [0, 0]));
    reconcile(&mut world, &wanted, None);
    world.remove_netns(&netns(0, 0));
    let plan = reconcile(&mut world, &wanted, None);
    assert_effect(&wanted, &world.observe(), &plan);
    let lost: BTreeSet<At> = wanted[0].ends().map(WantedEnd::at).collect();
    assert_eq!(touched(&plan), lost);
}

#[test]
fn an_object_whose_end_is_elsewhere_is_moved_and_the_other_is_not_touched() {
    let mut world = World::default();
    reconcile(&mut world, &pairs(0, [0, 0]), None);
    let before = devices(&world, &netns(1, 0));
    let wanted = pairs(0, [1, 0]);
    let plan = reconcile(&mut world, &wanted, None);
    assert_effect(&wanted, &world.observe(), &plan);
    assert_eq!(moves(&plan), 1);
    assert_eq!(devices(&world, &netns(1, 0)), before);
}

/// Both objects have a device of the same end that is not where it is wanted, and the node's ends
/// say whose it is.
#[test]
fn objects_of_the_same_end_do_not_take_each_others_devices() {
    let mut world = World::default();
    let both = |n: u8| {
        let [mut one, mut other] = <[Wanted; 2]>::try_from(pairs(0, [n, n])).unwrap();
        // Both are of end a now, in the same sandbox, under two names.
        for (number, object) in [&mut one, &mut other].into_iter().enumerate() {
            let Wanted::Veth { a, z } = object else {
                unreachable!()
            };
            (a.alias.end, z.alias.end) = (End::A, End::A);
            a.alias.sandbox = Some(sandbox(0, n));
            a.netns = netns(0, n);
            a.name = format!("eth{number}");
        }
        [one, other]
    };
    reconcile(&mut world, &both(0), None);
    let index = |world: &World, n: u8| -> Vec<(String, u32)> {
        let found = devices(world, &netns(0, n)).into_iter();
        found.map(|device| (device.name, device.index)).collect()
    };
    let before = index(&world, 0);
    let plan = reconcile(&mut world, &both(1), None);
    assert_effect(&both(1), &world.observe(), &plan);
    assert_eq!(moves(&plan), 2);
    assert_eq!(index(&world, 1), before);
    assert_eq!(plan_all(&both(1), &world).steps, []);
}

#[test]
fn a_link_with_a_stranger_in_its_way_is_left_as_it_is_with_all_objects() {
    let (mut world, wanted) = (World::default(), pairs(0, [0, 0]));
    world.stranger(At {
        netns: netns(1, 0),
        name: "f0".into(),
    });
    let plan = plan_all(&wanted, &world);
    assert_eq!((plan.conflicts.len(), plan.steps), (1, vec![]));
}

#[test]
fn only_devices_that_have_to_be_moved_count_for_the_limit() {
    let all = |n: u8| -> Vec<Wanted> {
        (0..=MOVE_LIMIT / 2)
            .flat_map(|number| pairs(number, [n, 0]))
            .collect()
    };
    let mut world = World::default();
    reconcile(&mut world, &all(0), None);
    let plan = reconcile(&mut world, &all(1), None);
    assert_effect(&all(1), &world.observe(), &plan);
    assert_eq!(moves(&plan), MOVE_LIMIT / 2 + 1);
}

/// Tunnels of one link to several nodes, as many objects.
#[test]
fn tunnels_of_a_link_are_pointed_elsewhere_each_by_itself() {
    let tunnels = |remotes: [&str; 2]| -> Vec<Wanted> {
        let ends = pairs(0, [0, 0]).into_iter().map(|object| match object {
            Wanted::Veth { a, .. } => a,
            other => unreachable!("{other:?}"),
        });
        let objects = ends.zip(remotes).zip(11..).map(|((end, remote), vni)| {
            let tunnel = Tunnel {
                vni: vni.try_into().unwrap(),
                remote: remote.parse().unwrap(),
                local: "10.99.0.1".parse().unwrap(),
                parent: 2,
                port: VXLAN_PORT,
            };
            let alias = Alias {
                end: End::A,
                ..end.alias.clone()
            };
            let end = WantedEnd { alias, ..end };
            Wanted::Vxlan {
                end,
                tunnel,
                joined: None,
            }
        });
        objects.collect()
    };
    let mut world = World::default();
    let before = tunnels(["10.99.0.2", "10.99.0.3"]);
    reconcile(&mut world, &before, None);
    let wanted = tunnels(["10.99.0.2", "10.99.0.4"]);
    let plan = reconcile(&mut world, &wanted, None);
    assert_effect(&wanted, &world.observe(), &plan);
    let only = wanted[1].ends().next().unwrap().at();
    assert_eq!(touched(&plan), [only].into());
}

/// Two pairs between the same two pods, as objects of one link.
#[test]
fn the_other_ends_of_two_survivors_are_parked_both() {
    let mut world = World::default();
    let parallel = |number: usize| {
        let mut objects = pairs(number, [0, 0]).into_iter();
        let ends = [objects.next(), objects.next()].map(|object| match object {
            Some(Wanted::Veth { a, .. }) => a,
            other => unreachable!("{other:?}"),
        });
        let [mut a, mut z] = ends;
        let id: LinkId = cable_link(0).id;
        (a.alias.link, z.alias.link) = (id, id);
        [a, z]
    };
    let objects = [0, 1].map(parallel);
    let up = objects.clone().map(|[a, z]| Wanted::Veth { a, z });
    reconcile(&mut world, &up, None);
    let before = devices(&world, &netns(0, 0));
    let held: Vec<Wanted> = objects
        .into_iter()
        .zip(["", "1"])
        .map(|([survivor, other], suffix)| {
            let mut parked = other;
            parked.netns = Netns::Node;
            parked.name = format!("{}{suffix}", &parked_name(cable_link(0).id, End::Z)[..14]);
            (parked.alias.sandbox, parked.alias.config) = (None, 0);
            (parked.up, parked.addresses) = (false, vec![]);
            Wanted::Hold { survivor, parked }
        })
        .collect();
    let plan = reconcile(&mut world, &held, None);
    assert_effect(&held, &world.observe(), &plan);
    assert_eq!(moves(&plan), 2);
    let without_peers = |mut found: Vec<Observed>| {
        found
            .iter_mut()
            .for_each(|device| device.kind = Kind::Other);
        found
    };
    let after = devices(&world, &netns(0, 0));
    assert_eq!(without_peers(after), without_peers(before));
    let parked = devices(&world, &Netns::Node);
    assert!(
        parked
            .iter()
            .all(|device| matches!(device.kind, Kind::Veth { .. }))
    );
    assert_eq!(plan_all(&held, &world).steps, []);
}
