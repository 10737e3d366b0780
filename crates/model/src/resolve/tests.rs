//! Tests of how declarations become links.

use super::*;
use crate::{
    declaration::{LINKS, declare},
    link::{End, Identity, Mtu},
    names::LinkId,
    reason::Reason,
    record::Location,
    shape::Shape,
};

/// Where a pod is; no test asks where.
pub(super) fn location() -> Location {
    Location {
        node: "n1".parse().unwrap(),
        vtep: "10.0.0.1".parse().unwrap(),
        sandbox: "s".parse().unwrap(),
        mtu: Mtu::try_from(1450).unwrap(),
        leaving: false,
    }
}

/// Records of pods with their `ratchet.dev/links`.
fn records(pods: &[(&str, &str)]) -> BTreeMap<PodKey, PodRecord> {
    let record = |(name, links): &(&str, &str)| {
        let pod = PodKey::new("default", name).unwrap();
        let annotations = [(LINKS.to_string(), links.to_string())].into();
        let declared = declare(&pod, &BTreeMap::new(), &annotations)
            .unwrap()
            .unwrap();
        (
            pod.clone(),
            PodRecord::new(pod, Some(location()), 0, declared.links),
        )
    };
    pods.iter().map(record).collect()
}

#[test]
fn what_a_pod_declared_that_has_gone_yields_to_the_living() {
    let mut records = records(&[
        (
            "gone",
            "[{interface: eth1, peer: r2/eth1, mtu: 1300}, \
             {interface: eth2, peer: r2/eth2, mtu: 1300}, {interface: eth3, peer: r2/eth3}]",
        ),
        ("r1", "[{interface: eth1, peer: r2/eth1}]"),
        ("r2", "[{interface: eth2, peer: gone/eth2, mtu: 1400}]"),
    ]);
    let gone = records
        .get_mut(&PodKey::new("default", "gone").unwrap())
        .unwrap();
    let leaving = gone.location.take().map(|location| Location {
        leaving: true,
        ..location
    });
    let absent = resolve(&records);
    let described: Vec<String> = absent
        .iter()
        .map(|l| format!("{} {} {:?} {:?}", l.a.pod, l.a.interface, l.mtu, l.problem))
        .collect();
    let mut described: Vec<&str> = described.iter().map(String::as_str).collect();
    described.sort_unstable();
    assert_eq!(
        described,
        [
            // Its claim on r2's eth1 is void, r2's word on eth2 stands alone, and eth3 is
            // remembered.
            "default/gone eth2 Some(Mtu(1400)) None",
            "default/gone eth3 None None",
            "default/r1 eth1 None None",
        ]
    );
    records
        .get_mut(&PodKey::new("default", "gone").unwrap())
        .unwrap()
        .location = leaving;
    assert_eq!(
        resolve(&records),
        absent,
        "one whose departure has begun counts as gone"
    );
}

#[test]
fn two_declarations_complete_each_other() {
    let links = resolve(&records(&[
        (
            "r1",
            "[{interface: eth1, peer: r2, addresses: [10.0.0.1/30]}]",
        ),
        (
            "r2",
            "[{interface: eth1, peer: r1, addresses: [10.0.0.2/30], mtu: 1400}]",
        ),
    ]));
    assert_eq!(links.len(), 1);
    let link = &links[0];
    assert_eq!((&link.problem, link.mtu.unwrap().bytes()), (&None, 1400));
    assert_eq!(link.a.addresses[0].to_string(), "10.0.0.1/30");
    assert_eq!(link.z.addresses[0].to_string(), "10.0.0.2/30");
    assert_ne!(link.a.mac, link.z.mac);
}

#[test]
fn the_order_of_addresses_is_no_contradiction() {
    let links = resolve(&records(&[
        (
            "r1",
            "[{interface: eth1, peer: r2, addresses: [10.0.0.1/30, 10.1.0.1/30]}]",
        ),
        (
            "r2",
            "[{interface: eth1, peer: r1, peerAddresses: [10.1.0.1/30, 10.0.0.1/30]}]",
        ),
    ]));
    assert_eq!(links[0].problem, None);
}

#[test]
fn two_declarations_may_not_contradict() {
    let links = resolve(&records(&[
        ("r1", "[{interface: eth1, peer: r2, mtu: 1300}]"),
        ("r2", "[{interface: eth1, peer: r1, mtu: 1400}]"),
    ]));
    let problem = links[0].problem.as_ref().unwrap().to_string();
    assert!(
        problem.contains("MTU is 1300 on default/r1 and 1400 on default/r2"),
        "{problem}"
    );
}

#[test]
fn two_links_may_not_share_an_interface() {
    let links = resolve(&records(&[
        ("r1", "[{interface: eth1, peer: r3/eth1}]"),
        ("r2", "[{interface: eth1, peer: r3/eth1}]"),
    ]));
    let barred: Vec<String> = links
        .iter()
        .filter_map(|link| Some(link.barred.as_ref()?.to_string()))
        .collect();
    assert_eq!(
        barred,
        [
            "interface eth1 of pod default/r3 is that of the link default/r1/eth1 — \
             default/r3/eth1 (declared by default/r1): give the link another one"
        ]
    );
}

