//! The links of this node's pods: what is wanted of each, what the kernel has of it, and what is
//! still to be done.
//!
//! Everything that happens to devices of links happens here, by way of the planner. Nothing here
//! asks the store, and what is wanted is decided before ([`crate::engine`] and the model).

mod announcements;
mod apply;
mod failure;
mod guard;
mod leftovers;
mod look;
mod scope;
mod settled;
mod tracked;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use ratchet_kernel::{KernelError, Look};
use ratchet_model::{
    LinkId, NodeName, PodKey, Reason, SandboxId, WiringKind,
    device::{Netns, Observed, Wanted},
    resolve::Link,
    wiring::Wiring,
};

pub(crate) use apply::Request;
pub(crate) use scope::Scope;
pub(crate) use settled::Settled;
pub(crate) use tracked::{Fresh, Tracked};

use crate::{kernel::Kernel, sandboxes::Sandboxes, state::StateDir};
use announcements::Announcements;
use guard::Guard;
use leftovers::LeftoverStore;
use tracked::TrackedLinks;

/// All links of this node's pods.
pub(crate) struct Wires {
    links: TrackedLinks,
    leftovers: LeftoverStore,
    announcements: Announcements,
    guard: Guard,
    /// Leaving sandboxes in which nothing of ours is left.
    swept: BTreeSet<SandboxId>,
    /// The links that are wired in another way than is asked for, until one of their pods starts
    /// again. Nothing is kept of it: their devices tell.
    wired_otherwise: BTreeMap<LinkId, WiringKind>,
}

impl Wires {
    /// No links yet, and what devices left that an agent before this one was about to replace.
    pub fn load(states: StateDir) -> Self {
        Self {
            links: TrackedLinks::default(),
            leftovers: LeftoverStore::load(states),
            announcements: Announcements::default(),
            guard: Guard::default(),
            swept: BTreeSet::new(),
            wired_otherwise: BTreeMap::new(),
        }
    }

    /// All links as they were last dealt with.
    pub fn all(&self) -> impl Iterator<Item = &Tracked> {
        self.links.all()
    }

    /// The links that a pod has to do with, in the order of their ids.
    pub fn of(&self, pod: &PodKey) -> impl Iterator<Item = &Tracked> {
        let links = self.links.of(pod);
        links.filter(move |tracked| tracked.link.concerns(pod))
    }

    /// The links that a scope is about, as far as they were dealt with before.
    pub fn in_scope(&self, scope: &Scope, sandboxes: &Sandboxes) -> BTreeSet<LinkId> {
        let known = |id: &LinkId| self.links.get(*id).is_some();
        match scope {
            Scope::Links(pods) | Scope::Sandboxes(pods) => {
                pods.iter().flat_map(|pod| self.links.ids_of(pod)).collect()
            }
            Scope::Again(links) => links.iter().copied().filter(known).collect(),
            Scope::Node(strays) => {
                let strays = strays.iter().copied().filter(known);
                strays
                    .chain(self.links.ids_without(|pod| sandboxes.has(pod)))
                    .collect()
            }
        }
    }

