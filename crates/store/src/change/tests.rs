//! The consequences of changes: single cases, then histories that are compared with a
//! specification.

use ratchet_model::{DeclaredEnd, Location};

use super::*;
use world::{Progress, Want, World};

mod histories;
mod world;

fn key(name: &str) -> PodKey {
    PodKey::new("default", name).unwrap()
}

/// The n-th link between two pods. It is the same link whichever pod declares it.
fn link(pod: &PodKey, peer: &PodKey, n: usize) -> DeclaredLink {
    let end = |pod: &PodKey, of: &PodKey| {
        let number = if pod == of { 2 * n + 1 } else { n };
        DeclaredEnd::bare(
            pod.clone(),
            format!("to-{}{number}", of.name()).parse().unwrap(),
        )
    };
    let mut remote = end(peer, pod);
    if pod == peer {
        remote.interface = format!("to-{}{}", pod.name(), 2 * n).parse().unwrap();
    }
    DeclaredLink::new(end(pod, peer), remote)
}

fn location(sandbox: &str) -> Location {
    Location {
        node: "n1".parse().unwrap(),
        vtep: "10.0.0.1".parse().unwrap(),
        sandbox: sandbox.parse().unwrap(),
        mtu: 1450.try_into().unwrap(),
        leaving: false,
    }
}

/// A pod with one link to each peer.
fn record(name: &str, is_there: bool, peers: &[&str]) -> PodRecord {
    let pod = key(name);
    let links = peers.iter().map(|peer| link(&pod, &key(peer), 0)).collect();
    PodRecord::new(pod, is_there.then(|| location(name)), 1, links)
}

fn records(records: &[PodRecord]) -> BTreeMap<PodKey, PodRecord> {
    records.iter().map(|r| (r.pod.clone(), r.clone())).collect()
}

#[test]
fn a_declarer_that_goes_is_remembered_while_its_peer_lives() {
    let declarer = record("a", true, &["b"]);
    let before = records(&[declarer.clone(), record("b", true, &[])]);
    let change = RecordChange::remove(&key("a"), &before);
    assert_eq!(
        change.record,
        Some(PodRecord {
            location: None,
            ..declarer.clone()
        })
    );
    assert!(change.forgotten.is_empty() && change.ended.is_empty());

    let before = records(std::slice::from_ref(&declarer));
    let change = RecordChange::remove(&key("a"), &before);
    assert_eq!(change.record, None);
    assert!(change.forgotten.is_empty());
    assert_eq!(change.ended, ids(&declarer));
}

#[test]
fn the_last_one_out_clears_up_after_the_declarer() {
    let declarer = record("a", false, &["b"]);
    let before = records(&[declarer.clone(), record("b", true, &[])]);
    let change = RecordChange::remove(&key("b"), &before);
    assert_eq!(change.record, None);
    assert_eq!(change.forgotten, [key("a")].into());
    assert_eq!(change.ended, ids(&declarer));
}

#[test]
fn a_declarer_with_another_living_peer_is_not_forgotten() {
    let declarer = record("a", false, &["b", "c"]);
    let before = records(&[
        declarer.clone(),
        record("b", true, &[]),
        record("c", true, &[]),
    ]);
    let change = RecordChange::remove(&key("b"), &before);
    assert!(change.forgotten.is_empty());
    // But its link with the removed pod has ended.
    assert_eq!(change.ended, [declarer.links[0].id()].into());
}

#[test]
fn a_link_to_one_that_has_gone_ends_with_its_declarer_though_the_declaration_is_kept() {
    let declarer = record("a", true, &["b", "c"]);
    let before = records(&[declarer.clone(), record("c", true, &[])]);
    let change = RecordChange::remove(&key("a"), &before);
    assert!(change.record.is_some());
    assert_eq!(change.ended, [declarer.links[0].id()].into());
}

#[test]
fn a_new_declaration_ends_the_links_it_no_longer_has() {
    let (before, after) = (record("a", true, &["b", "c"]), record("a", true, &["c"]));
    // b also declares the link with b, so it stays.
    let both = records(&[before.clone(), record("b", true, &["a"])]);
    let change = RecordChange::publish(after.clone(), &both);
    assert_eq!(change.record, Some(after.clone()));
    assert!(change.ended.is_empty());

    let one = records(&[before.clone(), record("b", true, &[])]);
    let change = RecordChange::publish(after, &one);
    assert_eq!(change.ended, [before.links[0].id()].into());
}

#[test]
fn a_self_link_ends_with_its_pod() {
    let own = record("a", true, &["a"]);
    let before = records(std::slice::from_ref(&own));
    let change = RecordChange::remove(&key("a"), &before);
    assert_eq!(change.record, None);
    assert_eq!(change.ended, ids(&own));
}

#[test]
fn a_pod_without_a_record_is_removed_in_no_step() {
    let before = BTreeMap::new();
    let change = RecordChange::remove(&key("a"), &before);
    assert_eq!(change.steps(&BTreeMap::new(), Limits::NONE), []);
}

