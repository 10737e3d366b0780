//! From records to links: whether both pods want a link, what their declarations say of it
//! together, and what contradicts.
//!
//! What a pod declares rules over its own end. What it says of another pod's end is a claim
//! (docs/decisions/0038-whose-word-counts.md).
//!
//! Pure, and the same on every node that reads the same records.

mod concerned;
mod consent;
mod link;
mod merge;
mod shared;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::{names::PodKey, record::PodRecord};
use concerned::{Declarations, Declared, EndKey, end_keys};
use consent::Consent;
pub use link::Link;

/// All links that these records declare, sorted by id.
pub fn resolve(records: &BTreeMap<PodKey, PodRecord>) -> Vec<Link> {
    resolve_of(
        &records.keys().cloned().collect(),
        &records.values().collect::<Vec<_>>(),
    )
}

/// The links of these pods, as the records say that concern them: theirs, their neighbours', and
/// those of the neighbours' neighbours. Sorted by id. Other links are only looked at as far as they
/// are in the way of these.
///
/// What a pod that is gone declared stands only as long as no living pod says otherwise: it keeps
/// survivors' interfaces as they are, but contradicts nothing and claims no interface that a living
/// pod of the namespace claims.
pub fn resolve_of(pods: &BTreeSet<PodKey>, records: &[&PodRecord]) -> Vec<Link> {
    let declarations = Declarations::of(records, pods);
    let consent = Consent::of(records);
    let mut links: Vec<(Link, u64)> = declarations
        .living
        .iter()
        .map(|(ends, all)| claimed(ends, all, &declarations, &consent))
        .collect();
    if !declarations.remembered.is_empty() {
        let living = ClaimedEnds::of(&declarations, records, &consent);
        let remembered = declarations.remembered.iter();
        let stand = remembered.filter(|(ends, all)| living.leave(ends, all, &declarations));
        links.extend(stand.map(|(ends, all)| claimed(ends, all, &declarations, &consent)));
    }
    links.sort_by(|(one, _), (other, _)| by_identity(one).cmp(&by_identity(other)));
    let (mut links, since): (Vec<Link>, Vec<u64>) = links.into_iter().unzip();
    shared::find_shared_addresses(&mut links);
    shared::settle_interfaces(&mut links, &since, &consent);
    shared::limit_foreign(&mut links, &since, pods, &consent);
    // A pod that was replaced may still declare the link of its successor: it is one link.
    links.dedup_by(|next, link| {
        let is_same = next.id == link.id;
        if is_same && link.barred.is_some() {
            std::mem::swap(next, link);
        }
        is_same
    });
    links.retain(|link| pods.contains(&link.a.pod) || pods.contains(&link.z.pod));
    links
}

fn by_identity(link: &Link) -> impl Ord + '_ {
    (link.id, &link.a.pod, &link.z.pod)
}

/// A link as it is declared, with what is missing if not both of its pods want it; and since when.
fn claimed<'r>(
    ends: &[EndKey<'r>; 2],
    all: &[Declared<'r>],
    declarations: &Declarations<'r>,
    consent: &Consent<'r>,
) -> (Link, u64) {
    let both = [&declarations.living, &declarations.remembered];
    let declarers: Vec<&PodKey> = both
        .into_iter()
        .flat_map(|by_link| by_link.get(ends).into_iter().flatten())
        .map(|(pod, _)| *pod)
        .collect();
    let link = Link {
        barred: consent.missing(ends, &declarers).map(Box::new),
        ..merge::merge(ends, all)
    };
    let since = all.iter().map(|(_, link)| link.since).min();
    (link, since.unwrap_or(0))
}

/// Ends of remembered links that are also ends of links that living pods declare.
struct ClaimedEnds<'r> {
    /// All of them.
    all: HashSet<EndKey<'r>>,
    /// Those that a pod of the end's namespace declares.
    at_home: HashSet<EndKey<'r>>,
}

impl<'r> ClaimedEnds<'r> {
    fn of(
        declarations: &Declarations<'r>,
        records: &[&'r PodRecord],
        consent: &Consent<'r>,
    ) -> Self {
        let remembered: HashSet<EndKey<'r>> =
            declarations.remembered.keys().flatten().copied().collect();
        let living = records.iter().filter(|record| record.lives());
        let links = living
            .flat_map(|record| record.links.iter().map(|link| (&record.pod, link)))
            .filter(|(_, link)| end_keys(link).iter().any(|end| remembered.contains(end)))
            .filter(|(_, link)| consent.is_given(link));
        let (mut all, mut at_home) = (HashSet::new(), HashSet::new());
        for (declarer, link) in links {
            all.extend(end_keys(link));
            at_home.extend(
                end_keys(link)
                    .into_iter()
                    .filter(|end| is_at_home(declarer, end.0)),
            );
        }
        Self { all, at_home }
    }

    /// Whether they leave a link its ends that only pods which are gone declare. What another
    /// namespace claims does not take an interface from one of the pod's own namespace.
    fn leave(
        &self,
        ends: &[EndKey<'r>; 2],
        declared: &[Declared<'r>],
        declarations: &Declarations<'r>,
    ) -> bool {
        let is_foreign = |pod| {
            !declared
                .iter()
                .any(|(declarer, _)| is_at_home(declarer, pod))
        };
        !declarations.living.contains_key(ends)
            && ends.iter().all(|end| {
                let is_claimed = self.all.contains(end) && is_foreign(end.0);
                !is_claimed && !self.at_home.contains(end)
            })
    }
}

/// Whether two pods are of one namespace: what the one says of the other's end may count.
fn is_at_home(declarer: &PodKey, pod: &PodKey) -> bool {
    declarer.namespace() == pod.namespace()
}