    /// A link as it was last dealt with.
    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(id).map(|tracked| &tracked.link)
    }

    /// Whether something of a link is wanted, or stays as it is.
    pub fn wants(&self, link: LinkId) -> bool {
        let tracked = self.links.get(link);
        tracked.is_some_and(|tracked| !tracked.wiring.wanted.is_empty())
    }

    /// Whether a link has been made in this way.
    pub fn has_made(&self, link: LinkId, wiring: &Wiring) -> bool {
        let tracked = self.links.get(link);
        tracked.is_some_and(|tracked| tracked.wiring == *wiring && tracked.failure.is_none())
    }

    /// How a link is wired for which this is asked.
    pub fn kind(&self, link: LinkId, asked: WiringKind) -> WiringKind {
        self.wired_otherwise.get(&link).copied().unwrap_or(asked)
    }

    /// How many devices all links have.
    pub fn devices(&self) -> usize {
        self.links.devices()
    }

    /// Devices of these links were found, each of one link. They count until the link is dealt
    /// with, or the resync has ended.
    pub fn set_found(&mut self, links: impl Iterator<Item = LinkId>) {
        self.links.set_found(links);
    }

    /// How many more devices a link has with this wiring than before, and how many fewer.
    pub fn growth(&self, link: LinkId, wiring: &Wiring) -> (usize, usize) {
        let before = self.links.devices_of(link);
        let now = self.links.devices_with(link, wiring);
        (now.saturating_sub(before), before.saturating_sub(now))
    }

    /// Takes note of what is only reported of a link and may change without any work. Returns the
    /// link as it was last dealt with.
    pub fn describe(&mut self, link: &Link, nodes: &[Option<NodeName>; 2]) -> Option<&Tracked> {
        self.links.describe(link.id, link, nodes)
    }

    /// Notes how links are wired, of which every interface exists that is wanted. Returns those
    /// that are not wired as `fresh` says.
    fn note_built(
        &mut self,
        fresh: &[Fresh],
        wanted: &[Wanted],
        built: &BTreeMap<LinkId, WiringKind>,
    ) -> BTreeSet<LinkId> {
        let planned = wanted
            .iter()
            .filter(|object| object.makes() || object.keeps());
        let planned = planned.filter(|object| !matches!(object, Wanted::Frozen(_)));
        let planned: BTreeSet<LinkId> = planned.map(Wanted::link).collect();
        let mut otherwise = BTreeSet::new();
        for fresh in fresh
            .iter()
            .filter(|fresh| planned.contains(&fresh.link.id))
        {
            let (link, asked) = (fresh.link.id, fresh.asked);
            let kind = built.get(&link).copied().unwrap_or(asked);
            if kind == asked {
                self.wired_otherwise.remove(&link);
            } else {
                self.wired_otherwise.insert(link, kind);
            }
            if kind != fresh.kind {
                otherwise.insert(link);
            }
        }
        otherwise
    }

    /// Since when the longest waiting link has waited of which users have not been warned.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.links.waiting_since()
    }

    /// That link and what it waits for; from here on, users count as warned.
    pub fn take_longest_waiting(&mut self) -> Option<(Link, Reason)> {
        self.links.tell_of_longest_waiting()
    }

    /// Whether nothing of ours is known to be left in a leaving sandbox. Asked once.
    pub fn take_swept(&mut self, id: &SandboxId) -> bool {
        self.swept.remove(id)
    }

    /// When addresses are to be announced next.
    pub fn next_announcement(&self) -> Option<Instant> {
        self.announcements.due()
    }

    /// Announces the addresses that are due.
    pub fn announce(&mut self, kernel: &mut dyn Kernel, sandboxes: &Sandboxes, now: Instant) {
        self.announcements.announce(kernel, sandboxes, now);
    }

    /// The links of what is ours in the node's namespace and is neither an end that waits there for
    /// its pod nor a part of a stitched link.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn strays(&self, kernel: &dyn Kernel) -> Result<BTreeSet<LinkId>, KernelError> {
        let devices = kernel.observe(&[(Netns::Node, Look::All)].into(), &|_| false)?;
        let is_stray = |device: &&Observed| {
            let alias = device.alias.as_ref();
            device.is_ours() && !alias.is_some_and(|alias| self.holds(alias.link, device))
        };
        let link_of = |device: &Observed| {
            let alias = device.alias.as_ref();
            alias.map_or(LinkId::UNKNOWN, |alias| alias.link)
        };
        Ok(devices.iter().filter(is_stray).map(link_of).collect())
    }

    /// A resync begins: the source filter is read, and what others did to it undone.
    pub fn begin_resync(&mut self, kernel: &dyn Kernel) {
        self.guard.begin_resync(kernel);
    }

    /// A resync has looked at everything: what no device needs is let through no more.
    pub fn end_resync(&mut self, kernel: &dyn Kernel) {
        self.guard.end_resync(kernel);
        self.links.set_found(std::iter::empty());
    }

    /// Why the source filter does not work, if it does not.
    pub fn filter_trouble(&self) -> Option<&Reason> {
        self.guard.trouble()
    }

    fn holds(&self, link: LinkId, device: &Observed) -> bool {
        let tracked = self.links.get(link).into_iter();
        let mut wanted = tracked.flat_map(|tracked| &tracked.wiring.wanted);
        wanted.any(|object| object.holds_on_node(device))
    }

    /// All links have been looked at: what devices left that no link of this node needs any more
    /// is of no use. `is_restored` tells links of which only devices are known.
    pub fn forget_unclaimed_leftovers(
        &mut self,
        sandboxes: &Sandboxes,
        is_restored: impl Fn(LinkId) -> bool,
    ) {
        let links = &self.links;
        self.leftovers.retain(|left| {
            let is_link = links.get(left.link).is_some() || is_restored(left.link);
            is_link && sandboxes.get(&left.sandbox).is_some()
        });
    }
}

/// A link's name for people.
pub(crate) fn name(link: &Link) -> String {
    format!(
        "{}/{} — {}/{}",
        link.a.pod, link.a.interface, link.z.pod, link.z.interface
    )
}
