//! The plugin is killed at any step of ADD and DEL; after one DEL that is left alone nothing may
//! remain.
//!
//! `RATCHET_KILL_RUNS=1000` makes it longer, `RATCHET_KILL_SEED=…` repeats a run of which the seed
//! was printed.
#![allow(clippy::unwrap_used, missing_docs)]

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

/// SplitMix64: small, and the same everywhere.
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

    /// How this call dies: at a step of its own, at any instant, or not at all.
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
    let mut died = std::collections::BTreeMap::<String, u32>::new();
    for run in 0..runs {
        // A seed a run: the story of each can be told again without the ones before.
        let mut random = Random(seed.wrapping_add(run));
        let shape = Shape::ALL[usize::try_from(random.below(Shape::ALL.len() as u64)).unwrap()];
        let mut story = vec![format!("run {run} of seed {seed}: {shape:?}")];
        if random.chance(10) {
            world.stop_agents();
            story.push("no agent runs".into());
        }
        let mut sandbox = world.begin(run, shape);
        let mut calls = vec![("ADD", random.kill("ADD"))];
        // A runtime that has had no answer may try the same again.
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
            // The namespace may be gone when the last DEL comes; then runtimes send no CNI_NETNS.
            is_lost = is_last && random.chance(15);
            if is_lost {
                world.lose_netns(&mut sandbox);
                story.push("the namespace is gone".into());
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
                    format!("{verb} at any instant")
                };
                *died.entry(how).or_default() += 1;
            }
            story.push(format!("{verb} {kill:?}: {outcome}"));
            assert!(
                !is_last || outcome.is_good,
                "the last DEL failed\n{}",
                story.join("\n")
            );
        }
        if let Err(left) = world.end(sandbox, shape, is_lost) {
            panic!("{left}\n{}", story.join("\n"));
        }
    }
    eprintln!("killed: {died:#?}");
    if runs >= 500 {
        for step in ratchet_failpoint::PLUGIN {
            assert!(died.contains_key(*step), "no run died at {step}");
        }
    }
    world.stop_agents();
    // Those that a killed plugin was just starting find that there is one, or have nobody's socket
    // to take.
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
fn a_build_that_is_no_test_has_no_failpoints() {
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
