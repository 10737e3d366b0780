//! Properties of the planner, over random topologies, places and histories: crashes in the middle
//! of a plan, namespaces that vanish, devices that are deleted behind our back, strangers where
//! ours should be.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

mod history;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ratchet_model::{
    LinkId, WiringKind,
    device::{Netns, Observed, Wanted, WantedEnd},
    planner::{MOVE_LIMIT, PlanScope, WantedEnds, plan, settled},
};
use sha2::{Digest, Sha256};

use history::{
    Cable, Epoch, Mishap, Spot, assert_effect, befall, history, link, plan_all, reconcile, sandbox,
    strangers, wanted,
};
use world::World;

proptest! {
    /// Whatever happened before, one undisturbed plan leads to what is wanted; a second has nothing
    /// to do; strangers are as they were.
    #[test]
    fn a_plan_leads_to_what_is_wanted((cables, epochs) in history()) {
        let mut world = World::default();
        for epoch in &epochs {
            let wanted = wanted(&cables, epoch);
            let crash = if let Mishap::Crash(after) = epoch.mishap { Some(after) } else { None };
            befall(&mut world, &epoch.mishap);
            reconcile(&mut world, &wanted, crash);
        }
        let last = wanted(&cables, epochs.last().unwrap());
        let before = strangers(&world.observe());
        let done = reconcile(&mut world, &last, None);
        let after = world.observe();
        assert_effect(&last, &after, &done);
        prop_assert_eq!(strangers(&after), before);
        prop_assert_eq!(plan_all(&last, &world).steps, vec![]);
    }

    /// A plan for some links leaves the devices of all others alone, and does for its own what a
    /// plan for all would do.
    #[test]
    fn a_narrow_plan_keeps_to_its_links((cables, epochs) in history(),
    chosen in proptest::collection::vec(any::<bool>(), 8)) {
        let mut world = World::default();
        for epoch in &epochs[..epochs.len() - 1] {
            reconcile(&mut world, &wanted(&cables, epoch), None);
        }
        let all = wanted(&cables, epochs.last().unwrap());
        let chosen = cables.iter().enumerate().filter(|(n, _)| chosen[*n]);
        let scope: BTreeSet<LinkId> = chosen.map(|(n, c)| link(n, c, 0).id).collect();
        let some: Vec<Wanted> = all.iter().filter(|w| scope.contains(&w.link())).cloned().collect();
        let others = |observed: Vec<Observed>| -> Vec<Observed> {
            let is_outside = |alias: &ratchet_model::device::Alias| !scope.contains(&alias.link);
            observed.into_iter().filter(|d| d.alias.as_ref().is_some_and(is_outside)).collect()
        };
        let before = others(world.observe());
        let (links, namespaces) = (&scope, &BTreeSet::new());
        let scope_of_some = PlanScope { links, namespaces };
        let narrow = plan(&some, &world.observe(), &world.leftovers, scope_of_some);
        for step in &narrow.steps {
            world.apply(step);
        }
        prop_assert_eq!(others(world.observe()), before);
        let again = plan(&some, &world.observe(), &world.leftovers, scope_of_some);
        prop_assert_eq!(again.steps, vec![]);
        let rest = plan_all(&all, &world);
        for step in &rest.steps {
            prop_assert!(!scope.contains(&step.link), "left over: {:?}", step);
        }
    }
}

