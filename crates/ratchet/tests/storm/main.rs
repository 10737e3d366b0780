//! A simulated cluster with many random events: five nodes, an etcd, 60 pods with 300 links between
//! them, several events at the same time. After the last event, kernel, store and disk have what is
//! declared and nothing else.
//!
//! `RATCHET_STORM_SEEDS` (`1,2,3` or `10-29`) and `RATCHET_STORM_EVENTS` set other seeds and
//! numbers of events.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod events;
mod random;
mod topology;
mod world;

use std::time::Instant;

use support::Pinger;
use world::World;

/// The events of a run by default.
const EVENTS: usize = 100;

fn events() -> usize {
    std::env::var("RATCHET_STORM_EVENTS").map_or(EVENTS, |number| number.parse().unwrap())
}

/// The seeds of the environment, or the default.
fn seeds(default: u64) -> Vec<u64> {
    let Ok(text) = std::env::var("RATCHET_STORM_SEEDS") else {
        return vec![default];
    };
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<u64>().unwrap()..=last.parse().unwrap()
    };
    text.split(',').flat_map(range).collect()
}

fn storm(seed: u64, events: usize) {
    println!("seed {seed}, {events} events");
    let begun = Instant::now();
    let mut world = World::new(seed);
    world.add_all();
    world.wait_until_as_declared("before the first event");
    println!("all pods are added after {:?}", begun.elapsed());
    let pingers = world
        .undisturbed()
        .map(|(netns, address)| Pinger::start(netns, &address));
    let mut done = 0;
    while done < events {
        done += world.burst();
    }
    println!("{done} events after {:?}", begun.elapsed());
    world.end_faults();
    world.wait_until_as_declared("after the last event");
    pingers.into_iter().for_each(Pinger::assert_no_loss);
    world.ping_everything();
    println!("as declared after {:?}", begun.elapsed());
    world.del_all();
    println!("seed {seed}: {} in {:?}", world.tally(), begun.elapsed());
}

#[test]
fn storm_one() {
    seeds(1).into_iter().for_each(|seed| storm(seed, events()));
}

#[test]
fn storm_two() {
    // With seeds in the environment, only the other test runs.
    if std::env::var("RATCHET_STORM_SEEDS").is_err() {
        storm(2, events());
    }
}
