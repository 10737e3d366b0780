//! The plugin is killed at any step of ADD and DEL. After one DEL that is not killed, nothing may
//! be left.
//!
//! `RATCHET_KILL_RUNS=1000` makes more runs, `RATCHET_KILL_SEED=…` repeats runs by the seed that
//! was printed.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;
mod world;

use std::time::Duration;

use support::eventually;
use world::{Call, Kill, Shape, World};

const RUNS: u64 = 60;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number"))
    })
}

/// SplitMix64 (Steele, Lea and Flood 2014): small, and the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn of<'a, T>(&mut self, items: &[&'a T]) -> &'a T
    where
        T: ?Sized,
    {
        items[usize::try_from(self.below(items.len() as u64)).unwrap()]
    }

    /// How this call is killed: at one of its steps, at any moment, or not at all.
    fn kill(&mut self, verb: &str) -> Kill {
        let prefix = verb.to_lowercase();
        let steps: Vec<&str> = ratchet_failpoint::PLUGIN
            .iter()
            .copied()
            .filter(|name| name.starts_with(&prefix))
            .collect();
        match self.below(10) {
            0..6 => Kill::At(self.of(&steps).to_owned()),
            6..9 => Kill::After(Duration::from_micros(self.below(120_000))),
            _ => Kill::Never,
        }
    }
}

#[test]
fn whenever_the_plugin_is_killed_a_del_leaves_nothing() {
    let runs = from_env("RATCHET_KILL_RUNS").unwrap_or(RUNS);
    let seed = from_env("RATCHET_KILL_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        u64::from(now.subsec_nanos()) ^ now.as_secs() << 32
    });
    eprintln!("RATCHET_KILL_SEED={seed} RATCHET_KILL_RUNS={runs}");
    let mut world = World::new();
    let mut killed = std::collections::BTreeMap::<String, u32>::new();
    for run in 0..runs {
        // Each run has its own seed, so that it can be repeated without the ones before.
        let mut random = Random(seed.wrapping_add(run));
        let shape = Shape::ALL[usize::try_from(random.below(Shape::ALL.len() as u64)).unwrap()];
        let mut history = vec![format!("run {run} of seed {seed}: {shape:?}")];
        if random.chance(10) {
            world.stop_agents();
            history.push("no agent runs".into());
        }
        let mut sandbox = world.begin(run, shape);
        let mut calls = vec![("ADD", random.kill("ADD"))];
        // A runtime that got no answer may repeat the call.
        if random.chance(20) {
            calls.push(("ADD", random.kill("ADD")));
        }
        for _ in 0..random.below(3) {
            calls.push(("DEL", random.kill("DEL")));
        }
        calls.push(("DEL", Kill::Never));
        let mut is_lost = false;
        for (index, (verb, kill)) in calls.iter().enumerate() {
            let is_last = index + 1 == calls.len();
            // The namespace may have vanished before the last DEL; then runtimes set no CNI_NETNS.
            is_lost = is_last && random.chance(15);
            if is_lost {
                world.lose_netns(&mut sandbox);
                history.push("the namespace has vanished".into());
            }
            let outcome = world.call(
                &sandbox,
                &Call {
                    verb,
                    kill,
                    shape,
                    has_netns: !is_lost,
                },
            );
            if outcome.is_killed {
                let how = if let Kill::At(step) = kill {
                    step.clone()
                } else {
                    format!("{verb} at any moment")
                };
                *killed.entry(how).or_default() += 1;
            }
            history.push(format!("{verb} {kill:?}: {outcome}"));
            assert!(
                !is_last || outcome.is_good,
                "the last DEL failed\n{}",
                history.join("\n")
            );
        }
        if let Err(left) = world.end(sandbox, shape, is_lost) {
            panic!("{left}\n{}", history.join("\n"));
        }
    }
    eprintln!("killed: {killed:#?}");
    if runs >= 500 {
        for step in ratchet_failpoint::PLUGIN {
            assert!(killed.contains_key(*step), "no run was killed at {step}");
        }
    }
    world.stop_agents();
    // A plugin may be killed while it starts an agent. That agent ends when it finds another one,
    // or is stopped here.
    eventually("the end of all agents", || {
        world.stop_agents();
        let left = world.processes();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
}

#[test]
fn a_build_without_tests_has_no_failpoints() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "no-dev,features",
            "--package",
            "ratchet",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8(tree.stdout).unwrap();
    assert!(
        tree.status.success() && text.contains("ratchet-failpoint"),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    assert!(!text.contains("armed"), "{text}");
}
