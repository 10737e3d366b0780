//! Histories of changes: each in one step, interrupted at any step, and several at the same time.

use proptest::prelude::*;

use super::{world::*, *};

const PODS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What an agent does: the number of its pod and the numbers of its links with each pod. `None`:
/// the pod is removed.
type Event = (usize, Option<[usize; PODS.len()]>);

fn event() -> impl Strategy<Value = Event> {
    let links = prop::array::uniform5(prop_oneof![3 => Just(0_usize), 2 => 1..4_usize]);
    (0..PODS.len(), prop::option::weighted(0.55, links))
}

fn limits(conditions: usize) -> impl Strategy<Value = Limits> {
    (3..9_usize).prop_map(move |operations| Limits {
        operations,
        conditions,
    })
}

/// The change of the n-th event. Each event publishes another sandbox.
fn want(n: usize, (pod, links): &Event) -> Want {
    let pod = key(PODS[*pod]);
    let Some(links) = links else {
        return Want::Remove(pod);
    };
    let links = PODS.iter().zip(links).flat_map(|(peer, count)| {
        let (pod, peer) = (pod.clone(), key(peer));
        (0..*count).map(move |n| link(&pod, &peer, n))
    });
    let location = location(&format!("{}-{n}", pod.name()));
    let links = links.collect();
    let record = PodRecord::new(pod, Some(location), n as u64, links);
    Want::Publish(
        Box::new(record),
        if n.is_multiple_of(3) {
            Publish::Again
        } else {
            Publish::New
        },
    )
}

/// Makes a change, and tries again when a condition does not hold.
fn run(world: &mut World, want: &Want, limits: Limits, between: impl Fn(&mut World)) {
    while let Some(mut running) = world.begin(want, limits) {
        loop {
            match world.advance(&mut running) {
                Progress::Done => return,
                Progress::Refused => break,
                Progress::Going => between(world),
            }
        }
    }
}

/// Makes changes at the same time, one step at a time: `order` says which change is next. At the
/// end, the unfinished ones are finished one after the other.
fn run_at_once(world: &mut World, wants: Vec<Want>, limits: Limits, order: &[usize]) {
    let mut agents: Vec<(Want, Option<Running>)> =
        wants.into_iter().map(|want| (want, None)).collect();
    for turn in order {
        if agents.is_empty() {
            break;
        }
        let agent = turn % agents.len();
        let (want, running) = &mut agents[agent];
        let is_done = match running.as_mut().map(|running| world.advance(running)) {
            None => {
                *running = world.begin(want, limits);
                running.is_none()
            }
            Some(Progress::Refused) => {
                *running = None;
                false
            }
            Some(progress) => progress == Progress::Done,
        };
        if is_done {
            agents.swap_remove(agent);
        }
        world.claim_all();
    }
    for (want, running) in agents {
        if let Some(mut running) = running {
            while world.advance(&mut running) == Progress::Going {}
        }
        run(world, &want, limits, World::claim_all);
    }
}

/// The records after a change, computed in the simplest way: with all records at hand.
fn expected(world: &World, want: &Want) -> BTreeMap<PodKey, PodRecord> {
    let mut records = world.records();
    match want {
        Want::Publish(record, how) => {
            let previous = records.get(&record.pod);
            if let Publication::Write(next) = Publication::new(record, previous, *how) {
                records.insert(next.pod.clone(), next);
            }
        }
        Want::Remove(pod) => {
            records
                .get_mut(pod)
                .into_iter()
                .for_each(|record| record.location = None);
        }
    }
    let living: BTreeSet<PodKey> = records
        .values()
        .filter(|record| record.lives())
        .map(|record| record.pod.clone())
        .collect();
    records.retain(|pod, record| {
        living.contains(pod) || record.peers().into_iter().any(|peer| living.contains(peer))
    });
    records
}

