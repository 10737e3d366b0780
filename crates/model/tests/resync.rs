//! A resync in portions, as the agent does it: of some pods at a time all that is in their
//! sandboxes, of their links' other ends only what is at their places, and parked ends only where
//! something is missing; at last the node's own namespace. What it comes to must be what one plan
//! for everything comes to.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

mod history;
mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;
use ratchet_model::{
    LinkId,
    device::{At, Netns, Observed, Wanted},
    planner::{Plan, PlanScope, plan, settled},
    resolve::Link,
    wiring::names_on_node,
};

use history::{
    Cable, Epoch, Mishap, PODS, assert_effect, befall, history, link, plan_all, reconcile, sandbox,
    strangers, wanted,
};
use world::World;

/// The sandboxes of a pod, in whatever state.
fn sandboxes(pod: usize) -> impl Iterator<Item = Netns> {
    (0..2).map(move |n| Netns::Sandbox(sandbox(pod, n)))
}

/// Where ends of a link may be.
fn places(cables: &[Cable], link: &Link) -> BTreeSet<At> {
    let number: usize = link.a.interface.as_str()[1..].parse().unwrap();
    let (near, far) = cables[number].pods;
    let at = |pod: usize, name: String| {
        sandboxes(pod).map(move |netns| At {
            netns,
            name: name.clone(),
        })
    };
    let on_node = names_on_node(link.id).map(|name| At {
        netns: Netns::Node,
        name,
    });
    at(near, format!("e{number}"))
        .chain(at(far, format!("f{number}")))
        .chain(on_node)
        .collect()
}

/// The same with those objects frozen whose links are settled.
fn frozen(wanted: &[Wanted], settled: &BTreeSet<LinkId>) -> Vec<Wanted> {
    let freeze = |wanted: &Wanted| {
        let link = wanted.link();
        if settled.contains(&link) {
            Wanted::Frozen(link)
        } else {
            wanted.clone()
        }
    };
    wanted.iter().map(freeze).collect()
}

/// Plans for some links with all that is in some namespaces, from what the agent would see, and
/// carries it out.
fn step(
    world: &mut World,
    cables: &[Cable],
    links: &[Link],
    wanted: &[Wanted],
    whole: &BTreeSet<Netns>,
) -> Plan {
    let is_portion = !whole.contains(&Netns::Node);
    let (near, far): (Vec<_>, Vec<_>) = world
        .observe()
        .into_iter()
        .partition(|device| whole.contains(&device.netns));
    let settled = if is_portion {
        settled(wanted, &near, &world.leftovers, whole)
    } else {
        BTreeSet::new()
    };
    let unsettled = links.iter().filter(|link| !settled.contains(&link.id));
    let elsewhere: BTreeSet<At> = unsettled.flat_map(|link| places(cables, link)).collect();
    let observed: Vec<Observed> = near
        .into_iter()
        .chain(
            far.into_iter()
                .filter(|device| elsewhere.contains(&device.at())),
        )
        .collect();
    let wanted = frozen(wanted, &settled);
    let links: BTreeSet<LinkId> = links.iter().map(|link| link.id).collect();
    let scope = PlanScope {
        links: &links,
        namespaces: whole,
    };
    let plan = plan(&wanted, &observed, &world.leftovers, scope);
    world.leftovers.remember(&plan.leftovers);
    for step in &plan.steps {
        // A device that was not finished has no link yet; it may be in the way of one of these.
        let mut devices = step.operation.devices();
        let within = devices.all(|at| whole.contains(&at.netns) || elsewhere.contains(at));
        assert!(
            within || links.contains(&step.link),
            "beyond its portion: {step:?}"
        );
        world.apply(step);
    }
    world.leftovers.finish(&plan.leftovers, |_| false);
    plan
}

