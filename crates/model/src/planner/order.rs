//! The order in which devices are created.

use std::collections::BTreeMap;

use crate::device::{Netns, NewDevice, Operation, Step};

/// How many of the steps to come ask for an index in a namespace.
type Askers<'a> = BTreeMap<&'a Netns, usize>;

/// Puts those that ask for an index before those that take any in the same namespace, which could
/// otherwise get the number asked for. All others keep their order.
///
/// Pairs can wait for each other: each asks in the namespace in which the other takes any index.
/// Then the first of them goes first, and the other may get another index.
pub(super) fn creations(steps: Vec<Step>) -> Vec<Step> {
    let (mut asking, others): (Vec<Step>, Vec<Step>) = steps
        .into_iter()
        .partition(|step| step.operation.asks_for_index());
    let mut ordered = Vec::with_capacity(asking.len() + others.len());
    while !asking.is_empty() {
        let askers = askers(&asking);
        let is_ready: Vec<bool> = asking
            .iter()
            .map(|step| is_ready(&step.operation, &askers))
            .collect();
        let is_stuck = !is_ready.contains(&true);
        let mut numbers = 0..;
        let (next, later): (Vec<Step>, Vec<Step>) = asking.into_iter().partition(|_| {
            let number = numbers.next().unwrap_or_default();
            is_ready[number] || is_stuck && number == 0
        });
        ordered.extend(next);
        asking = later;
    }
    ordered.extend(others);
    ordered
}

fn asks_for_index(new: &NewDevice) -> bool {
    new.index.is_some()
}

fn askers(steps: &[Step]) -> Askers<'_> {
    let mut askers = Askers::new();
    for new in steps.iter().flat_map(|step| step.operation.new_devices()) {
        *askers.entry(&new.at.netns).or_default() += usize::from(asks_for_index(new));
    }
    askers
}

/// Whether no other step asks for an index where this one takes any.
fn is_ready(operation: &Operation, askers: &Askers<'_>) -> bool {
    let asks_itself = |netns: &Netns| {
        let own = operation.new_devices();
        own.filter(|new| new.at.netns == *netns && asks_for_index(new))
            .count()
    };
    operation
        .new_devices()
        .filter(|new| !asks_for_index(new))
        .all(|new| {
            let netns = &new.at.netns;
            askers.get(netns).copied().unwrap_or_default() == asks_itself(netns)
        })
}

#[cfg(test)]
mod tests;
