//! From records to links: what several pods declare of one link is brought together, and what is at odds is found.
//!
//! Pure, and the same on every node that reads the same records.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::{
    link::{DeclaredEnd, DeclaredLink, End, Endpoint, Mac, Mtu, Route, Vni},
    names::{InterfaceName, LinkId, PodKey},
    record::PodRecord,
};

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
    pub declared_by: BTreeSet<PodKey>,
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
///
/// What a pod that has gone declared stands only as long as no living pod says otherwise: it keeps survivors' interfaces as they
/// are, but contradicts nobody and claims no interface that a living pod's declaration claims.
pub fn resolve(records: &BTreeMap<PodKey, PodRecord>) -> Vec<Link> {
    let mut links = declared_by(records.values().filter(|record| record.location.is_some()));
    let known: BTreeSet<LinkId> = links.iter().map(|link| link.id).collect();
    let claimed: BTreeSet<(PodKey, InterfaceName)> = links.iter().flat_map(ends).collect();
    let remembered = declared_by(records.values().filter(|record| record.location.is_none()));
    links.extend(
        remembered
            .into_iter()
            .filter(|link| !known.contains(&link.id) && ends(link).into_iter().all(|end| !claimed.contains(&end))),
    );
    links.sort_by_key(|link| link.id);
    find_shared_interfaces(&mut links);
    find_shared_addresses(&mut links);
    links
}

/// The links that some records declare, each merged from all its declarations.
fn declared_by<'r>(records: impl Iterator<Item = &'r PodRecord>) -> Vec<Link> {
    let mut declared: BTreeMap<LinkId, Vec<(&PodKey, &DeclaredLink)>> = BTreeMap::new();
    for record in records {
        for link in &record.links {
            declared.entry(link.id()).or_default().push((&record.pod, link));
        }
    }
    declared.into_iter().map(|(id, declarations)| merge(id, &declarations)).collect()
}

fn ends(link: &Link) -> [(PodKey, InterfaceName); 2] {
    [&link.a, &link.z].map(|end| (end.pod.clone(), end.interface.clone()))
}

/// Brings the declarations of one link together.
fn merge(id: LinkId, declarations: &[(&PodKey, &DeclaredLink)]) -> Link {
    let mut merged = Merge { problem: None };
    let first = declarations[0].1;
    let sorted = |link: &DeclaredLink| {
        let own_first = (&link.local.pod, &link.local.interface) <= (&link.remote.pod, &link.remote.interface);
        if own_first { (link.local.clone(), link.remote.clone()) } else { (link.remote.clone(), link.local.clone()) }
    };
    let (mut a, mut z) = sorted(first);
    let (mut mtu, mut vni) = (first.mtu, first.vni);
    let origin = declarations[0].0;
    for (declarer, link) in &declarations[1..] {
        let who = (origin, *declarer);
        let (other_a, other_z) = sorted(link);
        for (end, other) in [(&mut a, other_a), (&mut z, other_z)] {
            let at = format!("{}/{}", end.pod, end.interface);
            let unordered = |list: &Option<Vec<_>>| list.as_ref().map(|l| l.iter().cloned().collect::<BTreeSet<_>>());
            if unordered(&end.addresses) == unordered(&other.addresses) {
                // Equal but perhaps in another order: the first declarer's order stands.
            } else {
                merged.take(who, &format!("addresses of {at}"), &mut end.addresses, other.addresses);
            }
            merged.take(who, &format!("MAC of {at}"), &mut end.mac, other.mac);
            merged.take(who, &format!("routes of {at}"), &mut end.routes, other.routes);
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
    Link {
        id,
        a: settle(a, End::A),
        z: settle(z, End::Z),
        mtu,
        vni,
        declared_by: declarations.iter().map(|(pod, _)| (*pod).clone()).collect(),
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
        let via = self.via.map(|via| format!(" via {via}")).unwrap_or_default();
        format!("{}{via}", self.dst)
    }
}

impl<T: Show> Show for Vec<T> {
    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Show::show).collect::<Vec<_>>().join(", "))
    }
}

struct Merge {
    problem: Option<String>,
}

impl Merge {
    /// Takes what the second declaration says where the first is silent; where both speak, they must agree.
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
                     {what} is {} on {first} and {} on {second}; make them agree or declare it on one pod only",
                    mine.show(),
                    theirs.show()
                ));
            }
        }
    }
}

/// One interface can be the end of one link only.
fn find_shared_interfaces(links: &mut [Link]) {
    let mut users: BTreeMap<(PodKey, InterfaceName), Vec<usize>> = BTreeMap::new();
    for (index, link) in links.iter().enumerate() {
        for end in [&link.a, &link.z] {
            users.entry((end.pod.clone(), end.interface.clone())).or_default().push(index);
        }
    }
    for ((pod, interface), users) in users.into_iter().filter(|(_, users)| users.len() > 1) {
        let all = users.iter().map(|index| describe(&links[*index])).collect::<Vec<_>>().join(" and ");
        for index in users {
            links[index].problem.get_or_insert(format!(
                "interface {interface} of pod {pod} is claimed by several links, {all}: give each link an interface of its own"
            ));
        }
    }
}