/// The digest of release 0.1.0, by its code.
fn digest_of_the_first_release(end: &WantedEnd) -> u32 {
    let WantedEnd {
        mac,
        mtu,
        addresses,
        routes,
        ..
    } = end;
    let digest = Sha256::digest(format!("{mac} {mtu} {addresses:?} {routes:?}"));
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Gives the complete devices the aliases that release 0.1.0 would have given them.
fn downgrade_aliases(world: &mut World, wanted: &[Wanted]) {
    world.rewrite_aliases(|alias| {
        let mut ends = wanted.iter().flat_map(Wanted::ends);
        if let Some(end) = ends.find(|end| end.alias == *alias && alias.sandbox.is_some()) {
            alias.config = digest_of_the_first_release(end);
        }
    });
}

proptest! {
    /// A node whose devices have the aliases of release 0.1.0 is planned for like one that has
    /// today's: a complete device is not touched, and changes as ever if something else is wanted.
    #[test]
    fn an_upgrade_touches_no_device((cables, epochs) in history()) {
        let (mut upgraded, mut current) = (World::default(), World::default());
        for epoch in &epochs {
            befall(&mut upgraded, &epoch.mishap);
            befall(&mut current, &epoch.mishap);
            let wanted = wanted(&cables, epoch);
            let crash = if let Mishap::Crash(after) = epoch.mishap { Some(after) } else { None };
            let plan = reconcile(&mut upgraded, &wanted, crash);
            prop_assert_eq!(plan, reconcile(&mut current, &wanted, crash));
            downgrade_aliases(&mut upgraded, &wanted);
            let (before, now) = (upgraded.observe(), current.observe());
            let namespaces = now.iter().map(|device| device.netns.clone()).collect();
            prop_assert_eq!(
                settled(&wanted, &before, &upgraded.leftovers, &namespaces),
                settled(&wanted, &now, &current.leftovers, &namespaces)
            );
            let ends = WantedEnds::of(&wanted);
            for (one, other) in before.iter().zip(&now) {
                prop_assert_eq!(ends.has_complete(one), ends.has_complete(other));
            }
        }
    }
}

/// `count` links between p0 (here) and p1 (here), wired.
fn wired(count: usize) -> (World, Vec<Cable>, Epoch) {
    let cables = vec![
        Cable {
            pods: (0, 1),
            addressed: true,
            frozen: false,
            wiring: WiringKind::Direct,
        };
        count
    ];
    let epoch = Epoch {
        variant: 0,
        spots: vec![Spot::Here(0), Spot::Here(0), Spot::Unknown, Spot::Unknown],
        present: vec![true; count],
        mishap: Mishap::None,
    };
    let mut world = World::default();
    reconcile(&mut world, &wanted(&cables, &epoch), None);
    (world, cables, epoch)
}

fn indices(world: &World, netns: &Netns) -> BTreeMap<String, u32> {
    world
        .observe()
        .into_iter()
        .filter(|d| d.netns == *netns)
        .map(|d| (d.name, d.index))
        .collect()
}

#[test]
fn a_pod_that_restarts_leaves_its_peers_interfaces_as_they_are() {
    let (mut world, cables, mut epoch) = wired(3);
    let survivor = Netns::Sandbox(sandbox(1, 0));
    let before = indices(&world, &survivor);

    epoch.spots[0] = Spot::Gone;
    reconcile(&mut world, &wanted(&cables, &epoch), None);
    world.remove_netns(&Netns::Sandbox(sandbox(0, 0)));
    assert_eq!(indices(&world, &survivor), before);
    epoch.spots[0] = Spot::Here(1);
    reconcile(&mut world, &wanted(&cables, &epoch), None);
    assert_eq!(indices(&world, &survivor), before);
    assert_eq!(world.observe().iter().filter(|d| d.is_ours()).count(), 6);
}

#[test]
fn a_late_del_harms_nothing() {
    let (mut world, cables, mut epoch) = wired(3);
    let survivor = Netns::Sandbox(sandbox(1, 0));
    let before = indices(&world, &survivor);
    epoch.spots[0] = Spot::Here(1);
    reconcile(&mut world, &wanted(&cables, &epoch), None);
    world.remove_netns(&Netns::Sandbox(sandbox(0, 0)));
    assert_eq!(indices(&world, &survivor), before);
    assert_eq!(plan_all(&wanted(&cables, &epoch), &world).steps, vec![]);
}

#[test]
fn many_links_are_made_again_rather_than_moved() {
    let count = MOVE_LIMIT + 1;
    let (mut world, cables, mut epoch) = wired(count);
    epoch.spots[0] = Spot::Gone;
    let plan = reconcile(&mut world, &wanted(&cables, &epoch), None);
    assert!(
        !plan
            .steps
            .iter()
            .any(|s| matches!(s.operation, ratchet_model::device::Operation::Move { .. }))
    );
    world.remove_netns(&Netns::Sandbox(sandbox(0, 0)));
    epoch.spots[0] = Spot::Here(1);
    let wanted = wanted(&cables, &epoch);
    let done = reconcile(&mut world, &wanted, None);
    assert_effect(&wanted, &world.observe(), &done);
}

#[test]
fn an_interface_that_its_user_set_down_stays_down() {
    let (mut world, cables, epoch) = wired(1);
    world.set_all_down();
    assert_eq!(plan_all(&wanted(&cables, &epoch), &world).steps, vec![]);
}