/// A quarter of the usual number of cases, since each is a whole history.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.div_ceil(4),
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_change_in_one_step_does_what_the_specification_says(
        events in prop::collection::vec(event(), 1..40),
    ) {
        let mut world = World::default();
        for (n, event) in events.iter().enumerate() {
            let want = want(n, event);
            let records = expected(&world, &want);
            if let Some(mut running) = world.begin(&want, Limits::NONE) {
                prop_assert_eq!(running.steps.len(), 1);
                prop_assert_eq!(world.advance(&mut running), Progress::Done);
            }
            prop_assert_eq!(world.records(), records);
            world.assert_order();
            world.claim_all();
        }
    }

    #[test]
    fn a_change_in_many_steps_does_the_same_whatever_is_claimed_between_them(
        events in prop::collection::vec((event(), limits(4)), 1..30),
    ) {
        let mut world = World::default();
        for (n, (event, limits)) in events.iter().enumerate() {
            let want = want(n, event);
            let records = expected(&world, &want);
            run(&mut world, &want, *limits, World::claim_all);
            prop_assert_eq!(world.records(), records);
            world.assert_order();
            world.claim_all();
        }
    }

    #[test]
    fn steps_keep_to_the_limits(
        events in prop::collection::vec((event(), limits(6)), 1..30),
    ) {
        let mut world = World::default();
        for (n, (event, limits)) in events.iter().enumerate() {
            let want = want(n, event);
            if let Some(running) = world.begin(&want, *limits) {
                for step in &running.steps {
                    let operations = step.records.len() + step.index.len() + step.freed.len();
                    let conditions = step.unchanged.len() + step.unnumbered.len();
                    prop_assert!(operations <= limits.operations, "{step:?}");
                    prop_assert!(conditions <= limits.conditions, "{step:?}");
                }
            }
            run(&mut world, &want, Limits::NONE, |_| {});
            world.claim_all();
        }
    }

    /// An agent dies after some of the steps. Others go on. Then the agent repeats the change, or
    /// makes another change of the same pod.
    #[test]
    fn a_change_that_is_cut_off_leaves_nothing_that_is_wrong(
        events in prop::collection::vec((event(), limits(4), 0..8_usize, any::<bool>()), 1..30),
    ) {
        let mut world = World::default();
        for (n, (event, limits, cut, again)) in events.iter().enumerate() {
            let want = want(n, event);
            let pod = key(PODS[event.0]);
            if let Some(mut running) = world.begin(&want, *limits) {
                // After the decisive step, only the index is incomplete.
                for _ in 0..(*cut).min(running.decisive()) {
                    prop_assert_ne!(world.advance(&mut running), Progress::Refused);
                }
                world.cut_off.insert(pod.clone());
                world.ever_cut_off.insert(pod.clone());
                world.claim_all();
            }
            world.assert_order();
            if *again {
                let records = expected(&world, &want);
                run(&mut world, &want, *limits, World::claim_all);
                // The rest of a publication over the record of a gone pod waits for the next one.
                if world.records().get(&pod).is_none_or(PodRecord::lives) {
                    world.cut_off.remove(&pod);
                }
                if world.cut_off.is_empty() {
                    prop_assert_eq!(world.records(), records);
                }
                world.assert_order();
            }
        }
        // All agents come back and remove their pods.
        for links in [Some([0; PODS.len()]), None] {
            for pod in 0..PODS.len() {
                run(&mut world, &want(100, &(pod, links)), Limits::NONE, |_| {});
            }
        }
        prop_assert!(world.records().is_empty() && world.vnis.is_empty());
    }

    /// Several agents make changes of different pods at the same time.
    #[test]
    fn changes_at_the_same_time_leave_nothing_that_is_wrong(
        rounds in prop::collection::vec(
            (
                prop::collection::btree_map(0..PODS.len(), event(), 2..5),
                limits(96),
                prop::collection::vec(0..4_usize, 40),
            ),
            1..8,
        ),
    ) {
        let mut world = World::default();
        for (n, (events, limits, order)) in rounds.iter().enumerate() {
            let wants = events.iter().map(|(pod, (_, links))| want(10 * n + pod, &(*pod, *links)));
            run_at_once(&mut world, wants.collect(), *limits, order);
            world.assert_order();
        }
    }
}