/// The same address on two pods is possible (the links may never meet) and mostly a slip.
fn find_shared_addresses(links: &mut [Link]) {
    let mut users: BTreeMap<std::net::IpAddr, BTreeSet<(PodKey, InterfaceName, usize)>> = BTreeMap::new();
    for (index, link) in links.iter().enumerate() {
        for end in [&link.a, &link.z] {
            for address in &end.addresses {
                users.entry(address.addr()).or_default().insert((end.pod.clone(), end.interface.clone(), index));
            }
        }
    }
    for (address, users) in users.into_iter().filter(|(_, users)| users.len() > 1) {
        let at = users.iter().map(|(pod, interface, _)| format!("{pod}/{interface}")).collect::<Vec<_>>().join(" and ");
        for index in users.iter().map(|(_, _, index)| *index).collect::<BTreeSet<_>>() {
            links[index].warnings.push(format!("address {address} is given to {at}"));
        }
    }
}

fn describe(link: &Link) -> String {
    let by = link.declared_by.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
    format!("{}/{} — {}/{} (declared by {by})", link.a.pod, link.a.interface, link.z.pod, link.z.interface)
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
            let declared = declare(&pod, &BTreeMap::new(), &annotations).unwrap().unwrap();
            let location = Location {
                node: "n1".parse().unwrap(),
                vtep: "10.0.0.1".parse().unwrap(),
                sandbox: "s".parse().unwrap(),
                mtu: Mtu::try_from(1450).unwrap(),
                leaving: false,
            };
            (pod.clone(), PodRecord { pod, location: Some(location), created: 0, links: declared.links })
        };
        pods.iter().map(record).collect()
    }

    #[test]
    fn what_a_pod_declared_that_has_gone_yields_to_the_living() {
        let mut records = records(&[
            (
                "gone",
                "[{interface: eth1, peer: r2/eth1, mtu: 1300}, {interface: eth2, peer: r2/eth2, mtu: 1300}, {interface: eth3, peer: r2/eth3}]",
            ),
            ("r1", "[{interface: eth1, peer: r2/eth1}]"),
            ("r2", "[{interface: eth2, peer: gone/eth2, mtu: 1400}]"),
        ]);
        records.values_mut().for_each(|record| {
            if record.pod.name() == "gone" {
                record.location = None;
            }
        });
        let links = resolve(&records);
        let described: Vec<String> =
            links.iter().map(|l| format!("{} {} {:?} {:?}", l.a.pod, l.a.interface, l.mtu, l.problem)).collect();
        let mut described: Vec<&str> = described.iter().map(String::as_str).collect();
        described.sort_unstable();
        assert_eq!(
            described,
            [
                // Its claim on r2's eth1 is void, r2's word on eth2 stands alone, and eth3 is remembered.
                "default/gone eth2 Some(Mtu(1400)) None",
                "default/gone eth3 None None",
                "default/r1 eth1 None None",
            ]
        );
    }

    #[test]
    fn two_declarations_complete_each_other() {
        let links = resolve(&records(&[
            ("r1", "[{interface: eth1, peer: r2, addresses: [10.0.0.1/30]}]"),
            ("r2", "[{interface: eth1, peer: r1, addresses: [10.0.0.2/30], mtu: 1400}]"),
        ]));
        assert_eq!(links.len(), 1);
        let link = &links[0];
        assert_eq!((link.problem.as_deref(), link.mtu.unwrap().bytes()), (None, 1400));
        assert_eq!(link.a.addresses[0].to_string(), "10.0.0.1/30");
        assert_eq!(link.z.addresses[0].to_string(), "10.0.0.2/30");
        assert_ne!(link.a.mac, link.z.mac);
    }

    #[test]
    fn the_order_of_addresses_is_no_contradiction() {
        let links = resolve(&records(&[
            ("r1", "[{interface: eth1, peer: r2, addresses: [10.0.0.1/30, 10.1.0.1/30]}]"),
            ("r2", "[{interface: eth1, peer: r1, peerAddresses: [10.1.0.1/30, 10.0.0.1/30]}]"),
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
        assert!(problem.contains("MTU is 1300 on default/r1 and 1400 on default/r2"), "{problem}");
    }

    #[test]
    fn two_links_may_not_share_an_interface() {
        let links = resolve(&records(&[
            ("r1", "[{interface: eth1, peer: r3/eth1}]"),
            ("r2", "[{interface: eth1, peer: r3/eth1}]"),
        ]));
        for link in &links {
            let problem = link.problem.as_deref().unwrap();
            assert!(problem.contains("interface eth1 of pod default/r3 is claimed by several links"), "{problem}");
            assert!(problem.contains("declared by default/r1") && problem.contains("declared by default/r2"));
        }
    }

    #[test]
    fn one_address_on_two_pods_is_warned_about() {
        let links = resolve(&records(&[(
            "r1",
            "[{interface: eth1, peer: r2, addresses: [10.0.0.1/30], peerAddresses: [10.0.0.1/30]}]",
        )]));
        assert_eq!(links[0].problem, None);
        assert_eq!(links[0].warnings, ["address 10.0.0.1 is given to default/r1/eth1 and default/r2/eth1"]);
    }
}
