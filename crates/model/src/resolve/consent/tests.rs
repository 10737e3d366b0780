//! Tests of whose word counts: consent, claims, and interfaces that several links want.

use std::collections::BTreeMap;

use super::{
    super::{Link, resolve, tests::location},
    *,
};
use crate::{
    declaration::{ACCEPT, CrossNamespace, LINKS, declare},
    link::Mtu,
};

/// A pod's record, with its `ratchet.dev/links` and, unless empty, `ratchet.dev/accept`.
fn pod(key: &str, links: &str, accept: &str) -> PodRecord {
    let key: PodKey = key.parse().unwrap();
    let mut annotations = BTreeMap::from([(LINKS.to_owned(), links.to_owned())]);
    if !accept.is_empty() {
        annotations.insert(ACCEPT.to_owned(), accept.to_owned());
    }
    let declared = declare(&key, &BTreeMap::new(), &annotations);
    let declared = declared.unwrap().unwrap();
    PodRecord {
        accept: declared.accept.unwrap_or_default(),
        ..PodRecord::new(key, Some(location()), 1, declared.links)
    }
}

fn links(records: &[PodRecord]) -> Vec<Link> {
    resolve(&records.iter().map(|r| (r.pod.clone(), r.clone())).collect())
}

/// The links' declarers, each with the code of why the link is barred or cannot be made, or "up".
fn states(records: &[PodRecord]) -> Vec<String> {
    let state = |link: &Link| {
        let reason = link.barred.as_ref().or(link.problem.as_ref());
        let state = reason.map_or("up", |reason| reason.code());
        let by: Vec<String> = link.declared_by.iter().map(ToString::to_string).collect();
        format!("{}: {state}", by.join(" and "))
    };
    let mut states: Vec<String> = links(records).iter().map(state).collect();
    states.sort();
    states
}

const CLAIM: &str = "[{interface: eth1, peer: b/r/eth1}]";

#[test]
fn a_link_to_another_namespace_needs_its_consent() {
    let back = "[{interface: eth1, peer: a/p/eth1}]";
    for (links, accept, state) in [
        ("[]", "", "a/p: no_consent"),
        ("[]", "own-namespace", "a/p: no_consent"),
        ("[]", "none", "a/p: no_consent"),
        ("[]", "c,a/q", "a/p: no_consent"),
        ("[]", "a", "a/p: up"),
        ("[]", "a/p", "a/p: up"),
        ("[]", "*", "a/p: up"),
        (back, "none", "a/p and b/r: up"),
        (back, "", "a/p and b/r: up"),
    ] {
        let records = [pod("a/p", CLAIM, ""), pod("b/r", links, accept)];
        assert_eq!(states(&records), [state], "{links} {accept}");
    }
    assert_eq!(states(&[pod("a/p", CLAIM, "")]), ["a/p: no_consent"]);
}

#[test]
fn the_own_namespace_needs_none_unless_the_pod_refuses() {
    let claim = "[{interface: eth1, peer: r/eth1}]";
    for (accept, state) in [
        ("", "b/p: up"),
        ("b/p", "b/p: up"),
        ("none", "b/p: no_consent"),
        ("a", "b/p: no_consent"),
    ] {
        let records = [pod("b/p", claim, ""), pod("b/r", "[]", accept)];
        assert_eq!(states(&records), [state], "{accept}");
    }
    let own = pod("b/r", "[{interface: eth1, peer: r/eth2}]", "none");
    assert_eq!(states(&[own]), ["b/r: up"]);
}

#[test]
fn a_node_that_denies_links_between_namespaces_denies_them_to_both_pods() {
    let back = "[{interface: eth1, peer: a/p/eth1}]";
    let deny = |record: PodRecord| PodRecord {
        accept: Accept::effective(Some(&record.accept), CrossNamespace::Deny),
        ..record
    };
    let (p, r) = (pod("a/p", CLAIM, "*"), pod("b/r", back, "*"));
    assert_eq!(states(&[p.clone(), r.clone()]), ["a/p and b/r: up"]);
    let state = ["a/p and b/r: namespace_isolated"];
    assert_eq!(states(&[deny(p.clone()), r.clone()]), state);
    assert_eq!(states(&[p, deny(r)]), state);
}

