//! The simulated kernel against the real one: the same steps on both must have the same outcomes
//! and lead to the same devices. Needs root; each case works in network namespaces that only its
//! own handles keep alive.
//!
//! `DIFFERENTIAL_CASES=500 cargo test -p ratchet-simulation --test differential` runs more cases
//! than usual, and `DIFFERENTIAL_SEED=…` begins with another seed. A case that fails is shrunk.

#![allow(clippy::unwrap_used)]

mod case;
mod compare;
mod plans;
mod real;
mod steps;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use ratchet_simulation::random::Random;

use case::{Batch, run, shrink};
use compare::Pair;

/// Cases of each test, unless the environment says another number.
const CASES: u64 = 12;

/// Batches of steps in one case.
const BATCHES: usize = 16;

/// So many cases at once: a kernel step mostly waits.
const THREADS: u64 = 4;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs random cases; `next` makes the next batch for what there is.
fn random_cases(next: fn(&mut Random, &Pair) -> Batch) {
    let cases = number("DIFFERENTIAL_CASES").unwrap_or(CASES);
    let first = number("DIFFERENTIAL_SEED").unwrap_or(0);
    let (counter, failed) = (AtomicU64::new(0), Mutex::new(None));
    let work = || {
        loop {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            if number >= cases {
                return;
            }
            let mut random = Random::new(first + number);
            let mut batches = Vec::new();
            let mut pair = Pair::new();
            for _ in 0..BATCHES {
                let batch = next(&mut random, &pair);
                batches.push(batch);
                if pair.execute(&batches[batches.len() - 1]).is_err() {
                    counter.store(cases, Ordering::Relaxed);
                    *failed.lock().unwrap() = Some((first + number, batches));
                    return;
                }
            }
        }
    };
    thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(work)));
    });
    let failed = failed.into_inner().unwrap();
    if let Some((seed, batches)) = failed {
        let shrunk = shrink(batches);
        let difference = run(&shrunk).unwrap_err();
        panic!("seed {seed}, shrunk: {shrunk:#?}\n{difference}");
    }
}

#[test]
fn random_steps_have_the_same_outcomes_on_both_kernels() {
    random_cases(steps::next);
}

#[test]
fn plans_and_what_is_left_of_them_do_the_same_on_both_kernels() {
    random_cases(plans::next);
}