/// One resync; gives all its plans as one.
fn resync(world: &mut World, cables: &[Cable], epoch: &Epoch, portions: &[usize]) -> Plan {
    let all = wanted(cables, epoch);
    let links: Vec<Link> = cables
        .iter()
        .enumerate()
        .map(|(n, cable)| link(n, cable, epoch.variant))
        .collect();
    let mut done = Plan::default();
    for number in portions.iter().copied().collect::<BTreeSet<_>>() {
        let pods: BTreeSet<usize> = (0..PODS).filter(|pod| portions[*pod] == number).collect();
        let ends = |n: usize| pods.contains(&cables[n].pods.0) || pods.contains(&cables[n].pods.1);
        let own: Vec<Link> = links
            .iter()
            .enumerate()
            .filter(|(n, _)| ends(*n))
            .map(|(_, link)| link.clone())
            .collect();
        let some = all
            .iter()
            .filter(|w| own.iter().any(|link| link.id == w.link()))
            .cloned()
            .collect::<Vec<_>>();
        let whole = pods.into_iter().flat_map(sandboxes).collect();
        let plan = step(world, cables, &own, &some, &whole);
        done.steps.extend(plan.steps);
        done.conflicts.extend(plan.conflicts);
    }
    if let Some(plan) = resync_node(world, cables, &links, &all) {
        done.steps.extend(plan.steps);
        done.conflicts.extend(plan.conflicts);
    }
    done
}

/// The node's own namespace: what is there and does not wait for its pod, and what is wanted of
/// those links.
fn resync_node(
    world: &mut World,
    cables: &[Cable],
    links: &[Link],
    all: &[Wanted],
) -> Option<Plan> {
    let stray = |d: &Observed| {
        d.netns == Netns::Node && d.is_ours() && !all.iter().any(|wanted| wanted.holds_on_node(d))
    };
    let strays = world
        .observe()
        .into_iter()
        .filter(stray)
        .map(|d| d.alias.map_or(LinkId::UNKNOWN, |alias| alias.link));
    let strays: BTreeSet<LinkId> = strays.collect();
    if strays.is_empty() {
        return None;
    }
    let is_stray = |link: &&Link| strays.contains(&link.id);
    let own: Vec<Link> = links.iter().filter(is_stray).cloned().collect();
    let aside = |wanted: &Wanted| match wanted {
        wanted if wanted.is_on_node() && !strays.contains(&wanted.link()) => {
            Some(Wanted::Frozen(wanted.link()))
        }
        _ => strays.contains(&wanted.link()).then(|| wanted.clone()),
    };
    let some: Vec<Wanted> = all.iter().filter_map(aside).collect();
    Some(step(world, cables, &own, &some, &[Netns::Node].into()))
}

fn portions() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0..PODS, PODS)
}

proptest! {
    /// Whatever happened before and however it is cut, one undisturbed resync leads to what is
    /// wanted, and nothing of ours is left besides; strangers are as they were; a second resync has
    /// nothing to do, and neither has a plan for everything.
    #[test]
    fn a_resync_leads_to_what_is_wanted(
        (cables, epochs) in history(),
        portions in portions(),
    ) {
        let mut world = World::default();
        for epoch in &epochs {
            let crash = if let Mishap::Crash(after) = epoch.mishap { Some(after) } else { None };
            befall(&mut world, &epoch.mishap);
            reconcile(&mut world, &wanted(&cables, epoch), crash);
        }
        let last = epochs.last().unwrap();
        befall(&mut world, &last.mishap);
        let before = strangers(&world.observe());
        let done = resync(&mut world, &cables, last, &portions);
        assert_effect(&wanted(&cables, last), &world.observe(), &done);
        prop_assert_eq!(strangers(&world.observe()), before);
        prop_assert_eq!(resync(&mut world, &cables, last, &portions).steps, vec![]);
        prop_assert_eq!(plan_all(&wanted(&cables, last), &world).steps, vec![]);
    }

    /// Where all is as wanted, no portion of a resync touches anything.
    #[test]
    fn a_resync_leaves_alone_what_is_wanted(
        (cables, epochs) in history(),
        portions in portions(),
    ) {
        let mut world = World::default();
        for epoch in &epochs {
            reconcile(&mut world, &wanted(&cables, epoch), None);
        }
        let last = resync(&mut world, &cables, epochs.last().unwrap(), &portions);
        prop_assert_eq!(last.steps, vec![]);
    }
}
