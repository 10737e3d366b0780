//! The planner and devices whose alias proves nothing.
#![allow(clippy::unwrap_used, missing_docs)]

mod history;
mod world;

use std::collections::BTreeSet;

use ratchet_model::{
    End, LinkId, WiringKind,
    device::{
        Alias, GROUP_OURS, Kind, Netns, Observed, Operation, Part, Peer, SourcePorts, Step, Wanted,
    },
    leftover::Leftovers,
    planner::{Plan, PlanScope, plan},
};

use history::{Cable, Epoch, Mishap, Spot, reconcile, sandbox, wanted};
use world::World;

/// One link between the pods 0 and 1.
fn link(spots: [Spot; 2]) -> Vec<Wanted> {
    let cable = Cable {
        pods: (0, 1),
        addressed: true,
        frozen: false,
        wiring: WiringKind::Direct,
    };
    let mut all = vec![Spot::Unknown; history::PODS];
    all[..2].copy_from_slice(&spots);
    let epoch = Epoch {
        variant: 0,
        spots: all,
        present: vec![true],
        mishap: Mishap::None,
    };
    wanted(&[cable], &epoch)
}

const BOTH_HERE: [Spot; 2] = [Spot::Here(0), Spot::Here(0)];

/// The devices of a link that was made.
fn made(wanted: &[Wanted]) -> Vec<Observed> {
    let mut world = World::default();
    reconcile(&mut world, wanted, None);
    world.observe()
}

/// What was proven is only said now, as after an upgrade or when the key was lost.
fn unproven(mut observed: Vec<Observed>) -> Vec<Observed> {
    for device in &mut observed {
        device.unproven = device.alias.take();
    }
    observed
}

fn plan_for(wanted: &[Wanted], observed: &[Observed]) -> Plan {
    let namespaces: BTreeSet<Netns> = observed.iter().map(|d| d.netns.clone()).collect();
    let scope = PlanScope {
        links: &BTreeSet::new(),
        namespaces: &namespaces,
    };
    plan(wanted, observed, &Leftovers::default(), scope)
}

fn is_commit(step: &Step) -> bool {
    matches!(step.operation, Operation::Commit(..))
}

#[test]
fn devices_that_the_kernel_confirms_only_get_their_alias() {
    let gone = [Spot::Here(0), Spot::Gone];
    let there = [Spot::Here(0), Spot::There(0)];
    for spots in [BOTH_HERE, there] {
        let wanted = link(spots);
        let observed = unproven(made(&wanted));
        let steps = plan_for(&wanted, &observed).steps;
        assert_eq!(steps.len(), observed.len(), "{steps:?}");
        assert!(steps.iter().all(is_commit), "{steps:?}");
    }
    // A survivor, with its other end parked.
    let mut world = World::default();
    reconcile(&mut world, &link(BOTH_HERE), None);
    reconcile(&mut world, &link(gone), None);
    let steps = plan_for(&link(gone), &unproven(world.observe())).steps;
    assert!(steps.iter().all(is_commit) && steps.len() == 1, "{steps:?}");
}

#[test]
fn links_that_are_to_stay_as_they_are_stay_without_proof() {
    let wanted = link(BOTH_HERE);
    let observed = unproven(made(&wanted));
    let frozen = [Wanted::Frozen(wanted[0].link())];
    assert_eq!(plan_for(&frozen, &observed).steps, []);
}

/// The root of pod 0 has swapped the device for one with the same index and alias.
#[test]
fn a_device_that_is_not_the_peer_of_the_other_end_is_replaced() {
    let wanted = link(BOTH_HERE);
    let mut observed = made(&wanted);
    let elsewhere = Peer {
        netns: Netns::Sandbox(sandbox(0, 0)),
        index: observed[1].index,
    };
    let own = |device: &&mut Observed| device.netns == elsewhere.netns;
    observed.iter_mut().find(own).unwrap().kind = Kind::Veth {
        peer: Some(elsewhere.clone()),
    };
    let steps = plan_for(&wanted, &observed).steps;
    let created = |step: &Step| matches!(step.operation, Operation::CreateVeth { .. });
    let moved = |step: &Step| matches!(step.operation, Operation::Move { .. });
    assert!(
        steps.iter().any(created) && !steps.iter().any(moved),
        "{steps:?}"
    );
}

