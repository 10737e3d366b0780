//! What a replaced device leaves, over changes of kind and deaths of the agent.
#![allow(clippy::unwrap_used, missing_docs)]

mod history;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use proptest::prelude::*;
use ratchet_model::{
    End, LinkId, Mac, WiringKind,
    device::{Alias, At, Kind, Netns, Observed, Wanted},
    leftover::{Leftover, LeftoverKey, Leftovers},
    planner::{Plan, PlanScope, plan},
};

use history::{Cable, Epoch, Mishap, PODS, Spot, link, plan_all, reconcile, sandbox, wanted};
use world::World;

/// Where the survivor's devices are.
fn survivor() -> Netns {
    Netns::Sandbox(sandbox(1, 0))
}

fn added() -> IpNet {
    "172.31.0.1/24".parse().unwrap()
}

fn cable(pods: (usize, usize)) -> Cable {
    Cable {
        pods,
        addressed: true,
        frozen: false,
        wiring: WiringKind::Direct,
    }
}

fn epoch(first: Spot) -> Epoch {
    Epoch {
        variant: 0,
        spots: vec![first, Spot::Here(0), Spot::Unknown, Spot::Unknown],
        present: vec![true],
        mishap: Mishap::None,
    }
}

/// A link between two pods of this node, with an address that a user added to both ends; and what
/// is wanted when the first pod is on another node.
fn about_to_change_kind() -> (World, Vec<Wanted>) {
    let cables = [cable((0, 1))];
    let mut world = World::default();
    reconcile(&mut world, &wanted(&cables, &epoch(Spot::Here(0))), None);
    for number in 0..world.observe().len() {
        world.user_address(number, added());
    }
    (world, wanted(&cables, &epoch(Spot::There(0))))
}

fn device(world: &World) -> Option<Observed> {
    let mut devices = world.observe().into_iter();
    devices.find(|device| device.netns == survivor())
}

fn has_added(device: &Observed) -> bool {
    let mut addresses = device.addresses.iter();
    addresses.any(|found| found.address == added() && !found.ours)
}

/// A plan for these objects and the link of the tests.
fn plan_link(world: &World, wanted: &[Wanted]) -> Plan {
    let links = &BTreeSet::from([link(0, &cable((0, 1)), 0).id]);
    let namespaces = &BTreeSet::new();
    let scope = PlanScope { links, namespaces };
    plan(wanted, &world.observe(), &world.leftovers, scope)
}

fn keys(leftovers: &[Leftover]) -> BTreeSet<LeftoverKey> {
    leftovers.iter().map(Leftover::key).collect()
}

#[test]
fn a_change_of_kind_keeps_what_users_added() {
    let (mut world, wanted) = about_to_change_kind();
    let index = device(&world).unwrap().index;
    let plan = reconcile(&mut world, &wanted, None);
    let id = link(0, &cable((0, 1)), 0).id;
    let leftover = Leftover {
        link: id,
        end: End::Z,
        sandbox: sandbox(1, 0),
        index,
        addresses: vec![added()],
        routes: vec![],
    };
    assert_eq!(plan.leftovers.remembered, [leftover]);
    let now = device(&world).unwrap();
    assert!(matches!(now.kind, Kind::Vxlan { .. }));
    assert!(has_added(&now));
    assert_eq!((now.index, now.mac), (index, Some(Mac::derive(id, End::Z))));
    assert_eq!(world.leftovers, Leftovers::default(), "the device has it");
}

/// What is kept is enough for the next agent to end with the same.
#[test]
fn a_change_of_kind_can_be_interrupted_after_every_step() {
    for done in 0.. {
        let (mut world, wanted) = about_to_change_kind();
        let index = device(&world).unwrap().index;
        let first = reconcile(&mut world, &wanted, Some(done));
        let second = reconcile(&mut world, &wanted, None);
        let now = device(&world).unwrap();
        assert!(has_added(&now), "after {done} steps");
        assert_eq!(now.index, index, "after {done} steps");
        assert_eq!(world.leftovers, Leftovers::default());
        if done == first.steps.len() {
            assert_eq!(second.steps, []);
            assert_eq!(second.leftovers.used, keys(&first.leftovers.remembered));
            break;
        }
    }
}

