//! From records to links: brings together what several pods declare of one link, and finds what
//! contradicts.
//!
//! Pure, and the same on every node that reads the same records.

mod concerned;
mod link;
mod merge;
mod shared;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::{names::PodKey, record::PodRecord};
use concerned::{Declarations, EndKey, end_keys};
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
/// pod's declaration claims.
pub fn resolve_of(pods: &BTreeSet<PodKey>, records: &[&PodRecord]) -> Vec<Link> {
    let declarations = Declarations::of(records, pods);
    let mut links: Vec<Link> = declarations
        .living
        .values()
        .map(|all| merge::merge(all))
        .collect();
    if !declarations.remembered.is_empty() {
        let living = records.iter().filter(|record| record.lives());
        let claimed: HashSet<EndKey<'_>> = living
            .flat_map(|record| &record.links)
            .flat_map(end_keys)
            .collect();
        let remembered = declarations.remembered.iter();
        let stand = remembered.filter(|(ends, _)| ends.iter().all(|end| !claimed.contains(end)));
        links.extend(stand.map(|(_, all)| merge::merge(all)));
    }
    links.sort_by_key(|link| link.id);
    shared::find_shared_interfaces(&mut links);
    shared::find_shared_addresses(&mut links);
    links.retain(|link| pods.contains(&link.a.pod) || pods.contains(&link.z.pod));
    links
}