/// Two devices of pod 2, which are each other's peers, say that they are the ends of the link.
#[test]
fn devices_that_only_say_so_are_never_moved() {
    let wanted = link(BOTH_HERE);
    let mut forged = unproven(made(&wanted));
    let forger = Netns::Sandbox(sandbox(2, 0));
    for (device, other) in [(0, 1), (1, 0)] {
        let index = forged[other].index;
        forged[device].netns = forger.clone();
        forged[device].name = format!("forged{device}");
        forged[device].kind = Kind::Veth {
            peer: Some(Peer {
                netns: forger.clone(),
                index,
            }),
        };
    }
    let steps = plan_for(&wanted, &forged).steps;
    let touches = |step: &&Step| step.operation.devices().any(|at| at.netns == forger);
    let touching: Vec<&Step> = steps.iter().filter(touches).collect();
    let is_deletion = |step: &&Step| matches!(step.operation, Operation::Delete(_));
    assert!(
        !touching.is_empty() && touching.iter().all(is_deletion),
        "{steps:?}"
    );
}

#[test]
fn an_end_without_any_mark_is_known_by_its_peer() {
    let wanted = link(BOTH_HERE);
    let mut observed = made(&wanted);
    (observed[0].alias, observed[0].group) = (None, 0);
    let plan = plan_for(&wanted, &observed);
    assert_eq!(plan.conflicts, []);
    let is_of_a_pair = |step: &Step| {
        matches!(
            step.operation,
            Operation::CreateVeth { .. } | Operation::Delete(_)
        )
    };
    assert!(!plan.steps.iter().any(is_of_a_pair), "{:?}", plan.steps);
    assert!(plan.steps.iter().any(is_commit));
}

#[test]
fn a_tunnel_cannot_be_hidden() {
    let wanted = link([Spot::Here(0), Spot::There(0)]);
    let mut observed = made(&wanted);
    let [tunnel] = &mut observed[..] else {
        panic!("{observed:?}")
    };
    (tunnel.alias, tunnel.group) = (None, 0);
    tunnel.source = Some(SourcePorts {
        low: 1024,
        high: 1088,
    });
    assert!(plan_for(&wanted, &observed).steps.iter().all(|step| {
        !matches!(
            step.operation,
            Operation::CreateVxlan { .. } | Operation::Delete(_)
        )
    }));
    let steps = plan_for(&[], &observed).steps;
    assert!(
        matches!(&steps[..], [step] if matches!(step.operation, Operation::Delete(_))),
        "the link has ended: {steps:?}"
    );
    // Ports that Ratchet did not choose mark nothing.
    observed[0].source = Some(SourcePorts {
        low: 49152,
        high: 65535,
    });
    assert_eq!(plan_for(&[], &observed).steps, []);
}

/// A device of another kind is not ours, although it says so.
#[test]
fn a_device_of_another_kind_is_a_strangers() {
    let alias = Alias {
        link: LinkId::UNKNOWN,
        end: End::A,
        part: Part::Pod,
        sandbox: None,
        config: 0,
    };
    let mut device = made(&link(BOTH_HERE)).remove(0);
    (device.alias, device.group) = (Some(alias), GROUP_OURS);
    assert!(device.is_ours());
    device.kind = Kind::Other;
    assert!(!device.is_ours());
}

#[test]
fn swapped_names_come_apart() {
    let cables: Vec<Cable> = (0..2)
        .map(|_| Cable {
            pods: (0, 1),
            addressed: true,
            frozen: false,
            wiring: WiringKind::Direct,
        })
        .collect();
    let mut spots = vec![Spot::Unknown; history::PODS];
    spots[..2].copy_from_slice(&BOTH_HERE);
    let epoch = Epoch {
        variant: 0,
        spots,
        present: vec![true, true],
        mishap: Mishap::None,
    };
    let wanted = wanted(&cables, &epoch);
    let mut world = World::default();
    reconcile(&mut world, &wanted, None);
    world.swap_names(&Netns::Sandbox(sandbox(0, 0)));
    for _ in 0..2 {
        reconcile(&mut world, &wanted, None);
    }
    assert_eq!(plan_for(&wanted, &world.observe()).steps, []);
}