#[test]
fn a_large_removal_marks_the_pod_as_leaving_first_and_writes_its_record_last() {
    let hub = record("hub", true, &["a", "b", "c"]);
    let before = records(std::slice::from_ref(&hub));
    let change = RecordChange::remove(&hub.pod, &before);
    let limits = Limits {
        operations: 3,
        conditions: 3,
    };
    let steps = change.steps(&BTreeMap::new(), limits);
    let states: Vec<_> = steps
        .iter()
        .map(|step| step.records[&hub.pod].as_ref())
        .map(|record| record.map(|record| (record.lives(), record.links.len())))
        .collect();
    assert_eq!(
        states,
        [Some((false, 3)), Some((false, 2)), Some((false, 1)), None]
    );
    let last = steps.last().unwrap();
    assert!(last.declarers_unchanged);
    assert_eq!(change.steps(&BTreeMap::new(), Limits::NONE).len(), 1);
}

/// Both agents read before either writes: each sees that the other's record still has the link.
#[test]
fn a_link_that_both_of_its_pods_drop_at_the_same_time_is_freed() {
    let mut world = World::default();
    let publish =
        |name, peers: &[&str]| Want::Publish(Box::new(record(name, true, peers)), Publish::New);
    for want in [publish("a", &["b"]), publish("b", &["a"])] {
        let mut change = world.begin(&want, Limits::NONE).unwrap();
        assert_eq!(world.advance(&mut change), Progress::Done);
    }
    world.claim_all();
    assert_eq!(world.vnis.len(), 1);
    let (a, b) = (publish("a", &[]), publish("b", &[]));
    let mut first = world.begin(&a, Limits::NONE).unwrap();
    let mut second = world.begin(&b, Limits::NONE).unwrap();
    assert_eq!(world.advance(&mut first), Progress::Done);
    assert_eq!(
        world.advance(&mut second),
        Progress::Refused,
        "the link has ended"
    );
    let mut again = world.begin(&b, Limits::NONE).unwrap();
    assert_eq!(world.advance(&mut again), Progress::Done);
    assert!(world.vnis.is_empty());
}

/// The pod's own removal finds in it what is left to do.
#[test]
fn the_record_of_a_pod_that_is_still_leaving_is_not_forgotten() {
    let mut leaving = record("a", true, &["b"]);
    leaving.location.as_mut().unwrap().leaving = true;
    let before = records(&[leaving.clone(), record("b", true, &[])]);
    let change = RecordChange::remove(&key("b"), &before);
    assert!(change.forgotten.is_empty());
    assert_eq!(change.ended, ids(&leaving));
}

/// If a step fails, the record is found again by its links with the removed pod. Without links it
/// would never be found.
#[test]
fn a_record_that_is_forgotten_loses_the_link_that_leads_to_it_last() {
    let before = records(&[record("a", false, &["b", "c", "d"]), record("c", true, &[])]);
    let change = RecordChange::remove(&key("c"), &before);
    let limits = Limits {
        operations: 3,
        conditions: 9,
    };
    let steps = change.steps(&BTreeMap::new(), limits);
    let forgotten: Vec<Vec<&str>> = steps
        .iter()
        .filter_map(|step| step.records.get(&key("a")))
        .map(|record| {
            let links = record.iter().flat_map(|record| &record.links);
            links.map(|link| link.remote.pod.name()).collect()
        })
        .collect();
    assert_eq!(forgotten, [vec!["c", "d"], vec!["c"], vec![]]);
    let last = steps
        .iter()
        .rfind(|step| step.records.contains_key(&key("a")));
    assert_eq!(last.unwrap().records[&key("a")], None);
}

#[test]
fn what_is_published_again_is_written_only_if_it_differs() {
    let had = record("a", true, &["b"]);
    let again = |record: &PodRecord| Publication::new(record, Some(&had), Publish::Again);
    assert_eq!(again(&had), Publication::Unchanged(had.clone()));
    let other = PodRecord {
        links: Vec::new(),
        ..had.clone()
    };
    assert_eq!(again(&other), Publication::Write(other.clone()));
    assert!(drops_links(Some(&had), &other) && !drops_links(Some(&other), &had));
    let old = PodRecord {
        location: Some(location("old")),
        created: 0,
        ..had.clone()
    };
    assert_eq!(again(&old), Publication::Superseded);
    let departed = PodRecord {
        location: None,
        ..had.clone()
    };
    let lives_on = Publication::new(&old, Some(&departed), Publish::Again);
    let created = departed.created;
    let expected = PodRecord {
        created,
        ..old.clone()
    };
    assert_eq!(lives_on, Publication::Write(expected));
    // Of two with the same `created` one gives way, and not each to the other.
    let twin = |name: &'static str| PodRecord {
        location: Some(location(name)),
        ..had.clone()
    };
    let meets = |one: &'static str, other: &'static str| {
        Publication::new(&twin(one), Some(&twin(other)), Publish::Again) == Publication::Superseded
    };
    assert!(meets("one", "two") && !meets("two", "one"));
    let new = Publication::new(&old, Some(&had), Publish::New);
    assert_eq!(new, Publication::Write(PodRecord { created: 2, ..old }));
}
