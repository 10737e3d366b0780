//! From records to links: what several pods declare of one link is brought together, and what is at
//! odds is found.
//!
//! Pure, and the same on every node that reads the same records.

mod concerned;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    link::{DeclaredEnd, DeclaredLink, End, Endpoint, Mac, Mtu, Route, Vni},
    names::{LinkId, PodKey},
    record::PodRecord,
};
use concerned::{Declarations, Place, places};

/// So many of the ends that share an address are named in a warning.
const SHOWN: usize = 4;

/// A link, as all declarations of it together say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: LinkId,
    /// The endpoint that sorts first.
    pub a: Endpoint,
    /// The other one.
    pub z: Endpoint,
    /// The MTU that was set, if one was.
    pub mtu: Option<Mtu>,
    /// The VNI that was set, if one was.
    pub vni: Option<Vni>,
    /// The pods that declare it.
    pub declared_by: Vec<PodKey>,
    /// Why it cannot be wired: its declarations contradict each other or another link's.
    pub problem: Option<String>,
    /// What will probably not work as the user hopes.
    pub warnings: Vec<String>,
}

impl Link {
    /// One of the endpoints.
    pub fn endpoint(&self, end: End) -> &Endpoint {
        match end {
            End::A => &self.a,
            End::Z => &self.z,
        }
    }
}

/// All links that these records declare, sorted by id.
pub fn resolve(records: &BTreeMap<PodKey, PodRecord>) -> Vec<Link> {
    resolve_of(
        &records.keys().cloned().collect(),
        &records.values().collect::<Vec<_>>(),
    )
}

/// The links of these pods, as the records say that concern them: theirs, their neighbours', and
/// those of the neighbours' neighbours. Sorted by id. Others' links are only looked at as far as
/// they are in the way of these.
///
/// What a pod that has gone declared stands only as long as no living pod says otherwise: it keeps
/// survivors' interfaces as they are, but contradicts nobody and claims no interface that a living
/// pod's declaration claims.
pub fn resolve_of(pods: &BTreeSet<PodKey>, records: &[&PodRecord]) -> Vec<Link> {
    let declarations = Declarations::of(records, pods);
    let mut links: Vec<Link> = declarations.living.values().map(|all| merge(all)).collect();
    if !declarations.remembered.is_empty() {
        let living = records.iter().filter(|record| record.lives());
        let claimed: HashSet<Place<'_>> = living
            .flat_map(|record| &record.links)
            .flat_map(places)
            .collect();
        let remembered = declarations.remembered.iter();
        let stand =
            remembered.filter(|(places, _)| places.iter().all(|place| !claimed.contains(place)));
        links.extend(stand.map(|(_, all)| merge(all)));
    }
    links.sort_by_key(|link| link.id);
    find_shared_interfaces(&mut links);
    find_shared_addresses(&mut links);
    links.retain(|link| pods.contains(&link.a.pod) || pods.contains(&link.z.pod));
    links
}

/// Brings the declarations of one link together.
fn merge(declarations: &[(&PodKey, &DeclaredLink)]) -> Link {
    let mut merged = Merge { problem: None };
    let first = declarations[0].1;
    let id = first.id();
    let sorted = |link: &DeclaredLink| {
        let own_first =
            (&link.local.pod, &link.local.interface) <= (&link.remote.pod, &link.remote.interface);
        if own_first {
            (link.local.clone(), link.remote.clone())
        } else {
            (link.remote.clone(), link.local.clone())
        }
    };
    let (mut a, mut z) = sorted(first);
    let (mut mtu, mut vni) = (first.mtu, first.vni);
    let origin = declarations[0].0;
    for (declarer, link) in &declarations[1..] {
        let who = (origin, *declarer);
        let (other_a, other_z) = sorted(link);
        for (end, other) in [(&mut a, other_a), (&mut z, other_z)] {
            let at = format!("{}/{}", end.pod, end.interface);
            let unordered = |list: &Option<Vec<_>>| {
                list.as_ref()
                    .map(|l| l.iter().cloned().collect::<BTreeSet<_>>())
            };
            if unordered(&end.addresses) == unordered(&other.addresses) {
                // Equal but perhaps in another order: the first declarer's order stands.
            } else {
                merged.take(
                    who,
                    &format!("addresses of {at}"),
                    &mut end.addresses,
                    other.addresses,
                );
            }
            merged.take(who, &format!("MAC of {at}"), &mut end.mac, other.mac);
            merged.take(
                who,
                &format!("routes of {at}"),
                &mut end.routes,
                other.routes,
            );
        }
        merged.take(who, "MTU", &mut mtu, link.mtu);
        merged.take(who, "VNI", &mut vni, link.vni);
    }
    let settle = |declared: DeclaredEnd, end: End| Endpoint {
        mac: declared.mac.unwrap_or_else(|| Mac::derive(id, end)),
        pod: declared.pod,
        interface: declared.interface,
        addresses: declared.addresses.unwrap_or_default(),
        routes: declared.routes.unwrap_or_default(),
    };
    let mut declared_by: Vec<PodKey> = declarations.iter().map(|(pod, _)| (*pod).clone()).collect();
    declared_by.dedup();
    Link {
        id,
        a: settle(a, End::A),
        z: settle(z, End::Z),
        mtu,
        vni,
        declared_by,
        problem: merged.problem,
        warnings: Vec::new(),
    }
}