#[test]
fn consent_of_a_pod_that_is_gone_is_remembered() {
    let mut peer = pod("b/r", "[{interface: eth1, peer: a/p/eth1}]", "");
    peer.location = None;
    let survivor = pod("a/p", CLAIM, "");
    assert_eq!(states(&[survivor.clone(), peer.clone()]), ["a/p: up"]);
    peer.links.clear();
    assert_eq!(states(&[survivor.clone(), peer]), ["a/p: no_consent"]);

    let mut declarer = survivor;
    declarer.location = None;
    let accepts = pod("b/r", "[]", "a");
    assert_eq!(states(&[declarer.clone(), accepts]), ["a/p: up"]);
    let refuses = pod("b/r", "[]", "");
    assert_eq!(states(&[declarer, refuses]), ["a/p: no_consent"]);
}

#[test]
fn addresses_mac_and_routes_of_an_end_come_from_its_namespace() {
    let claim = "[{interface: eth1, peer: b/r/eth1, mtu: 1400, peerAddresses: [10.0.0.9/30], \
                  peerMac: '02:00:00:00:00:09', peerRoutes: [{dst: 10.9.0.0/16}]}]";
    let claim = pod("a/p", claim, "");
    let back = "[{interface: eth1, peer: a/p/eth1, addresses: [10.0.0.2/30], \
                 peerAddresses: [10.0.0.1/30]}]";
    for (peer, addresses) in [
        (pod("b/r", "[]", "a"), ""),
        (pod("b/r", back, ""), "10.0.0.2/30"),
    ] {
        let links = links(&[claim.clone(), peer]);
        let link = &links[0];
        assert_eq!((&link.barred, &link.problem), (&None, &None));
        assert_eq!(link.mtu.map(Mtu::bytes), Some(1400));
        assert_eq!(
            link.a.addresses,
            [],
            "what b/r says of a/p's end is ignored"
        );
        let at: Vec<String> = link.z.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(at.join(" "), addresses);
        assert_eq!(link.z.routes, []);
        assert_eq!(link.z.mac, crate::link::Mac::derive(link.id, crate::End::Z));
        let (declarer, remark) = &link.remarks.last().unwrap();
        assert_eq!(link.warnings, [], "only the declarer is told");
        assert_eq!(
            (declarer.to_string(), remark.to_string()),
            (
                "a/p".to_owned(),
                "what pod a/p declares of the other end, b/r/eth1, is ignored: addresses, MAC, \
                 routes"
                    .to_owned()
            )
        );
    }
}

#[test]
fn a_claim_takes_no_default_route_and_the_pods_own_declaration_may() {
    let claim = "[{interface: eth1, peer: r/eth1, peerAddresses: [10.0.0.2/30, 11.0.0.1/1, \
                  'fd00::2/64', '2001:db8::1/3'], peerRoutes: [{dst: 0.0.0.0/0, via: 10.0.0.1}, \
                  {dst: 0.0.0.0/1}, {dst: 128.0.0.0/1}, {dst: 10.0.0.0/8}, {dst: '::/0'}, \
                  {dst: '2000::/3'}, {dst: 'fd00::/16'}]}]";
    let links_of = |records: &[PodRecord]| links(records).remove(0);
    let link = links_of(&[pod("b/p", claim, ""), pod("b/r", "[]", "")]);
    let text = |list: &[String]| list.join(" ");
    let routes = |link: &Link| {
        let routes = link.z.routes.iter().map(|route| route.dst.to_string());
        text(&routes.collect::<Vec<_>>())
    };
    let addresses: Vec<String> = link.z.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(text(&addresses), "10.0.0.2/30 fd00::2/64");
    assert_eq!(routes(&link), "10.0.0.0/8 fd00::/16");
    let remark = link.remarks[0].1.to_string();
    assert!(
        remark.ends_with(
            "is ignored: 11.0.0.1/1, 2001:db8::1/3, route 0.0.0.0/0 via 10.0.0.1, route \
             0.0.0.0/1, 3 others"
        ),
        "{remark}"
    );
    let own = "[{interface: eth1, peer: p/eth1, routes: [{dst: 0.0.0.0/0, via: 10.0.0.1}]}]";
    let bare = "[{interface: eth1, peer: r/eth1}]";
    let link = links_of(&[pod("b/p", bare, ""), pod("b/r", own, "")]);
    assert_eq!(
        (routes(&link).as_str(), link.remarks.len()),
        ("0.0.0.0/0", 0)
    );
}

