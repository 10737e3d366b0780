//! Which declarations have a say about some pods' links. What they come to is for the module above.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    link::DeclaredLink,
    names::{InterfaceName, PodKey},
    record::PodRecord,
};

/// An end of a link: nothing else tells links apart.
pub(super) type Place<'r> = (&'r PodKey, &'r InterfaceName);

/// The two ends of a declared link, in the order of the link's.
pub(super) fn places(link: &DeclaredLink) -> [Place<'_>; 2] {
    let mut places = [&link.local, &link.remote].map(|end| (&end.pod, &end.interface));
    places.sort_unstable();
    places
}

/// What is declared of links, each with its declarers.
#[derive(Default)]
pub(super) struct Declarations<'r> {
    pub living: HashMap<[Place<'r>; 2], Vec<(&'r PodKey, &'r DeclaredLink)>>,
    /// By pods that have gone.
    pub remembered: HashMap<[Place<'r>; 2], Vec<(&'r PodKey, &'r DeclaredLink)>>,
}

impl<'r> Declarations<'r> {
    /// Of the links of these pods, and of those that may be in their way.
    pub fn of(records: &[&'r PodRecord], pods: &BTreeSet<PodKey>) -> Self {
        let all = || records.iter().flat_map(|record| &record.links);
        let mut near = Near::default();
        all()
            .filter(|link| pods.contains(&link.local.pod) || pods.contains(&link.remote.pod))
            .for_each(|l| near.add(l));
        let concerned: HashSet<[Place<'r>; 2]> = all()
            .filter(|link| near.concerns(link))
            .map(places)
            .collect();
        let mut declarations = Self::default();
        for record in records {
            let by_link = if record.lives() {
                &mut declarations.living
            } else {
                &mut declarations.remembered
            };
            for link in &record.links {
                let places = places(link);
                if concerned.contains(&places) {
                    by_link.entry(places).or_default().push((&record.pod, link));
                }
            }
        }
        declarations
    }
}

/// What tells which links may be in the way of some.
#[derive(Default)]
struct Near<'r> {
    pods: HashSet<&'r PodKey>,
    places: HashSet<Place<'r>>,
    addresses: HashSet<IpAddr>,
}

impl<'r> Near<'r> {
    fn add(&mut self, link: &'r DeclaredLink) {
        self.places.extend(places(link));
        self.pods.extend([&link.local.pod, &link.remote.pod]);
        self.addresses.extend(addresses(link));
    }

    fn concerns(&self, link: &'r DeclaredLink) -> bool {
        places(link).iter().any(|place| self.places.contains(place))
            || [&link.local.pod, &link.remote.pod]
                .iter()
                .any(|pod| self.pods.contains(pod))
                && addresses(link).any(|address| self.addresses.contains(&address))
    }
}

fn addresses(link: &DeclaredLink) -> impl Iterator<Item = IpAddr> {
    [&link.local, &link.remote]
        .into_iter()
        .flat_map(|end| end.addresses.iter().flatten())
        .map(IpNet::addr)
}
