//! Which declarations matter for some pods' links. What follows from them is decided elsewhere.

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

/// An end of a link. Two of them identify the link.
pub(super) type EndKey<'r> = (&'r PodKey, &'r InterfaceName);

/// The two ends of a declared link, in the order of the link's.
pub(super) fn end_keys(link: &DeclaredLink) -> [EndKey<'_>; 2] {
    link.ends().map(|end| (&end.pod, &end.interface))
}

/// What one pod declares of a link.
pub(super) type Declared<'r> = (&'r PodKey, &'r DeclaredLink);

/// What is declared of links, each with its declarers.
#[derive(Default)]
pub(super) struct Declarations<'r> {
    /// By pods that are alive.
    pub living: HashMap<[EndKey<'r>; 2], Vec<Declared<'r>>>,
    /// By pods that are gone.
    pub remembered: HashMap<[EndKey<'r>; 2], Vec<Declared<'r>>>,
}

impl<'r> Declarations<'r> {
    /// Those of the links of these pods, and of links that may be in their way.
    pub fn of(records: &[&'r PodRecord], pods: &BTreeSet<PodKey>) -> Self {
        let all = || records.iter().flat_map(|record| &record.links);
        let mut near = Near::default();
        all()
            .filter(|link| pods.contains(&link.local.pod) || pods.contains(&link.remote.pod))
            .for_each(|l| near.add(l));
        let concerned: HashSet<[EndKey<'r>; 2]> = all()
            .filter(|link| near.concerns(link))
            .map(end_keys)
            .collect();
        let mut declarations = Self::default();
        for record in records {
            let by_link = if record.lives() {
                &mut declarations.living
            } else {
                &mut declarations.remembered
            };
            for link in &record.links {
                let ends = end_keys(link);
                if concerned.contains(&ends) {
                    by_link.entry(ends).or_default().push((&record.pod, link));
                }
            }
        }
        declarations
    }
}

/// What some links use. Another link that uses the same may be in their way.
#[derive(Default)]
struct Near<'r> {
    pods: HashSet<&'r PodKey>,
    ends: HashSet<EndKey<'r>>,
    addresses: HashSet<IpAddr>,
}

impl<'r> Near<'r> {
    fn add(&mut self, link: &'r DeclaredLink) {
        self.ends.extend(end_keys(link));
        self.pods.extend([&link.local.pod, &link.remote.pod]);
        self.addresses.extend(addresses(link));
    }

    fn concerns(&self, link: &'r DeclaredLink) -> bool {
        end_keys(link).iter().any(|end| self.ends.contains(end))
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
