//! No declaration of a hostile namespace's pods changes anything for a pod that has not consented.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::{option, prelude::*, sample};
use ratchet_model::{
    DeclaredEnd, DeclaredLink, LinkId, Location, Mtu, PodKey, PodRecord, Route, Vni,
    resolve::{Link, resolve},
};

/// The tenant's pods. `t/open` accepts all, the others nothing of the hostile namespace.
const TENANT: [&str; 4] = ["t/a", "t/b", "t/c", "t/open"];
const HOSTILE: [&str; 3] = ["x/a", "x/b", "x/c"];
const INTERFACES: [&str; 4] = ["e0", "e1", "e2", "eth0"];
const ADDRESSES: [&str; 4] = ["10.0.0.1/30", "10.0.0.2/30", "10.0.0.1/1", "fd00::1/64"];
const ROUTES: [&str; 3] = ["0.0.0.0/0", "0.0.0.0/1", "10.9.0.0/16"];
const ACCEPT: [&str; 4] = ["own-namespace", "none", "t/a", "other,t"];

fn some_of(
    texts: &'static [&'static str],
) -> impl Strategy<Value = Option<Vec<&'static str>>> + Clone {
    option::of(sample::subsequence(texts, 0..texts.len()))
}

fn end(pods: &'static [&'static str]) -> impl Strategy<Value = DeclaredEnd> {
    let place = (sample::select(pods), sample::select(&INTERFACES[..]));
    let mac = option::of(Just("02:00:00:00:00:07"));
    let said = (some_of(&ADDRESSES), some_of(&ROUTES), mac);
    (place, said).prop_map(|((pod, interface), (addresses, routes, mac))| {
        let route = |dst: &str| Route {
            dst: dst.parse().unwrap(),
            via: None,
            metric: None,
        };
        DeclaredEnd {
            addresses: addresses.map(|list| list.iter().map(|a| a.parse().unwrap()).collect()),
            routes: routes.map(|list| list.into_iter().map(route).collect()),
            mac: mac.map(|mac| mac.parse().unwrap()),
            ..DeclaredEnd::bare(pod.parse().unwrap(), interface.parse().unwrap())
        }
    })
}

/// A pod with links to these pods.
fn record(pod: &'static str, peers: &'static [&'static str]) -> impl Strategy<Value = PodRecord> {
    let number = |most: u32| option::of(1_300..most);
    let own = sample::select(&INTERFACES[..]);
    let link = (own, end(peers), number(1_400), number(1_303), 0..5u64);
    let links = prop::collection::vec(link, 0..5);
    (links, sample::select(&ACCEPT[..]), any::<bool>()).prop_map(move |(links, accept, lives)| {
        let pod: PodKey = pod.parse().unwrap();
        let links = links
            .into_iter()
            .map(|(own, remote, mtu, vni, since)| DeclaredLink {
                mtu: mtu.map(|mtu| Mtu::try_from(mtu).unwrap()),
                vni: vni.map(|vni| Vni::try_from(vni).unwrap()),
                since,
                ..DeclaredLink::new(DeclaredEnd::bare(pod.clone(), own.parse().unwrap()), remote)
            });
        let mut used = BTreeSet::new();
        let links = links.filter(|link| {
            // A declaration has one link an interface, and none from an interface to itself.
            let ends =
                [&link.local, &link.remote].map(|end| (end.pod.clone(), end.interface.clone()));
            ends[0] != ends[1] && ends.into_iter().all(|end| used.insert(end))
        });
        let location = lives.then(|| Location {
            node: "n1".parse().unwrap(),
            vtep: "10.0.0.1".parse().unwrap(),
            sandbox: "s".parse().unwrap(),
            mtu: Mtu::try_from(1450).unwrap(),
            leaving: false,
        });
        let accept = if pod.name() == "open" { "*" } else { accept };
        PodRecord {
            accept: accept.parse().unwrap(),
            networks: ["eth0".parse().unwrap()].into(),
            ..PodRecord::new(pod.clone(), location, 1, links.collect())
        }
    })
}

fn records(
    pods: &'static [&'static str],
    peers: &'static [&'static str],
) -> impl Strategy<Value = Vec<PodRecord>> {
    let records: Vec<_> = pods.iter().map(|pod| record(pod, peers).boxed()).collect();
    records
}

/// The links that a pod has to do with.
fn of(pod: &str, records: &[PodRecord]) -> Vec<Link> {
    let pod: PodKey = pod.parse().unwrap();
    let records: BTreeMap<PodKey, PodRecord> =
        records.iter().map(|r| (r.pod.clone(), r.clone())).collect();
    let mut links = resolve(&records);
    links.retain(|link| link.concerns(&pod));
    links
}

/// Whether one of these pods lives.
fn lives(records: &[PodRecord], pods: &[PodKey]) -> bool {
    records
        .iter()
        .any(|record| record.lives() && pods.contains(&record.pod))
}

/// The links of a pod that are up.
fn up_of(pod: &PodKey, records: &[PodRecord]) -> BTreeSet<LinkId> {
    let links = of(&pod.to_string(), records).into_iter();
    let up = links.filter(|link| link.barred.is_none());
    up.map(|link| link.id).collect()
}

