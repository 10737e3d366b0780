//! Which interfaces of this node's pods links have that only pods of other namespaces declare.
//!
//! No later claim takes an interface from a link that is up. Of two claims of one namespace, the
//! times say which one is later. Between namespaces they say nothing, so the pod's record names the
//! link that has been up ([`ratchet_model::PodRecord::given`]).

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{InterfaceName, LinkId, PodKey, device::Netns, resolve::Link};

use super::Engine;
use crate::{
    retry::{self, Tried},
    state::SandboxState,
    wires::{Fresh, Tracked},
};

impl Engine {
    /// The pods of this node that these links join to pods of other namespaces.
    pub(super) fn joined_across(
        &self,
        fresh: &[Fresh],
        ended: &BTreeSet<LinkId>,
    ) -> BTreeSet<PodKey> {
        let ended = ended.iter().filter_map(|id| self.wires.link(*id));
        let links = fresh.iter().map(|fresh| &fresh.link).chain(ended);
        let across = links.filter(|link| link.a.pod.namespace() != link.z.pod.namespace());
        across
            .flat_map(|link| [&link.a.pod, &link.z.pod])
            .filter(|pod| self.sandboxes.current(pod).is_some())
            .cloned()
            .collect()
    }

    /// Notes what these pods have given, and tells the store. One in trouble is told by the next
    /// resync.
    pub(super) fn note_given(&mut self, pods: &BTreeSet<PodKey>) -> Tried {
        retry::all(pods.iter().map(|pod| self.note_given_by(pod)))
    }

    fn note_given_by(&mut self, pod: &PodKey) -> Tried {
        let Some(state) = self.sandboxes.current(pod) else {
            return Ok(());
        };
        let given = self.given_by(state);
        if given == state.given {
            return Ok(());
        }
        let state = SandboxState {
            given,
            ..state.clone()
        };
        self.sandboxes.save_or_retry(state)?;
        self.sandboxes.set_unsaid(pod);
        if self.session.trouble().is_some() {
            return Ok(());
        }
        self.correct_record(pod)
    }

    /// A link that was up has its interface for as long as nothing bars it.
    fn given_by(&self, state: &SandboxState) -> BTreeMap<InterfaceName, LinkId> {
        let netns = Netns::Sandbox(state.id.clone());
        let interface = |link: &Link| {
            let mut ends = link.endpoints().into_iter();
            let own = ends.find(|end| end.pod == state.pod);
            own.map(|end| end.interface.clone())
        };
        let is_up = |tracked: &Tracked| {
            let mut made = tracked.wiring.made_ends();
            tracked.failure.is_none() && made.any(|end| end.netns == netns)
        };
        let links = self.wires.of(&state.pod);
        let foreign = links.filter(|tracked| tracked.link.is_foreign_to(&state.pod));
        foreign
            .filter_map(|tracked| {
                let (interface, id) = (interface(&tracked.link)?, tracked.link.id);
                let was_up = state.given.get(&interface) == Some(&id);
                (was_up || is_up(tracked)).then_some((interface, id))
            })
            .collect()
    }
}
