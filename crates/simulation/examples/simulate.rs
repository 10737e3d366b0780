//! Runs random histories: `make simulate EVENTS=1000000`, or one of them: `make simulate SEED=17`.
//!
//! It reads EVENTS (all events of all histories) and SEED (of the first history) from the
//! environment, and prints its figures last. A history that fails is shrunk and printed; with
//! RUST_LOG it is then run once more, and its agents log.

use std::{env, process::ExitCode, time::SystemTime};

use ratchet_simulation::{campaign::Campaign, generate::EVENTS};

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) => panic!("{name}={text}: {error}; expected a number"),
    }
}

fn main() -> ExitCode {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = number("SEED").unwrap_or_else(|| now.map_or(0, |now| now.as_secs()));
    let per_history = EVENTS as u64;
    let events = number("EVENTS").unwrap_or(per_history);
    let campaign = Campaign {
        seed,
        histories: events.div_ceil(per_history),
        events: EVENTS,
    };
    println!("seed {seed}");
    match campaign.run() {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            if env::var_os("RUST_LOG").is_some() {
                tracing_subscriber::fmt()
                    .without_time()
                    .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                    .init();
                // It fails as it did before.
                let _ = failure.shrunk.run();
            }
            ExitCode::FAILURE
        }
    }
}
