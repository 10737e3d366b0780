//! Brings the declarations of one link together.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::link::Link;
use crate::{
    link::{DeclaredEnd, DeclaredLink, End, Endpoint, Mac, Mtu, Route, Vni},
    names::{LinkId, PodKey},
    reason::Reason,
};

/// One link, from everything that is declared of it (at least one declaration), each with its
/// declarer.
pub(super) fn merge(declarations: &[(&PodKey, &DeclaredLink)]) -> Link {
    let (origin, first) = declarations[0];
    let id = first.id();
    let mut merged = Merge { problem: None };
    let (mut a, mut z) = sorted_ends(first);
    let (mut mtu, mut vni) = (first.mtu, first.vni);
    for (declarer, link) in &declarations[1..] {
        let who = (origin, *declarer);
        let (other_a, other_z) = sorted_ends(link);
        merged.take_end(who, &mut a, other_a);
        merged.take_end(who, &mut z, other_z);
        merged.take(who, || "MTU".to_owned(), &mut mtu, link.mtu);
        merged.take(who, || "VNI".to_owned(), &mut vni, link.vni);
    }
    let mut declared_by: Vec<PodKey> = declarations.iter().map(|(pod, _)| (*pod).clone()).collect();
    declared_by.dedup();
    Link {
        id,
        a: settle(a, id, End::A),
        z: settle(z, id, End::Z),
        mtu,
        vni,
        declared_by,
        problem: merged.problem,
        warnings: Vec::new(),
    }
}

/// A declared link's ends in the order of the link's: a, z.
fn sorted_ends(link: &DeclaredLink) -> (DeclaredEnd, DeclaredEnd) {
    let own_first =
        (&link.local.pod, &link.local.interface) <= (&link.remote.pod, &link.remote.interface);
    if own_first {
        (link.local.clone(), link.remote.clone())
    } else {
        (link.remote.clone(), link.local.clone())
    }
}

/// An end of which everything that is declared is known; the rest gets its default.
fn settle(declared: DeclaredEnd, link: LinkId, end: End) -> Endpoint {
    Endpoint {
        mac: declared.mac.unwrap_or_else(|| Mac::derive(link, end)),
        pod: declared.pod,
        interface: declared.interface,
        addresses: declared.addresses.unwrap_or_default(),
        routes: declared.routes.unwrap_or_default(),
    }
}

/// What two declarations say differently: the first contradiction.
struct Merge {
    problem: Option<Box<Reason>>,
}

impl Merge {
    /// Takes what the second declaration says of an end.
    fn take_end(&mut self, who: (&PodKey, &PodKey), end: &mut DeclaredEnd, other: DeclaredEnd) {
        let DeclaredEnd {
            pod,
            interface,
            addresses,
            mac,
            routes,
        } = end;
        let of_end = |what: &str| format!("{what} of {pod}/{interface}");
        // If only the order differs, that of the first declarer stands.
        if unordered(addresses) != unordered(&other.addresses) {
            self.take(who, || of_end("addresses"), addresses, other.addresses);
        }
        self.take(who, || of_end("MAC"), mac, other.mac);
        self.take(who, || of_end("routes"), routes, other.routes);
    }

    /// Takes what the second declaration says where the first says nothing. Where both say
    /// something, they must agree.
    fn take<T: PartialEq + Show>(
        &mut self,
        (first, second): (&PodKey, &PodKey),
        what: impl FnOnce() -> String,
        mine: &mut Option<T>,
        theirs: Option<T>,
    ) {
        match (&mine, theirs) {
            (_, None) => {}
            (None, theirs) => *mine = theirs,
            (Some(mine), Some(theirs)) if *mine == theirs => {}
            (Some(mine), Some(theirs)) => {
                self.problem.get_or_insert_with(|| {
                    Box::new(Reason::DeclarationsContradict {
                        first: first.clone(),
                        second: second.clone(),
                        what: what().into(),
                        one: mine.show().into(),
                        other: theirs.show().into(),
                    })
                });
            }
        }
    }
}

fn unordered(addresses: &Option<Vec<IpNet>>) -> Option<BTreeSet<&IpNet>> {
    addresses.as_ref().map(|list| list.iter().collect())
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