/// The links of a pod that are up and that its own declaration does not end: of its interfaces it
/// may declare other links itself, whose peers may consent later. The pod and declarers live.
fn up_for_good(pod: &PodKey, records: &[PodRecord]) -> Vec<Link> {
    let record = records.iter().find(|record| record.pod == *pod).unwrap();
    let declared: BTreeSet<LinkId> = record.links.iter().map(DeclaredLink::id).collect();
    let ends = record.links.iter().flat_map(|l| [&l.local, &l.remote]);
    let own: BTreeSet<_> = ends.map(|end| (&end.pod, &end.interface)).collect();
    let is_own = |link: &Link| {
        let mut ends = link.endpoints().into_iter();
        ends.any(|end| own.contains(&(&end.pod, &end.interface)))
    };
    let mut links = of(&pod.to_string(), records);
    links.retain(|link| link.barred.is_none() && lives(records, &link.declared_by));
    links.retain(|link| record.lives() && (declared.contains(&link.id) || !is_own(link)));
    links
}

/// Other pods than this one and those that declare these links, which are up, have other records
/// `later`; and this pod's agent has noted which links are up.
fn changed(
    pod: &PodKey,
    (before, later): (&[PodRecord], &[PodRecord]),
    up: &[Link],
) -> Vec<PodRecord> {
    let declares = |other: &PodKey| up.iter().any(|link| link.declared_by.contains(other));
    let mut records = before.to_vec();
    for record in &mut records {
        if record.pod == *pod {
            let foreign = up.iter().filter(|link| link.is_foreign_to(pod));
            let ends = foreign.flat_map(|link| link.endpoints().map(|end| (end, link.id)));
            let own = ends.filter(|(end, _)| end.pod == *pod);
            record.given = own.map(|(end, id)| (end.interface.clone(), id)).collect();
        } else if let Some(later) = later.iter().find(|later| later.pod == record.pod)
            && !declares(&record.pod)
        {
            record.clone_from(later);
        }
    }
    records
}

const BOTH: [&str; 7] = ["t/a", "t/b", "t/c", "t/open", "x/a", "x/b", "x/c"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn hostile_declarations_change_nothing_for_pods_that_do_not_consent(
        tenant in records(&TENANT, &TENANT),
        hostile in records(&HOSTILE, &BOTH),
    ) {
        let both: Vec<PodRecord> = tenant.iter().chain(&hostile).cloned().collect();
        for pod in TENANT.iter().filter(|pod| **pod != "t/open") {
            prop_assert_eq!(of(pod, &both), of(pod, &tenant), "{}", pod);
        }
        // A pod that accepts all keeps the links of its own namespace, and its own word counts.
        let at_home = |link: &Link| link.a.pod.namespace() == link.z.pod.namespace();
        let named = |links: Vec<Link>| -> Vec<_> {
            let links = links.into_iter().filter(|link| at_home(link));
            links.map(|link| (link.a, link.z, link.barred, link.problem)).collect()
        };
        prop_assert_eq!(named(of("t/open", &both)), named(of("t/open", &tenant)));
        for link in of("t/open", &both).iter().filter(|link| !at_home(link)) {
            let end = if link.a.pod.namespace() == "t" { &link.a } else { &link.z };
            prop_assert!(end.addresses.is_empty() && end.routes.is_empty(), "{:?}", end);
        }
    }

    #[test]
    fn a_claim_never_takes_the_place_of_a_default_route(tenant in records(&TENANT, &TENANT)) {
        for pod in TENANT {
            let key: PodKey = pod.parse().unwrap();
            for link in of(pod, &tenant).iter().filter(|l| !l.declared_by.contains(&key)) {
                for end in link.endpoints().into_iter().filter(|end| end.pod == key) {
                    prop_assert!(end.routes.iter().all(|route| route.dst.prefix_len() >= 8));
                    prop_assert!(end.addresses.iter().all(|net| net.prefix_len() >= 8));
                }
            }
        }
    }

    /// A link that is up, with a pod that accepts all, stays up with any later declaration
    /// and any clocks; and so do those of the pod's namespace when hostile pods declare.
    #[test]
    fn no_later_claim_takes_an_interface_from_a_link_that_is_up(
        tenant in [records(&TENANT, &TENANT), records(&TENANT, &TENANT)],
        hostile in [records(&HOSTILE, &BOTH), records(&HOSTILE, &BOTH)],
    ) {
        let [before, later] = [0, 1].map(|n| [&tenant[n][..], &hostile[n][..]].concat());
        let [_, hostile] = hostile;
        let pod: PodKey = "t/open".parse().unwrap();
        let up = up_for_good(&pod, &before);
        let is_foreign = |link: &&Link| link.is_foreign_to(&pod);
        let is_at_home = |link: &&Link| link.a.pod.namespace() == link.z.pod.namespace();
        let now = up_of(&pod, &changed(&pod, (&before, &later), &up));
        for link in up.iter().filter(is_foreign) {
            prop_assert!(now.contains(&link.id), "{:?}", link);
        }
        let now = up_of(&pod, &changed(&pod, (&before, &hostile), &up));
        for link in up.iter().filter(|link| is_foreign(link) || is_at_home(link)) {
            prop_assert!(now.contains(&link.id), "{:?}", link);
        }
    }

    #[test]
    fn an_interface_has_one_link(all in records(&BOTH, &BOTH)) {
        let records: BTreeMap<PodKey, PodRecord> =
            all.iter().map(|r| (r.pod.clone(), r.clone())).collect();
        let links = resolve(&records);
        let mut taken = BTreeSet::new();
        for end in links.iter().filter(|l| l.barred.is_none()).flat_map(Link::endpoints) {
            prop_assert!(end.interface.as_str() != "eth0");
            prop_assert!(taken.insert((&end.pod, &end.interface)), "{:?}", end);
        }
    }
}
