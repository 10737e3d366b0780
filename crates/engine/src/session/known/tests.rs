use ratchet_model::{DeclaredEnd, Location, Vni};

use super::*;

fn key(name: &str) -> PodKey {
    PodKey::new("default", name).unwrap()
}

fn record(name: &str, peers: &[&str]) -> PodRecord {
    let end = |pod: &str, other: &str| {
        DeclaredEnd::bare(key(pod), format!("to-{other}").parse().unwrap())
    };
    let link = |peer: &&str| DeclaredLink::new(end(name, peer), end(peer, name));
    let location = Location {
        node: "n".parse().unwrap(),
        vtep: "10.0.0.1".parse().unwrap(),
        sandbox: name.parse().unwrap(),
        mtu: 1450.try_into().unwrap(),
        leaving: false,
    };
    PodRecord::new(
        key(name),
        Some(location),
        1,
        peers.iter().map(link).collect(),
    )
}

fn facts(records: &[PodRecord], vnis: &[(LinkId, u32)]) -> Facts {
    Facts {
        records: records
            .iter()
            .map(|record| (record.pod.clone(), record.clone()))
            .collect(),
        declared: None,
        vnis: vnis
            .iter()
            .map(|(link, vni)| (*link, (*vni).try_into().unwrap()))
            .collect(),
    }
}

#[test]
fn what_a_wiped_store_has_lost_is_believed_until_it_is_said_again() {
    let own = [key("own")].into();
    let (is_own, declarer, none) = (
        |pod: &PodKey| *pod == key("own"),
        record("declarer", &["own"]),
        BTreeSet::new(),
    );
    let link = declarer.links[0].id();
    let mut known = Known::default();
    known.merge(
        &own,
        facts(
            &[
                record("own", &["leaf"]),
                declarer.clone(),
                record("leaf", &[]),
            ],
            &[(link, 12)],
        ),
        &none,
        is_own,
        is_own,
        Instant::now(),
    );
    assert_eq!(
        (
            known.vnis().get(link).map(Vni::number),
            known.vnis().former(link)
        ),
        (Some(12), None)
    );

    known.merge(
        &own,
        Facts::default(),
        &none,
        is_own,
        is_own,
        Instant::now(),
    );
    let left: Vec<&str> = known.records.keys().map(PodKey::name).collect();
    // The own pod is to be published again, and the leaf may have gone.
    assert_eq!(left, ["declarer"]);
    assert_eq!(
        (
            known.vnis().get(link),
            known.vnis().former(link).map(Vni::number)
        ),
        (None, Some(12))
    );

    known.merge(
        &own,
        facts(
            &[
                record("own", &["leaf"]),
                PodRecord {
                    created: 2,
                    ..declarer
                },
            ],
            &[(link, 11)],
        ),
        &none,
        is_own,
        is_own,
        Instant::now(),
    );
    assert_eq!(known.record(&key("declarer")).unwrap().created, 2);
    assert_eq!(known.vnis().get(link).map(Vni::number), Some(11));
}

#[test]
fn a_declarer_that_has_dropped_a_link_is_not_lost() {
    let own: BTreeSet<PodKey> = [key("own"), key("other")].into();
    let is_own = |pod: &PodKey| own.contains(pod);
    let mut known = Known::default();
    known.merge(
        &own,
        facts(&[record("dropper", &["own", "other"])], &[]),
        &BTreeSet::new(),
        is_own,
        is_own,
        Instant::now(),
    );
    let (one, dropper) = ([key("own")].into(), [key("dropper")].into());
    assert_eq!(known.missing_declarers(&one, &Facts::default()), dropper);

    let absent = known.correct(dropper.clone(), Facts::default(), is_own);
    assert_eq!(absent, dropper);
    known.merge(
        &one,
        Facts::default(),
        &absent,
        is_own,
        is_own,
        Instant::now(),
    );
    assert_eq!(known.neighbours(&key("own")), dropper);

    let absent = known.correct(
        dropper.clone(),
        facts(&[record("dropper", &["other"])], &[]),
        is_own,
    );
    known.merge(
        &one,
        Facts::default(),
        &absent,
        is_own,
        is_own,
        Instant::now(),
    );
    assert_eq!(
        (
            known.neighbours(&key("own")),
            known.neighbours(&key("other"))
        ),
        (BTreeSet::new(), dropper.clone())
    );

    known.correct(
        dropper,
        facts(&[record("dropper", &["foreign"])], &[]),
        is_own,
    );
    assert_eq!(known.record(&key("dropper")), None);
}

#[test]
fn a_declarer_is_forgotten_with_the_last_of_its_peers_here() {
    let (own, declarer, none) = (
        [key("own")].into(),
        record("declarer", &["own"]),
        BTreeSet::new(),
    );
    let mut known = Known::default();
    known.merge(
        &own,
        facts(&[record("own", &[]), declarer], &[]),
        &none,
        |_| true,
        |_| false,
        Instant::now(),
    );
    known.merge(
        &own,
        Facts::default(),
        &none,
        |pod| *pod == key("own"),
        |_| false,
        Instant::now(),
    );
    assert!(known.records.is_empty());
}

/// Own pods are read some at a time: what is missing from the store goes all the same, and what
/// is another own pod's stays.
#[test]
fn what_two_own_pods_share_goes_when_one_of_them_is_read() {
    let (one, two): (BTreeSet<_>, BTreeSet<_>) = ([key("one")].into(), [key("two")].into());
    let is_own = |pod: &PodKey| one.contains(pod) || two.contains(pod);
    let mut known = Known::default();
    let none = BTreeSet::new();
    let [first, second] = [record("one", &["peer"]), record("two", &["peer", "one"])];
    known.merge(
        &one,
        facts(&[first.clone(), second.clone(), record("peer", &[])], &[]),
        &none,
        is_own,
        is_own,
        Instant::now(),
    );
    known.merge(
        &two,
        facts(&[first.clone(), second, record("peer", &[])], &[]),
        &none,
        is_own,
        is_own,
        Instant::now(),
    );

    known.merge(
        &one,
        facts(&[first], &[]),
        &none,
        is_own,
        is_own,
        Instant::now(),
    );
    assert_eq!(known.record(&key("peer")), None);
    assert!(
        known.record(&key("two")).is_some(),
        "its own reading tells what has become of it"
    );
}

#[test]
fn a_declarer_that_two_own_pods_have_lost_is_not_believed_for_ever() {
    let (one, both): (BTreeSet<_>, BTreeSet<_>) =
        ([key("one")].into(), [key("one"), key("two")].into());
    let is_own = |pod: &PodKey| both.contains(pod);
    let mut known = Known::default();
    known.merge(
        &both,
        facts(&[record("declarer", &["one", "two"])], &[]),
        &BTreeSet::new(),
        is_own,
        is_own,
        Instant::now(),
    );
    let absent = known.correct(
        known.missing_declarers(&one, &Facts::default()),
        Facts::default(),
        is_own,
    );
    known.merge(
        &one,
        Facts::default(),
        &absent,
        is_own,
        is_own,
        Instant::now(),
    );
    assert!(known.record(&key("declarer")).is_some());
    assert!(known.lost.contains_key(&key("declarer")));
}
