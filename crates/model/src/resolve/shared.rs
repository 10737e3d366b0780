//! Finds what several links claim: interfaces, which only one can have, and addresses, which is
//! worth a warning.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{concerned::EndKey, consent::Consent, link::Link};
use crate::{link::Endpoint, names::PodKey, reason::Reason, text::few};

/// An interface can be the end of one link only: the pod's own declaration has it before others,
/// then the link that the pod has given it to, then claims of the pod's namespace, then the first.
/// The other links are barred, and so are those that claim an interface which is the pod's own.
pub(super) fn settle_interfaces(links: &mut [Link], since: &[u64], consent: &Consent<'_>) {
    let mut users: BTreeMap<EndKey<'_>, Vec<usize>> = BTreeMap::new();
    for (number, link) in links.iter().enumerate().filter(|(_, l)| l.barred.is_none()) {
        for end in link.endpoints() {
            users.entry(key(end)).or_default().push(number);
        }
    }
    let mut barred: Vec<(usize, Reason)> = Vec::new();
    for ((pod, interface), users) in users {
        if consent.is_reserved(pod, interface) {
            let reason = Reason::InterfaceReserved {
                pod: pod.clone(),
                interface: interface.clone(),
            };
            barred.extend(users.into_iter().map(|user| (user, reason.clone())));
            continue;
        }
        let rank = |user: &&usize| {
            let link = &links[**user];
            let class = class(link, pod);
            let is_given = consent.has_given((pod, interface), link.id);
            let rank = (class != OWN, !is_given, class);
            (rank, since[**user], &link.declared_by, link.id)
        };
        let Some(first) = users.iter().min_by_key(rank).copied() else {
            continue;
        };
        for user in users.into_iter().filter(|user| *user != first) {
            // Other namespaces need not know who is linked with whom.
            let is_foreign = class(&links[user], pod) == FOREIGN;
            let reason = Reason::InterfaceTaken {
                pod: pod.clone(),
                interface: interface.clone(),
                link: match is_foreign {
                    false => format!("the link {}", describe(&links[first])),
                    true => "another link".to_owned(),
                },
            };
            barred.push((user, reason));
        }
    }
    bar(links, barred);
}

/// Pods of other namespaces have so many links with each of these pods that it does not declare:
/// those that it has given an interface to, then the first ones. All links of these pods must be
/// here.
pub(super) fn limit_foreign(
    links: &mut [Link],
    since: &[u64],
    pods: &BTreeSet<PodKey>,
    consent: &Consent<'_>,
) {
    let mut foreign: BTreeMap<&PodKey, Vec<usize>> = BTreeMap::new();
    for (number, link) in links.iter().enumerate().filter(|(_, l)| l.barred.is_none()) {
        for pod in [&link.a.pod, &link.z.pod] {
            if pods.contains(pod) && class(link, pod) == FOREIGN {
                foreign.entry(pod).or_default().push(number);
            }
        }
    }
    let mut barred = Vec::new();
    for (pod, mut numbers) in foreign {
        let limit = consent.foreign_links(pod);
        if numbers.len() > limit {
            let is_given = |link: &Link| {
                let mut ends = link.endpoints().into_iter().map(key);
                ends.any(|end| end.0 == pod && consent.has_given(end, link.id))
            };
            numbers.sort_by_key(|number| {
                let link = &links[*number];
                (!is_given(link), since[*number], link.id)
            });
            let pod = pod.clone();
            let reason = Reason::TooManyForeignLinks { pod, limit };
            let rest = numbers.drain(limit..);
            barred.extend(rest.map(|number| (number, reason.clone())));
        }
    }
    bar(links, barred);
}

/// Bars links, by number, that were not barred before.
fn bar(links: &mut [Link], barred: Vec<(usize, Reason)>) {
    for (number, reason) in barred {
        links[number].barred.get_or_insert_with(|| Box::new(reason));
    }
}

/// The class of links that a pod itself declares.
const OWN: u8 = 0;

/// The class of links that others of its namespace declare.
const AT_HOME: u8 = 1;

/// The class of links that only pods of other namespaces declare.
const FOREIGN: u8 = 2;

fn class(link: &Link, pod: &PodKey) -> u8 {
    if link.declared_by.contains(pod) {
        OWN
    } else if link.is_foreign_to(pod) {
        FOREIGN
    } else {
        AT_HOME
    }
}

/// The same address on both ends of a link, or on two links that meet in a pod, is possible and
/// mostly a mistake: warns of it. Links that do not meet may belong to labs that know nothing of
/// each other, and what pods of another namespace do is no matter of a link that they are not at.
pub(super) fn find_shared_addresses(links: &mut [Link]) {
    let mut shared: BTreeMap<(usize, IpAddr), BTreeSet<EndKey<'_>>> = BTreeMap::new();
    for ((address, _), users) in users_of_repeated_addresses(links) {
        let ends: BTreeSet<EndKey<'_>> = users.iter().map(|(_, end)| *end).collect();
        for (number, _) in users {
            let own = links[number].endpoints().map(|end| end.pod.namespace());
            let is_known = |end: &&EndKey<'_>| own.contains(&end.0.namespace());
            let known: BTreeSet<EndKey<'_>> = ends.iter().filter(is_known).copied().collect();
            if known.len() > 1 {
                shared.entry((number, address)).or_default().extend(known);
            }
        }
    }
    let warn = |((number, address), ends): ((usize, IpAddr), BTreeSet<EndKey<'_>>)| {
        let ends = ends
            .iter()
            .map(|(pod, interface)| format!("{pod}/{interface}"));
        let ends = few(ends).join(" and ");
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
    let open = || {
        links
            .iter()
            .enumerate()
            .filter(|(_, link)| link.barred.is_none())
    };
    for address in open()
        .flat_map(|(_, link)| link.endpoints())
        .flat_map(addresses)
    {
        *count.entry(address).or_default() += 1;
    }
    let mut users: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (number, link) in open() {
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