#[test]
fn the_own_declaration_has_an_interface_then_the_namespace_then_the_first() {
    let since = |mut record: PodRecord, since| {
        record.links[0].since = since;
        record
    };
    let claim = "[{interface: eth1, peer: b/r/eth1}]";
    let foreign = since(pod("a/p", claim, ""), 1);
    let late = since(pod("b/y", claim, ""), 3);
    let first = since(pod("b/z", claim, ""), 2);
    let accepting = pod("b/r", "[]", "*");
    let claims = [foreign.clone(), late.clone(), first.clone(), accepting];
    assert_eq!(
        states(&claims),
        ["a/p: interface_taken", "b/y: interface_taken", "b/z: up"]
    );
    let taken = |by: &str| {
        let links = links(&claims);
        let link = links
            .iter()
            .find(|link| link.declared_by[0] == by.parse().unwrap());
        link.unwrap().barred.as_ref().unwrap().to_string()
    };
    assert_eq!(
        taken("b/y"),
        "interface eth1 of pod b/r is that of the link b/r/eth1 — b/z/eth1 (declared by b/z): \
         give the link another one"
    );
    assert!(taken("a/p").contains("is that of another link:"));

    let own = pod("b/r", "[{interface: eth1, peer: w/eth1}]", "*");
    assert_eq!(
        states(&[foreign, late, first, own]),
        [
            "a/p: interface_taken",
            "b/r: up",
            "b/y: interface_taken",
            "b/z: interface_taken"
        ]
    );
}

/// `record` gives its interface eth1 to the one link of `to`.
fn giving(mut record: PodRecord, to: &PodRecord) -> PodRecord {
    let interface = "eth1".parse().unwrap();
    record.given.insert(interface, to.links[0].id());
    record
}

#[test]
fn no_later_claim_takes_an_interface_from_a_link_that_the_pod_has_given_it_to() {
    let foreign = pod("a/p", CLAIM, "");
    let mut later = pod("b/z", CLAIM, "");
    later.links[0].since = 2;
    // Its node's clock is behind.
    let mut other = pod("c/y", CLAIM, "");
    let mut up = foreign.clone();
    up.links[0].since = 1;
    other.links[0].since = 0;
    let accepting = giving(pod("b/r", "[]", "*"), &up);
    let claims = [up.clone(), later.clone(), other.clone()];
    let with = |record: &PodRecord| states(&[&claims[..], std::slice::from_ref(record)].concat());
    let expected = ["a/p: up", "b/z: interface_taken", "c/y: interface_taken"];
    assert_eq!(with(&accepting), expected);
    // It ends with the pod's consent, and before the pod's own declaration.
    let refusing = giving(pod("b/r", "[]", "own-namespace"), &up);
    let expected = ["a/p: no_consent", "b/z: up", "c/y: no_consent"];
    assert_eq!(with(&refusing), expected);
    let own = giving(pod("b/r", "[{interface: eth1, peer: w/eth1}]", "*"), &up);
    assert_eq!(
        with(&own),
        [
            "a/p: interface_taken",
            "b/r: up",
            "b/z: interface_taken",
            "c/y: interface_taken"
        ]
    );
    // A link that is declared no longer has nothing.
    let gone = [later, giving(pod("b/r", "[]", "*"), &up)];
    assert_eq!(states(&gone), ["b/z: up"]);
}

