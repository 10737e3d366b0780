//! Random histories.

use ratchet_simulation::{
    campaign::Campaign,
    generate::{self, EVENTS},
};

/// `make simulate` runs more of them, from another seed.
#[test]
fn no_frame_goes_astray_in_two_thousand_histories() {
    let campaign = Campaign {
        seed: 0,
        histories: 2000,
        events: EVENTS,
    };
    match campaign.run() {
        Ok(report) => println!("{report}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn a_seed_gives_the_same_history_again() {
    for seed in [1, 2, 3, 5, 8, 13] {
        let [one, other] = [0, 1].map(|_| {
            let history = generate::history(seed, EVENTS);
            let outcome = history.run().unwrap_or_else(|violation| {
                panic!("seed {seed}: {}", violation.wrong.text);
            });
            (history, outcome.digest)
        });
        assert_eq!(one, other, "seed {seed}");
    }
}