#[test]
fn what_is_left_stays_while_the_link_waits_and_goes_with_the_link() {
    let (mut world, wanted) = about_to_change_kind();
    let crashed = reconcile(&mut world, &wanted, Some(1));
    let left = keys(&crashed.leftovers.remembered);
    assert_eq!(device(&world), None);

    let waiting = history::wanted(&[cable((0, 1))], &epoch(Spot::Gone));
    for objects in [waiting, vec![Wanted::Frozen(crashed.steps[0].link)]] {
        let changes = plan_link(&world, &objects).leftovers;
        assert_eq!(changes, Default::default(), "{objects:?}");
    }
    world.stranger(At {
        netns: survivor(),
        name: "f0".into(),
    });
    let blocked = plan_link(&world, &wanted);
    assert_eq!(blocked.conflicts.len(), 1);
    assert_eq!(blocked.leftovers, Default::default());

    let ended = plan_link(&world, &[]).leftovers;
    assert_eq!((ended.remembered, ended.used), (vec![], [].into()));
    assert_eq!(ended.dropped, left);
    let elsewhere = plan_all(&[], &world).leftovers;
    assert_eq!(elsewhere, Default::default(), "a plan about other links");
}

#[test]
fn what_is_used_is_dropped_unless_a_step_of_its_link_failed() {
    let (world, wanted) = about_to_change_kind();
    let changes = plan_link(&world, &wanted).leftovers;
    let mut kept = Leftovers::default();
    assert!(kept.remember(&changes) && !kept.remember(&changes));
    let id = changes.remembered[0].link;
    assert!(!kept.finish(&changes, |link| link == id));
    assert_eq!(kept.iter().count(), 1);
    assert!(kept.finish(&changes, |link| link == LinkId::UNKNOWN));
    assert_eq!(kept, Leftovers::default());
}

/// The survivor's devices of links that were made whole, with their indices, and whether a user
/// added something. (If an agent dies before it has written the alias of a new pair's other end,
/// and the other pod goes then, that end is not known to be the survivor's other end.)
fn complete(world: &World) -> BTreeMap<String, (u32, bool)> {
    let observed = world.observe();
    let is_complete = |device: &Observed| {
        let alias = device.alias.as_ref();
        let is_finished = alias.is_some_and(|alias| alias.config != Alias::UNFINISHED);
        let has_peer = |index: u32| {
            let mut others = observed.iter();
            others.any(|other| other.index == index && other.alias.is_some())
        };
        is_finished
            && match &device.kind {
                Kind::Veth { peer } => peer.as_ref().is_some_and(|peer| has_peer(peer.index)),
                _ => true,
            }
    };
    observed
        .iter()
        .filter(|device| device.netns == survivor() && is_complete(device))
        .map(|device| (device.name.clone(), (device.index, has_added(device))))
        .collect()
}

fn spot() -> impl Strategy<Value = Spot> {
    prop_oneof![
        (0u8..2).prop_map(Spot::Here),
        (0u8..2).prop_map(Spot::There),
        Just(Spot::Gone),
    ]
}

/// Where the other pods are, whether a user adds something to the n-th device before, and after how
/// many steps the agent dies.
type Turn = (Vec<Spot>, Option<usize>, Option<usize>);

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = (
        proptest::collection::vec(spot(), PODS),
        proptest::option::weighted(0.3, 0usize..8),
        proptest::option::weighted(0.6, 0usize..30),
    );
    proptest::collection::vec(turn, 1..8)
}

proptest! {
    /// Wherever its peers go and whenever the agent dies: a pod that stays keeps each interface's
    /// index, and what users added to it. In the end nothing is kept but for ends that wait.
    #[test]
    fn a_survivor_keeps_what_it_has(peers in proptest::collection::vec(0..PODS, 1..5),
    turns in turns()) {
        let cables: Vec<Cable> = peers.iter().map(|peer| cable((*peer, 1))).collect();
        let mut world = World::default();
        let mut before: BTreeMap<String, (u32, bool)> = BTreeMap::new();
        for (mut spots, address, crash) in turns {
            spots[1] = Spot::Here(0);
            let present = vec![true; cables.len()];
            let epoch = Epoch { variant: 0, spots, present, mishap: Mishap::None };
            if let Some(number) = address {
                world.user_address(number, added());
            }
            before.extend(complete(&world));
            let objects = wanted(&cables, &epoch);
            reconcile(&mut world, &objects, crash);
            for (name, (index, had)) in complete(&world) {
                if let Some((index_before, had_before)) = before.get(&name) {
                    prop_assert_eq!(index, *index_before, "{}", name);
                    prop_assert!(had || !had_before, "{} has lost an address", name);
                }
            }
            if crash.is_none() {
                let makes = |link: LinkId| {
                    objects.iter().any(|object| object.link() == link && object.kind().is_some())
                };
                prop_assert!(!world.leftovers.iter().any(|left| makes(left.link)));
            }
        }
    }
}
