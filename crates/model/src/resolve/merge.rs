//! Brings the declarations of one link together.
//!
//! Addresses, MAC and routes of an end come from that end's namespace. What another pod of the
//! namespace declares of them is a claim: it counts where the end's own pod says nothing, and may
//! not take the place of that pod's default route.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{concerned::EndKey, is_at_home, link::Link};
use crate::{
    WiringKind,
    link::{DeclaredEnd, DeclaredLink, End, Endpoint, Mac, Mtu, Route, Vni},
    names::{LinkId, PodKey},
    reason::Reason,
    text::few,
};

/// The least prefix length of a claimed address or route, IPv4 and IPv6. A few wider ones would
/// together be as good as a default route, and come before it.
const NARROW: (u8, u8) = (8, 16);

/// One link, from everything that is declared of it (at least one declaration), each with its
/// declarer.
pub(super) fn merge(ends: &[EndKey<'_>; 2], declarations: &[(&PodKey, &DeclaredLink)]) -> Link {
    let id = declarations[0].1.id();
    let mut merge = Merge::default();
    let [a, z] = [End::A, End::Z].map(|end| merge.end(id, end, ends[end as usize], declarations));
    let mtus = declarations.iter().map(|(pod, link)| (*pod, link.mtu));
    let mtu = merge.agreed(|| "MTU".to_owned(), mtus.collect(), PartialEq::eq);
    let vnis = declarations.iter().map(|(pod, link)| (*pod, link.vni));
    let vni = merge.agreed(|| "VNI".to_owned(), vnis.collect(), PartialEq::eq);
    let wirings = declarations.iter().map(|(pod, link)| (*pod, link.wiring));
    let wiring = merge.agreed(|| "wiring".to_owned(), wirings.collect(), PartialEq::eq);
    let mut declared_by: Vec<PodKey> = declarations.iter().map(|(pod, _)| (*pod).clone()).collect();
    declared_by.dedup();
    Link {
        id,
        a,
        z,
        mtu,
        vni,
        wiring,
        declared_by,
        barred: None,
        problem: merge.problem.map(Box::new),
        warnings: Vec::new(),
        remarks: merge.remarks,
    }
}

/// What is found while declarations are brought together.
#[derive(Default)]
struct Merge {
    /// The first contradiction.
    problem: Option<Reason>,
    remarks: Vec<(PodKey, Reason)>,
}

impl Merge {
    /// An end of which everything that is declared is known; the rest gets its default.
    fn end(
        &mut self,
        link: LinkId,
        end: End,
        key: EndKey<'_>,
        declarations: &[(&PodKey, &DeclaredLink)],
    ) -> Endpoint {
        let (pod, interface) = key;
        let said = said_of(key, declarations);
        let of_end = |what: &str| format!("{what} of {pod}/{interface}");
        let mut addresses = self.field(
            &said,
            pod,
            || of_end("addresses"),
            |end| &end.addresses,
            // If only the order differs, that of the first declarer stands.
            |one, other| unordered(one) == unordered(other),
        );
        let mac = self.field(&said, pod, || of_end("MAC"), |end| &end.mac, PartialEq::eq);
        let mut routes = self.field(
            &said,
            pod,
            || of_end("routes"),
            |end| &end.routes,
            PartialEq::eq,
        );
        self.narrow(&said, key, &mut addresses, &mut routes);
        self.foreign(&said, key, &addresses, mac, &routes);
        Endpoint {
            pod: pod.clone(),
            interface: interface.clone(),
            addresses: addresses.unwrap_or_default(),
            mac: mac.unwrap_or_else(|| Mac::derive(link, end)),
            routes: routes.unwrap_or_default(),
        }
    }

    /// What the pods of an end's namespace say of it, in one field.
    fn field<T: Clone + Show>(
        &mut self,
        said: &[(&PodKey, &DeclaredEnd)],
        pod: &PodKey,
        what: impl FnOnce() -> String,
        field: impl Fn(&DeclaredEnd) -> &Option<T>,
        agree: impl Fn(&T, &T) -> bool,
    ) -> Option<T> {
        let at_home = said
            .iter()
            .filter(|(declarer, _)| is_at_home(declarer, pod));
        let values = at_home.map(|(declarer, end)| (*declarer, field(end).clone()));
        self.agreed(what, values.collect(), agree)
    }

    /// The first value. Where several pods say something, they must agree.
    fn agreed<T: Show>(
        &mut self,
        what: impl FnOnce() -> String,
        values: Vec<(&PodKey, Option<T>)>,
        agree: impl Fn(&T, &T) -> bool,
    ) -> Option<T> {
        let mut values = values
            .into_iter()
            .filter_map(|(pod, value)| Some((pod, value?)));
        let (first, mine) = values.next()?;
        if let Some((second, theirs)) = values.find(|(_, theirs)| !agree(&mine, theirs)) {
            self.problem
                .get_or_insert_with(|| Reason::DeclarationsContradict {
                    first: first.clone(),
                    second: second.clone(),
                    what: what().into(),
                    one: mine.show().into(),
                    other: theirs.show().into(),
                });
        }
        Some(mine)
    }

    /// Leaves out what only another pod claims and what could take the place of a default route.
    fn narrow(
        &mut self,
        said: &[(&PodKey, &DeclaredEnd)],
        (pod, interface): EndKey<'_>,
        addresses: &mut Option<Vec<IpNet>>,
        routes: &mut Option<Vec<Route>>,
    ) {
        let own = |says: fn(&DeclaredEnd) -> bool| {
            said.iter()
                .any(|(declarer, end)| *declarer == pod && says(end))
        };
        let mut wide = Vec::new();
        if !own(|end| end.addresses.is_some())
            && let Some(addresses) = addresses
        {
            wide.extend(
                addresses
                    .extract_if(.., |net| is_wide(net))
                    .map(|net| net.show()),
            );
        }
        if !own(|end| end.routes.is_some())
            && let Some(routes) = routes
        {
            let taken = routes.extract_if(.., |route| is_wide(&route.dst));
            wide.extend(taken.map(|route| format!("route {}", route.show())));
        }
        let claimant = said.iter().find(|(declarer, _)| is_at_home(declarer, pod));
        if let Some((declarer, _)) = claimant.filter(|_| !wide.is_empty()) {
            let reason = Reason::WideClaimIgnored {
                declarer: (*declarer).clone(),
                end: format!("{pod}/{interface}"),
                what: few(wide.into_iter()).join(", "),
            };
            self.remarks.push(((*declarer).clone(), reason));
        }
    }

    /// Notes what pods of other namespaces say of an end, unless it is so anyway.
    fn foreign(
        &mut self,
        said: &[(&PodKey, &DeclaredEnd)],
        (pod, interface): EndKey<'_>,
        addresses: &Option<Vec<IpNet>>,
        mac: Option<Mac>,
        routes: &Option<Vec<Route>>,
    ) {
        for (declarer, end) in said.iter().filter(|(by, _)| !is_at_home(by, pod)) {
            let said_in_vain = [
                (
                    "addresses",
                    differs(&end.addresses, addresses, |list| unordered(list)),
                ),
                ("MAC", end.mac.is_some() && end.mac != mac),
                ("routes", differs(&end.routes, routes, Vec::clone)),
            ];
            let what: Vec<&str> = said_in_vain
                .into_iter()
                .filter_map(|(what, is_in_vain)| is_in_vain.then_some(what))
                .collect();
            if !what.is_empty() {
                let reason = Reason::ForeignClaimIgnored {
                    declarer: (*declarer).clone(),
                    end: format!("{pod}/{interface}"),
                    what: what.join(", "),
                };
                self.remarks.push(((*declarer).clone(), reason));
            }
        }
    }
}

/// What the declarations say of an end, each with its declarer.
fn said_of<'d>(
    (pod, interface): EndKey<'_>,
    declarations: &[(&'d PodKey, &'d DeclaredLink)],
) -> Vec<(&'d PodKey, &'d DeclaredEnd)> {
    let ends = declarations
        .iter()
        .flat_map(|(declarer, link)| [(*declarer, &link.local), (*declarer, &link.remote)]);
    ends.filter(|(_, end)| end.pod == *pod && end.interface == *interface)
        .collect()
}

fn is_wide(net: &IpNet) -> bool {
    let least = match net {
        IpNet::V4(_) => NARROW.0,
        IpNet::V6(_) => NARROW.1,
    };
    net.prefix_len() < least
}

fn unordered(addresses: &[IpNet]) -> BTreeSet<IpNet> {
    addresses.iter().copied().collect()
}

/// Whether a list is said and is not what counts. An empty one says no more than none.
fn differs<T, C: PartialEq>(
    said: &Option<Vec<T>>,
    counts: &Option<Vec<T>>,
    comparable: impl Fn(&Vec<T>) -> C,
) -> bool {
    let said = said.as_ref().filter(|list| !list.is_empty());
    said.is_some_and(|said| counts.as_ref().map(&comparable) != Some(comparable(said)))
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
show_as_text!(Mac, Mtu, Vni, WiringKind, IpNet);

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
