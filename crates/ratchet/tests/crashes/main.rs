//! The agent dies at each of its steps: after every request to the kernel, around every write to
//! its state directory and every call to the store. Started again, it finishes or undoes what was
//! begun; in the end kernel, disk and store hold what is declared, and the survivors' interfaces
//! are the ones they had.
//!
//! A life is that of one pod: it comes, is replaced, goes, comes back, moves to the other node and
//! back, outlives a loss of the agent's memory, and vanishes; in each of these operations the agent
//! dies once. Which points an operation passes is counted and not listed here, so that no new step
//! is forgotten. `RATCHET_LONG=1` goes through all points and all ways to recover; without it a
//! sample spread over them.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod script;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use world::{Operation, Recovery, World};

/// Lives with a death in each operation, when not all points are gone through.
const SAMPLE: usize = 6;

/// What has been seen of an operation.
#[derive(Default)]
struct Seen {
    /// How many points it passes when nobody dies.
    count: usize,
    /// The names of these.
    names: BTreeSet<String>,
    /// At which of them the agent has died, by number, and by name.
    died_at: BTreeSet<usize>,
    died_after: BTreeSet<String>,
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
        let death = |operation: Operation| {
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
                if script.has_died {
                    seen.died_at.insert(script.passed.len());
                    seen.died_after.extend(script.passed.last().cloned());
                }
            },
            death,
        );
    }
    for (operation, seen) in &seen {
        println!(
            "{operation:?}: {} points, died at {:?} ({:?})",
            seen.count, seen.died_at, seen.died_after
        );
        assert!(seen.count > 0 && !seen.died_at.is_empty(), "{operation:?}");
    }
    if is_long {
        // News from the store come when they come, so that a point may have another number in
        // another life.
        let of = |names: fn(&Seen) -> &BTreeSet<String>| {
            seen.values().flat_map(names).collect::<BTreeSet<_>>()
        };
        let (passed, died_after) = (of(|seen| &seen.names), of(|seen| &seen.died_after));
        let missed: Vec<_> = passed.difference(&died_after).collect();
        assert!(missed.is_empty(), "never died after {missed:?}");
    }
    world.end();
}

#[test]
fn sqlite_agent_dies_at_every_step() {
    all_steps(World::on_sqlite());
}

#[test]
fn etcd_agent_dies_at_every_step() {
    all_steps(World::on_etcd());
}
