//! Changes by Ratchet, and by others.

use std::{collections::BTreeSet, process::Command};

use ratchet_filter::{Filter, Found};
use ratchet_model::device::{Passage, SourcePorts};

use crate::{
    packet::within,
    world::{fresh, sh},
};

fn passage(number: u32) -> Passage {
    let low = u16::try_from(1024 + 4 * (number % 16_000)).unwrap();
    let [.., a, b] = number.to_be_bytes();
    Passage {
        port: 4789,
        vni: (11 + number).try_into().unwrap(),
        local: "10.0.0.1".parse().unwrap(),
        remote: [10, 1, a, b].into(),
        source: Some(SourcePorts { low, high: low + 4 }),
    }
}

fn all(numbers: std::ops::Range<u32>) -> BTreeSet<Passage> {
    numbers.map(passage).collect()
}

fn whole(passages: BTreeSet<Passage>) -> Found {
    Found {
        passages,
        is_whole: true,
    }
}

/// Two who use the filter of one namespace.
fn two() -> [Filter; 2] {
    let netns = fresh();
    [(); 2].map(|()| within(&netns, || Filter::open_here().unwrap()))
}

#[test]
fn what_was_written_is_read_back() {
    let [mut one, mut other] = two();
    assert_eq!(one.observe().unwrap(), whole(BTreeSet::new()));
    one.change(&[passage(1), passage(2)], &[]).unwrap();
    assert_eq!(other.observe().unwrap(), whole(all(1..3)));
    one.change(&[passage(3)], &[passage(1)]).unwrap();
    assert_eq!(other.observe().unwrap(), whole(all(2..4)));
    one.set(all(7..9)).unwrap();
    assert_eq!(other.observe().unwrap(), whole(all(7..9)));
    one.change(&[], &[passage(7), passage(8)]).unwrap();
    assert_eq!(other.observe().unwrap(), whole(BTreeSet::new()));
}

#[test]
fn an_agent_that_starts_takes_over_what_is_there() {
    let [mut before, mut after] = two();
    before.change(&[passage(1), passage(2)], &[]).unwrap();
    drop(before);
    after.change(&[passage(3)], &[passage(1)]).unwrap();
    assert_eq!(after.observe().unwrap(), whole(all(2..4)));
}

#[test]
fn ten_thousand_links() {
    let [mut one, mut other] = two();
    one.set(all(0..10_000)).unwrap();
    assert_eq!(other.observe().unwrap(), whole(all(0..10_000)));
    one.change(&[passage(10_000)], &[passage(0)]).unwrap();
    assert_eq!(other.observe().unwrap(), whole(all(1..10_001)));
}

#[test]
fn a_set_that_is_full_is_made_again_with_more_room() {
    let [mut one, mut other] = two();
    one.set(all(0..10)).unwrap();
    let more: Vec<Passage> = all(10..5_000).into_iter().collect();
    one.change(&more, &[]).unwrap();
    assert_eq!(other.observe().unwrap(), whole(all(0..5_000)));
    other.set(all(0..12_000)).unwrap();
    assert_eq!(one.observe().unwrap(), whole(all(0..12_000)));
}

#[test]
fn a_change_puts_a_flushed_filter_back() {
    let [mut one, mut other] = two();
    one.change(&[passage(1), passage(2)], &[]).unwrap();
    other.set([]).unwrap();
    one.change(&[passage(3)], &[passage(1)]).unwrap();
    assert_eq!(other.observe().unwrap(), whole(all(2..4)));
    // One element only is missing.
    other.change(&[], &[passage(2)]).unwrap();
    one.change(&[], &[passage(2)]).unwrap();
    assert_eq!(other.observe().unwrap(), whole(all(3..4)));
}

/// What people do with the `nft` program, where there is one.
#[test]
fn what_others_changed_is_noticed_and_mended() {
    if Command::new("nft").arg("--version").output().is_err() {
        return;
    }
    let netns = fresh();
    let mut filter = within(&netns, || Filter::open_here().unwrap());
    for line in [
        "flush ruleset",
        "flush table inet ratchet",
        "flush chain inet ratchet arriving",
        "add rule inet ratchet arriving accept",
        "insert rule inet ratchet input accept",
        "add chain inet ratchet mine",
        "flush set inet ratchet ours",
        "flush set inet ratchet arriving4",
        "flush set inet ratchet leaving4",
        "add chain inet ratchet input { policy drop; }",
        "add table inet ratchet { flags dormant; }",
    ] {
        filter.set(all(1..3)).unwrap();
        sh(&netns, &format!("nft {line}"));
        let found = filter.observe().unwrap();
        assert_ne!(found, whole(all(1..3)), "{line}");
        filter.set(all(1..3)).unwrap();
        assert_eq!(filter.observe().unwrap(), whole(all(1..3)), "{line}");
    }
    // And people can read it.
    let listed = sh(&netns, "nft list table inet ratchet");
    assert!(listed.contains("from the link's other node"), "{listed}");
}
