//! The agent crashes at each of its steps: after every request to the kernel, around every write to
//! its state directory, and around every call to the store. After a restart it finishes or undoes
//! the step. Then kernel, disk and store have what is declared, and the survivors still have the
//! same interfaces.
//!
//! A life is the history of one pod: it is added, replaced, deleted, added again, moved to the
//! other node and back, survives the loss of the state directory, and vanishes. The agent crashes
//! once in each of these operations. The points that an operation passes are counted and not listed
//! here, so that no new step is forgotten. `RATCHET_LONG=1` tests all points with all kinds of
//! recovery; by default it is a sample of them.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod script;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use world::{Operation, Recovery, World};

/// The number of lives with crashes in a sample.
const SAMPLE: usize = 6;

/// The points of an operation.
#[derive(Default)]
struct Seen {
    /// How many points it passes without a crash.
    count: usize,
    /// The names of these points.
    names: BTreeSet<String>,
    /// The points at which the agent has crashed, by number.
    crashed_at: BTreeSet<usize>,
    /// The same by name.
    crashed_after: BTreeSet<String>,
}

fn all_steps(mut world: World) {
    let is_long = std::env::var("RATCHET_LONG").is_ok();
    let mut seen: BTreeMap<Operation, Seen> = BTreeMap::new();
    world.live(
        0,
        Recovery::OnDemand,
        |operation, script| {
            let seen = seen.entry(operation).or_default();
            seen.count = script.passed.len();
            seen.names.extend(script.passed.iter().cloned());
        },
        |_| 0,
    );
    let longest = seen.values().map(|seen| seen.count).max().unwrap();
    let recoveries: &[Recovery] = &Recovery::ALL;
    let lives = if is_long {
        longest * recoveries.len()
    } else {
        SAMPLE
    };
    for life in 0..lives {
        let recovery = recoveries[life % recoveries.len()];
        let counts: BTreeMap<Operation, usize> = seen
            .iter()
            .map(|(operation, seen)| (*operation, seen.count))
            .collect();
        let crash_at = |operation: Operation| {
            let count = counts[&operation];
            if is_long {
                life / recoveries.len() % count + 1
            } else {
                life * count / lives + 1
            }
        };
        world.live(
            life + 1,
            recovery,
            |operation, script| {
                let seen = seen.get_mut(&operation).unwrap();
                if script.has_crashed {
                    seen.crashed_at.insert(script.passed.len());
                    seen.crashed_after.extend(script.passed.last().cloned());
                }
            },
            crash_at,
        );
    }
    for (operation, seen) in &seen {
        println!(
            "{operation:?}: {} points, crashed at {:?} ({:?})",
            seen.count, seen.crashed_at, seen.crashed_after
        );
        assert!(
            seen.count > 0 && !seen.crashed_at.is_empty(),
            "{operation:?}"
        );
    }
    if is_long {
        // The store's events arrive at any time, so a point may have another number in another
        // life.
        let of = |names: fn(&Seen) -> &BTreeSet<String>| {
            seen.values().flat_map(names).collect::<BTreeSet<_>>()
        };
        let (passed, crashed_after) = (of(|seen| &seen.names), of(|seen| &seen.crashed_after));
        let missed: Vec<_> = passed.difference(&crashed_after).collect();
        assert!(missed.is_empty(), "never crashed after {missed:?}");
    }
    world.end();
}

#[test]
fn sqlite_agent_crashes_at_every_step() {
    all_steps(World::on_sqlite());
}

#[test]
fn etcd_agent_crashes_at_every_step() {
    all_steps(World::on_etcd());
}