/// A value for a message, as a user would write it.
trait Show {
    fn show(&self) -> String;
}

macro_rules! show_as_text {
    ($($name:ty),*) => {$(
        impl Show for $name {
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
show_as_text!(Mac, Mtu, Vni, IpNet);

impl Show for Route {
    fn show(&self) -> String {
        let via = self
            .via
            .map(|via| format!(" via {via}"))
            .unwrap_or_default();
        format!("{}{via}", self.dst)
    }
}

impl<T: Show> Show for Vec<T> {
    fn show(&self) -> String {
        format!(
            "[{}]",
            self.iter().map(Show::show).collect::<Vec<_>>().join(", ")
        )
    }
}

struct Merge {
    problem: Option<String>,
}

impl Merge {
    /// Takes what the second declaration says where the first is silent; where both speak, they
    /// must agree.
    fn take<T: PartialEq + Show>(
        &mut self,
        (first, second): (&PodKey, &PodKey),
        what: &str,
        mine: &mut Option<T>,
        theirs: Option<T>,
    ) {
        match (&mine, theirs) {
            (_, None) => {}
            (None, theirs) => *mine = theirs,
            (Some(mine), Some(theirs)) if *mine == theirs => {}
            (Some(mine), Some(theirs)) => {
                self.problem.get_or_insert(format!(
                    "pods {first} and {second} both declare this link and contradict each other: \
                     {what} is {} on {first} and {} on {second}; make them agree or declare it on \
                     one pod only",
                    mine.show(),
                    theirs.show()
                ));
            }
        }
    }
}

/// One interface can be the end of one link only.
fn find_shared_interfaces(links: &mut [Link]) {
    let mut users: BTreeMap<Place<'_>, Vec<usize>> = BTreeMap::new();
    for (index, link) in links.iter().enumerate() {
        for end in [&link.a, &link.z] {
            users
                .entry((&end.pod, &end.interface))
                .or_default()
                .push(index);
        }
    }
    let mut problems: Vec<(usize, String)> = Vec::new();
    for ((pod, interface), users) in users.into_iter().filter(|(_, users)| users.len() > 1) {
        let all = users
            .iter()
            .map(|index| describe(&links[*index]))
            .collect::<Vec<_>>()
            .join(" and ");
        let text = format!(
            "interface {interface} of pod {pod} is claimed by several links, {all}: give each link \
             an interface of its own"
        );
        problems.extend(users.into_iter().map(|index| (index, text.clone())));
    }
    for (index, text) in problems {
        links[index].problem.get_or_insert(text);
    }
}

/// The same address on both ends of a link, or on two links that meet in a pod, is possible and
/// mostly a slip. Links that do not meet may belong to labs that know nothing of each other.
fn find_shared_addresses(links: &mut [Link]) {
    let mut count: HashMap<IpAddr, usize> = HashMap::new();
    let addresses = |end: &Endpoint| {
        end.addresses
            .iter()
            .map(IpNet::addr)
            .collect::<BTreeSet<_>>()
    };
    for address in links
        .iter()
        .flat_map(|link| [&link.a, &link.z])
        .flat_map(addresses)
    {
        *count.entry(address).or_default() += 1;
    }
    // By the pod in which they meet: the links, and the ends that have the address.
    let mut users: BTreeMap<(IpAddr, &PodKey), Vec<(usize, Place<'_>)>> = BTreeMap::new();
    for (index, link) in links.iter().enumerate() {
        for end in [&link.a, &link.z] {
            for address in addresses(end)
                .into_iter()
                .filter(|address| count[address] > 1)
            {
                for pod in BTreeSet::from([&link.a.pod, &link.z.pod]) {
                    users
                        .entry((address, pod))
                        .or_default()
                        .push((index, (&end.pod, &end.interface)));
                }
            }
        }
    }
    let mut shared: BTreeMap<(usize, IpAddr), BTreeSet<Place<'_>>> = BTreeMap::new();
    for ((address, _), users) in users {
        let places: BTreeSet<Place<'_>> = users.iter().map(|(_, place)| *place).collect();
        if places.len() > 1 {
            for (index, _) in users {
                shared.entry((index, address)).or_default().extend(&places);
            }
        }
    }
    let warn = |((index, address), places): ((usize, IpAddr), BTreeSet<Place<'_>>)| {
        let mut at: Vec<String> = places
            .iter()
            .take(SHOWN)
            .map(|(pod, interface)| format!("{pod}/{interface}"))
            .collect();
        at.extend((places.len() > SHOWN).then(|| format!("{} others", places.len() - SHOWN)));
        (
            index,
            format!("address {address} is given to {}", at.join(" and ")),
        )
    };
    let warnings: Vec<(usize, String)> = shared.into_iter().map(warn).collect();
    for (index, warning) in warnings {
        links[index].warnings.push(warning);
    }
}

fn describe(link: &Link) -> String {
    let by = link
        .declared_by
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" and ");
    format!(
        "{}/{} — {}/{} (declared by {by})",
        link.a.pod, link.a.interface, link.z.pod, link.z.interface
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        declaration::{LINKS, declare},
        record::Location,
    };

    /// Records of pods with their `ratchet.dev/links`.
    fn records(pods: &[(&str, &str)]) -> BTreeMap<PodKey, PodRecord> {
        let record = |(name, links): &(&str, &str)| {
            let pod = PodKey::new("default", name).unwrap();
            let annotations = [(LINKS.to_string(), links.to_string())].into();
            let declared = declare(&pod, &BTreeMap::new(), &annotations)
                .unwrap()
                .unwrap();
            let location = Location {
                node: "n1".parse().unwrap(),
                vtep: "10.0.0.1".parse().unwrap(),
                sandbox: "s".parse().unwrap(),
                mtu: Mtu::try_from(1450).unwrap(),
                leaving: false,
            };
            (
                pod.clone(),
                PodRecord {
                    pod,
                    location: Some(location),
                    created: 0,
                    links: declared.links,
                },
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
        assert_eq!(
            (link.problem.as_deref(), link.mtu.unwrap().bytes()),
            (None, 1400)
        );
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
        let problem = links[0].problem.as_deref().unwrap();
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
        for link in &links {
            let problem = link.problem.as_deref().unwrap();
            assert!(
                problem.contains("interface eth1 of pod default/r3 is claimed by several links"),
                "{problem}"
            );
            assert!(
                problem.contains("declared by default/r1")
                    && problem.contains("declared by default/r2")
            );
        }
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
            all.iter().any(|link| link.problem.is_some())
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
        assert!(
            links.iter().all(|link| link.warnings == [expected]),
            "{links:?}"
        );
    }

    #[test]
    fn one_address_on_two_pods_is_warned_about() {
        let links = resolve(&records(&[(
            "r1",
            "[{interface: eth1, peer: r2, addresses: [10.0.0.1/30], peerAddresses: [10.0.0.1/30]}]",
        )]));
        assert_eq!(links[0].problem, None);
        assert_eq!(
            links[0].warnings,
            ["address 10.0.0.1 is given to default/r1/eth1 and default/r2/eth1"]
        );
    }
}