#[test]
fn a_pods_links_are_what_they_are_among_all() {
    let records = records(&[
        (
            "r1",
            "[{interface: eth1, peer: r2/eth1, addresses: [10.0.0.1/30]}, \
             {interface: eth2, peer: r3/eth2}]",
        ),
        (
            "r2",
            "[{interface: eth1, peer: r1/eth1, mtu: 1400}, \
             {interface: eth2, peer: r4/eth9, addresses: [10.0.0.1/30]}]",
        ),
        (
            "r4",
            "[{interface: eth1, peer: r3/eth2}, \
             {interface: eth3, peer: r5/eth3, addresses: [10.0.0.1/30]}]",
        ),
    ]);
    let all = resolve(&records);
    assert!(
        all.iter().any(|link| link.barred.is_some())
            && all.iter().any(|link| !link.warnings.is_empty())
    );
    for pod in records.keys() {
        let has = |link: &&Link| link.a.pod == *pod || link.z.pod == *pod;
        let own: Vec<Link> = all.iter().filter(has).cloned().collect();
        assert_eq!(
            resolve_of(&[pod.clone()].into(), &records.values().collect::<Vec<_>>()),
            own,
            "{pod}"
        );
    }
}

#[test]
fn links_that_do_not_meet_may_have_the_same_addresses() {
    let links = resolve(&records(&[
        (
            "r1",
            "[{interface: eth1, peer: r2, addresses: [10.0.0.1/30]}]",
        ),
        (
            "r3",
            "[{interface: eth1, peer: r4, addresses: [10.0.0.1/30]}]",
        ),
    ]));
    assert!(links.iter().all(|link| link.warnings.is_empty()));
    let ends: Vec<String> = (0..9)
        .map(|n| format!("{{interface: e{n}, peer: r{n}, addresses: [10.0.0.1/32]}}"))
        .collect();
    let links = resolve(&records(&[("hub", &format!("[{}]", ends.join(",")))]));
    let expected = "address 10.0.0.1 is given to default/hub/e0 and default/hub/e1 and \
                    default/hub/e2 and default/hub/e3 and 5 others";
    for link in &links {
        let warnings: Vec<_> = link.warnings.iter().map(Reason::to_string).collect();
        assert_eq!(warnings, [expected]);
    }
}

#[test]
fn one_address_on_two_pods_is_warned_about() {
    let links = resolve(&records(&[(
        "r1",
        "[{interface: eth1, peer: r2, addresses: [10.0.0.1/30], peerAddresses: [10.0.0.1/30]}]",
    )]));
    assert_eq!(links[0].problem, None);
    assert_eq!(
        links[0].warnings[0].to_string(),
        "address 10.0.0.1 is given to default/r1/eth1 and default/r2/eth1"
    );
}

#[test]
fn every_link_has_the_ends_of_its_shape() {
    let links = resolve(&records(&[
        (
            "r1",
            "[{interface: eth1, peer: r2}, {interface: eth2, peer: r1/eth3}]",
        ),
        ("r3", "[{interface: eth1, peer: r2/eth7, vni: 77}]"),
    ]));
    assert_eq!(links.len(), 3);
    for link in links {
        assert_eq!(link.shape(), Shape::Cable);
        assert!(link.shape().pod_ends().contains(&link.endpoints().len()));
    }
}

/// While a slot's pod is replaced, some still say that the link is with the pod before it.
#[test]
fn a_link_whose_pods_are_not_agreed_on_is_one_link() {
    let declared = |pods: &[(&str, &str)]| {
        let mut records = records(pods);
        for link in records.values_mut().flat_map(|record| &mut record.links) {
            let is_slot = link.local.interface.as_str() == "slot";
            link.identity = Some(Identity {
                link: LinkId::of_object("default", "t-1"),
                local: if is_slot { End::A } else { End::Z },
            });
        }
        records
    };
    let before = "[{interface: slot, peer: m/eth1}]";
    // A name before m, and one after it: the order of the ends is the link's.
    for (old, new) in [("a", "z"), ("z", "a")] {
        let says = |pod: &str| format!("[{{interface: eth1, peer: {pod}/slot}}]");
        let ends = |of: &str, m: &str| {
            let pods = [("m", &*says(m)), (old, before), (new, before)];
            let of = [PodKey::new("default", of).unwrap()].into();
            let records = declared(&pods);
            let links = resolve_of(&of, &records.values().collect::<Vec<_>>());
            links
                .iter()
                .map(|link| (link.a.pod.name().to_owned(), link.barred.is_some()))
                .collect::<Vec<_>>()
        };
        // What m itself says counts; the other one has no link, not one that is barred.
        for m in [old, new] {
            assert_eq!(ends("m", m), [(m.to_owned(), false)]);
            let other = if m == old { new } else { old };
            assert_eq!(ends(other, m), []);
            assert_eq!(ends(m, m), [(m.to_owned(), false)]);
        }
    }
}
