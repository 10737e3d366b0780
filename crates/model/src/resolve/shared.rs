//! Finds what several links claim: interfaces, which contradicts, and addresses, which is worth a
//! warning.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{concerned::EndKey, link::Link};
use crate::{link::Endpoint, names::PodKey, reason::Reason};

/// So many of the ends that share an address are named in a warning.
const SHOWN: usize = 4;

/// An interface can be the end of one link only: sets the problem of links that share one.
pub(super) fn find_shared_interfaces(links: &mut [Link]) {
    let mut users: BTreeMap<EndKey<'_>, Vec<usize>> = BTreeMap::new();
    for (number, link) in links.iter().enumerate() {
        for end in link.endpoints() {
            users.entry(key(end)).or_default().push(number);
        }
    }
    let mut problems: Vec<(usize, Reason)> = Vec::new();
    for ((pod, interface), users) in users.into_iter().filter(|(_, users)| users.len() > 1) {
        let all = users
            .iter()
            .map(|number| describe(&links[*number]))
            .collect::<Vec<_>>()
            .join(" and ");
        let reason = Reason::InterfaceShared {
            pod: pod.clone(),
            interface: interface.clone(),
            links: all,
        };
        problems.extend(users.into_iter().map(|number| (number, reason.clone())));
    }
    for (number, reason) in problems {
        links[number]
            .problem
            .get_or_insert_with(|| Box::new(reason));
    }
}

/// The same address on both ends of a link, or on two links that meet in a pod, is possible and
/// mostly a mistake: warns of it. Links that do not meet may belong to labs that know nothing of
/// each other.
pub(super) fn find_shared_addresses(links: &mut [Link]) {
    let mut shared: BTreeMap<(usize, IpAddr), BTreeSet<EndKey<'_>>> = BTreeMap::new();
    for ((address, _), users) in users_of_repeated_addresses(links) {
        let ends: BTreeSet<EndKey<'_>> = users.iter().map(|(_, end)| *end).collect();
        if ends.len() > 1 {
            for (number, _) in users {
                shared.entry((number, address)).or_default().extend(&ends);
            }
        }
    }
    let warn = |((number, address), ends): ((usize, IpAddr), BTreeSet<EndKey<'_>>)| {
        let mut at: Vec<String> = ends
            .iter()
            .take(SHOWN)
            .map(|(pod, interface)| format!("{pod}/{interface}"))
            .collect();
        at.extend((ends.len() > SHOWN).then(|| format!("{} others", ends.len() - SHOWN)));
        let ends = at.join(" and ");
        (number, Reason::AddressShared { address, ends })
    };
    let warnings: Vec<(usize, Reason)> = shared.into_iter().map(warn).collect();
    for (number, warning) in warnings {
        links[number].warnings.push(warning);
    }
}

/// For each address that occurs more than once and each pod whose links have it: the links, by
/// number, and their ends that have it.
fn users_of_repeated_addresses(
    links: &[Link],
) -> BTreeMap<(IpAddr, &PodKey), Vec<(usize, EndKey<'_>)>> {
    let mut count: HashMap<IpAddr, usize> = HashMap::new();
    for address in links.iter().flat_map(Link::endpoints).flat_map(addresses) {
        *count.entry(address).or_default() += 1;
    }
    let mut users: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (number, link) in links.iter().enumerate() {
        let both = [&link.a.pod, &link.z.pod];
        let pods = if both[0] == both[1] {
            &both[..1]
        } else {
            &both
        };
        for end in link.endpoints() {
            let repeated = addresses(end)
                .into_iter()
                .filter(|address| count[address] > 1);
            for address in repeated {
                for pod in pods {
                    users
                        .entry((address, *pod))
                        .or_default()
                        .push((number, key(end)));
                }
            }
        }
    }
    users
}

fn addresses(end: &Endpoint) -> BTreeSet<IpAddr> {
    end.addresses.iter().map(IpNet::addr).collect()
}

fn key(end: &Endpoint) -> EndKey<'_> {
    (&end.pod, &end.interface)
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