#[test]
fn a_record_says_what_is_given_only_if_something_is() {
    let record = pod("b/r", "[]", "");
    let text = serde_json::to_string(&record).unwrap();
    assert!(!text.contains("given"), "{text}");
    let giving = giving(record, &pod("a/p", CLAIM, ""));
    let text = serde_json::to_string(&giving).unwrap();
    assert!(text.contains("\"given\":{\"eth1\":"), "{text}");
    assert_eq!(serde_json::from_str::<PodRecord>(&text).unwrap(), giving);
}

#[test]
fn no_link_has_the_interface_of_a_pods_network() {
    let mut peer = pod("b/r", "[]", "");
    peer.networks.insert("eth0".parse().unwrap());
    for (interface, state) in [("eth0", "b/p: interface_reserved"), ("eth1", "b/p: up")] {
        let claim = format!("[{{interface: eth1, peer: r/{interface}}}]");
        assert_eq!(states(&[pod("b/p", &claim, ""), peer.clone()]), [state]);
    }
}

#[test]
fn a_claim_of_another_namespace_takes_no_interface_from_a_link_whose_pod_is_gone() {
    let mut gone = pod("b/p", "[{interface: eth1, peer: r/eth1}]", "");
    gone.location = None;
    let squatter = pod("a/p", CLAIM, "");
    let survivor = pod("b/r", "[]", "");
    assert_eq!(
        states(&[gone.clone(), squatter.clone(), survivor]),
        ["a/p: no_consent", "b/p: up"]
    );
    let accepting = pod("b/r", "[]", "own-namespace,a");
    assert_eq!(
        states(&[gone.clone(), squatter, accepting.clone()]),
        ["a/p: interface_taken", "b/p: up"]
    );
    let successor = pod("b/q", "[{interface: eth1, peer: r/eth1}]", "");
    assert_eq!(states(&[gone, successor, accepting]), ["b/q: up"]);
}

#[test]
fn other_namespaces_have_so_many_links_with_a_pod_the_first_ones() {
    let claimant = |number: u64| {
        let links = format!("[{{interface: eth1, peer: b/r/eth{number}}}]");
        let mut record = pod(&format!("a/p{number}"), &links, "*");
        // The last one was the first.
        record.links[0].since = 10 - number;
        record
    };
    let own = "[{interface: eth9, peer: a/p1/eth9}, {interface: eth3, peer: a/p3/eth1}]";
    let mut victim = pod("b/r", own, "*");
    victim.max_foreign_links = Some(2);
    let mut records: Vec<PodRecord> = (1..=5).map(claimant).collect();
    records.push(victim);
    let expected = [
        "a/p1: too_many_foreign_links",
        "a/p2: too_many_foreign_links",
        "a/p3 and b/r: up",
        "a/p4: up",
        "a/p5: up",
        "b/r: up",
    ];
    assert_eq!(states(&records), expected);
    // A link that is up goes before those that were declared first.
    let up = records[0].links[0].id();
    let victim = records.last_mut().unwrap();
    victim.given.insert("eth1".parse().unwrap(), up);
    let expected = [
        "a/p1: up",
        "a/p2: too_many_foreign_links",
        "a/p3 and b/r: up",
        "a/p4: too_many_foreign_links",
        "a/p5: up",
        "b/r: up",
    ];
    assert_eq!(states(&records), expected);
    records.last_mut().unwrap().max_foreign_links = None;
    assert!(states(&records).iter().all(|state| state.ends_with(": up")));
}
