//! How much a reconcile looks at.

use std::collections::BTreeSet;

use ratchet_model::{LinkId, PodKey, device::Netns};

use crate::{sandboxes::Sandboxes, state::SandboxState};

/// How much a reconcile looks at.
#[derive(Debug)]
pub(crate) enum Scope {
    /// The links of these pods, as far as something has changed for them.
    Links(BTreeSet<PodKey>),
    /// The links of these pods, and all else of ours that is in their sandboxes.
    Sandboxes(BTreeSet<PodKey>),
    /// These links, whether anything has changed for them or not.
    Again(BTreeSet<LinkId>),
    /// The links of strays in the node's namespace, with all else of ours that is there, and links
    /// that have no pod here any more.
    Node(BTreeSet<LinkId>),
}

impl Scope {
    /// The namespaces of which the scope is all that is there. Leaving sandboxes always are: what
    /// they still have of ours goes, whether its link is known or not.
    pub fn namespaces(&self, sandboxes: &Sandboxes) -> BTreeSet<Netns> {
        let sandboxes_of = |pods: &BTreeSet<PodKey>, is_such: fn(&SandboxState) -> bool| {
            pods.iter()
                .flat_map(|pod| sandboxes.of(pod))
                .filter(|state| is_such(state))
                .map(|state| Netns::Sandbox(state.id.clone()))
                .collect()
        };
        match self {
            Scope::Links(pods) => sandboxes_of(pods, |state| state.leaving),
            Scope::Sandboxes(pods) => sandboxes_of(pods, |_| true),
            Scope::Again(_) => BTreeSet::new(),
            Scope::Node(strays) if strays.is_empty() => BTreeSet::new(),
            Scope::Node(_) => [Netns::Node].into(),
        }
    }
}
