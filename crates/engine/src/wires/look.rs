//! Looking: what a plan is made from.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_kernel::{KernelError, Look};
use ratchet_model::{
    LinkId, PodKey,
    device::{Netns, Observed, Wanted},
    leftover::Leftovers,
    link::End,
    planner::{self, WantedEnds},
    resolve::Link,
    wiring,
};

use super::{scope::Scope, tracked::Fresh};
use crate::{
    kernel::Kernel,
    sandboxes::{self, Sandboxes},
};

/// What a plan is made from.
pub(super) struct Task {
    pub wanted: Vec<Wanted>,
    pub links: BTreeSet<LinkId>,
    /// The namespaces in which nothing of ours stays that is not wanted.
    pub namespaces: BTreeSet<Netns>,
    pub looks: BTreeMap<Netns, Look>,
    pub observed: Vec<Observed>,
}

/// What to look for.
pub(super) struct Request<'a> {
    pub scope: &'a Scope,
    pub fresh: &'a [Fresh],
    /// Links that are to go, and those that are to leave pods that they had.
    pub ended: Vec<&'a Link>,
    /// The ids of those, and of others that are to go and are not known.
    pub ended_ids: &'a BTreeSet<LinkId>,
    /// What is wanted of the links of `fresh`, and of what stays as it is.
    pub wanted: Vec<Wanted>,
}

/// Looks at all that is in the scope's namespaces, and for the devices of the links wherever else
/// they can be. Of a link that has all it needs in a portion's sandboxes the rest is left to the
/// portion of its other pod.
///
/// # Errors
/// When the kernel does not answer, or a namespace that is not gone cannot be entered.
pub(super) fn look(
    kernel: &mut dyn Kernel,
    sandboxes: &Sandboxes,
    request: Request<'_>,
    leftovers: &Leftovers,
) -> Result<Task, KernelError> {
    let Request {
        scope,
        fresh,
        ended,
        ended_ids,
        mut wanted,
    } = request;
    let links = wanted
        .iter()
        .map(Wanted::link)
        .chain(fresh.iter().map(|fresh| fresh.link.id))
        .chain(ended_ids.iter().copied())
        .collect();
    let mut looks: BTreeMap<Netns, Look> = scope
        .namespaces(sandboxes)
        .into_iter()
        .map(|netns| (netns, Look::All))
        .collect();
    let mut near: Vec<&Link> = fresh.iter().map(|fresh| &fresh.link).collect();
    enter_all(kernel, sandboxes, near.iter().chain(&ended));
    let mut observed = observe(kernel, sandboxes, &mut looks, &wanted)?;
    let namespaces = looks.keys().cloned().collect();

    if matches!(scope, Scope::Sandboxes(_)) {
        let settled = planner::settled(&wanted, &observed, leftovers, &namespaces);
        near.retain(|link| !settled.contains(&link.id));
        for wanted in wanted
            .iter_mut()
            .filter(|wanted| settled.contains(&wanted.link()))
        {
            *wanted = Wanted::Frozen(wanted.link());
        }
    }
    near.extend(ended);
    let mut more = looks_for(&near, sandboxes);
    more.retain(|netns, _| !looks.contains_key(netns));
    observed.extend(observe(kernel, sandboxes, &mut more, &wanted)?);
    looks.extend(more);
    Ok(Task {
        wanted,
        links,
        namespaces,
        looks,
        observed,
    })
}

/// Enters all sandboxes of the links' pods, so that the kernel can say which devices are whose
/// peers, in any order of looking at them. One that cannot be entered is missed when it is
/// looked at.
fn enter_all<'l>(
    kernel: &mut dyn Kernel,
    sandboxes: &Sandboxes,
    links: impl Iterator<Item = &'l &'l Link>,
) {
    let pods: BTreeSet<&PodKey> = links.flat_map(|link| [&link.a.pod, &link.z.pod]).collect();
    let all = pods.into_iter().flat_map(|pod| sandboxes.of(pod));
    for state in all {
        if let Err(error) = sandboxes::enter(kernel, state) {
            tracing::debug!(sandbox = %state.id, %error, "cannot enter");
        }
    }
}

/// Looks into namespaces, as far as these can be entered; the others are taken out of `looks`.
fn observe(
    kernel: &mut dyn Kernel,
    sandboxes: &Sandboxes,
    looks: &mut BTreeMap<Netns, Look>,
    wanted: &[Wanted],
) -> Result<Vec<Observed>, KernelError> {
    let entered = sandboxes.enter(kernel, looks.keys())?;
    looks.retain(|netns, _| *netns == Netns::Node || entered.contains(netns));
    let ends = WantedEnds::of(wanted);
    kernel.observe(looks, &|device| matters(device, &ends, sandboxes))
}

/// Whether it matters what a device has: where it is to stay and is not known to be as wanted.
fn matters(device: &Observed, wanted: &WantedEnds<'_>, sandboxes: &Sandboxes) -> bool {
    let is_leaving = matches!(&device.netns, Netns::Sandbox(id) if sandboxes.is_leaving(id));
    !is_leaving && !wanted.has_complete(device)
}

/// Where devices of these links can be: in all sandboxes of their pods, and on the node.
fn looks_for(links: &[&Link], sandboxes: &Sandboxes) -> BTreeMap<Netns, Look> {
    let mut names: BTreeMap<Netns, BTreeSet<String>> = BTreeMap::new();
    for link in links {
        let on_node = names.entry(Netns::Node).or_default();
        on_node.extend(wiring::names_on_node(link.id));
        for end in End::BOTH {
            let endpoint = link.endpoint(end);
            for state in sandboxes.of(&endpoint.pod) {
                let netns = Netns::Sandbox(state.id.clone());
                names
                    .entry(netns)
                    .or_default()
                    .insert(endpoint.interface.to_string());
            }
        }
    }
    names
        .into_iter()
        .map(|(netns, names)| (netns, Look::Names(names)))
        .collect()
}
