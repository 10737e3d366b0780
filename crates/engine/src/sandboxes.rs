//! The sandboxes of this node, in memory and on disk alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use ratchet_kernel::KernelError;
use ratchet_model::{
    DeclaredLink, LinkId, Location, PodKey, PodRecord, SandboxId, declaration::Accept,
    device::Netns, wiring::Node,
};

use crate::{
    kernel::Kernel,
    node::Terms,
    retry::{Retry, Tried},
    state::{SandboxState, StateDir},
};

/// All sandboxes that have not been undone completely.
pub(crate) struct Sandboxes {
    dir: StateDir,
    by_id: BTreeMap<SandboxId, SandboxState>,
    by_pod: BTreeMap<PodKey, BTreeSet<SandboxId>>,
    /// Sandboxes whose pod has a later one on another node.
    superseded: BTreeSet<SandboxId>,
    /// Sandboxes that are about to be attached: on disk as leaving, so that an agent that finds
    /// them undoes them; otherwise as good as absent.
    expected: BTreeMap<SandboxId, SandboxState>,
    /// Pods of which the store may not say what they accept and have given.
    unsaid: BTreeSet<PodKey>,
    /// Whether all that this node has is known.
    complete: bool,
}

impl Sandboxes {
    pub fn load(dir: StateDir) -> io::Result<Self> {
        let (by_id, by_pod, superseded) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let mut sandboxes = Self {
            by_id,
            by_pod,
            superseded,
            expected: BTreeMap::new(),
            unsaid: BTreeSet::new(),
            complete: false,
            dir,
        };
        for state in sandboxes.dir.load()? {
            sandboxes.remember(state);
        }
        sandboxes.complete = sandboxes.dir.is_complete();
        sandboxes.set_all_unsaid();
        Ok(sandboxes)
    }

    /// Whether all that this node has is known; if not, some of the state was lost.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Notes that nothing is missing any more.
    pub fn set_complete(&mut self) -> Tried {
        let written = self.dir.set_complete();
        self.complete = written.is_ok();
        written.map_err(|error| {
            tracing::error!(%error, "cannot write to the state directory");
            Retry::StateDir(error.to_string())
        })
    }

    /// Writes a sandbox to disk, then remembers it.
    pub fn save(&mut self, state: SandboxState) -> io::Result<()> {
        if self.expected.get(&state.id) == Some(&state) {
            self.dir.set_staying(&state.id)?;
            self.expected.remove(&state.id);
        } else {
            self.forget_expected(&state.id);
            self.dir.save(&state)?;
        }
        self.remember(state);
        Ok(())
    }

    /// The same for a resync, which tries again.
    pub fn save_or_retry(&mut self, state: SandboxState) -> Tried {
        let id = state.id.clone();
        self.save(state).map_err(|error| {
            tracing::error!(sandbox = %id, %error, "cannot write the state of a sandbox");
            Retry::StateDir(error.to_string())
        })
    }

    /// Writes a sandbox to disk that will most probably be saved as it is.
    pub fn expect(&mut self, state: SandboxState) -> io::Result<()> {
        self.dir.save(&SandboxState {
            leaving: true,
            ..state.clone()
        })?;
        self.expected.insert(state.id.clone(), state);
        Ok(())
    }

    /// One that is expected.
    pub fn expected(&self, id: &SandboxId) -> Option<&SandboxState> {
        self.expected.get(id)
    }

    /// It will not be attached, or not as it was expected.
    pub fn forget_expected(&mut self, id: &SandboxId) {
        if self.expected.remove(id).is_some()
            && let Err(error) = self.dir.remove(id)
        {
            tracing::warn!(sandbox = %id, %error, "cannot remove the state of a sandbox");
        }
    }

    /// Marks a sandbox as leaving; from here on it is no place of its pod. It is marked even when
    /// that cannot be written down: a DEL must not fail for a full disk, and it will be repeated if
    /// we die.
    pub fn set_leaving(&mut self, id: &SandboxId) {
        let Some(state) = self.by_id.get_mut(id) else {
            return;
        };
        if state.leaving {
            return;
        }
        state.leaving = true;
        if let Err(error) = self.dir.set_leaving(id) {
            tracing::warn!(sandbox = %id, %error, "cannot write down that the sandbox is leaving");
        }
    }

    /// Forgets a sandbox of which nothing is left.
    pub fn forget(&mut self, id: &SandboxId) {
        if let Err(error) = self.dir.remove(id) {
            tracing::warn!(sandbox = %id, %error, "cannot remove the state of a sandbox");
        }
        self.superseded.remove(id);
        if let Some(state) = self.by_id.remove(id)
            && let Some(ids) = self.by_pod.get_mut(&state.pod)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.unsaid.remove(&state.pod);
                self.by_pod.remove(&state.pod);
            }
        }
    }

    fn remember(&mut self, state: SandboxState) {
        self.by_pod
            .entry(state.pod.clone())
            .or_default()
            .insert(state.id.clone());
        self.by_id.insert(state.id.clone(), state);
    }

    pub fn get(&self, id: &SandboxId) -> Option<&SandboxState> {
        self.by_id.get(id)
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn all(&self) -> impl Iterator<Item = &SandboxState> {
        self.by_id.values()
    }

    /// All sandboxes of a pod: the one it lives in, older ones, leaving ones.
    pub fn of(&self, pod: &PodKey) -> impl Iterator<Item = &SandboxState> {
        self.by_pod
            .get(pod)
            .into_iter()
            .flatten()
            .filter_map(|id| self.by_id.get(id))
    }

    /// The sandbox that a pod lives in on this node: the latest that is neither leaving nor
    /// superseded, and whose pod has the name.
    pub fn current(&self, pod: &PodKey) -> Option<&SandboxState> {
        self.of(pod)
            .filter(|state| !state.leaving && state.held_by.is_none())
            .filter(|state| !self.superseded.contains(&state.id))
            .max_by_key(|state| (state.created, &state.id))
    }

    pub fn supersede(&mut self, id: &SandboxId, superseded: bool) {
        if superseded {
            self.superseded.insert(id.clone());
        } else {
            self.superseded.remove(id);
        }
    }

    /// The store may not say what a pod accepts and has given: what is known here counts.
    pub fn set_unsaid(&mut self, pod: &PodKey) {
        self.unsaid.insert(pod.clone());
    }

    /// The same for all pods.
    pub fn set_all_unsaid(&mut self) {
        self.unsaid = self.pods();
    }

    /// The store says of a pod what is so here.
    pub fn set_said(&mut self, pod: &PodKey) {
        self.unsaid.remove(pod);
    }

    /// The record of a pod with what it accepts and has given here, if the store may say otherwise.
    pub fn overrule(&self, said: &PodRecord, terms: Terms) -> Option<PodRecord> {
        let state = self
            .unsaid
            .get(&said.pod)
            .and_then(|pod| self.current(pod))?;
        let accept = Accept::effective(state.accept.as_ref(), terms.cross_namespace);
        let is_said = said.accept == accept && said.given == state.given;
        (!is_said).then(|| PodRecord {
            accept,
            given: state.given.clone(),
            ..said.clone()
        })
    }

    /// The pods that have a sandbox here, leaving ones included.
    pub fn pods(&self) -> BTreeSet<PodKey> {
        self.by_pod.keys().cloned().collect()
    }

    pub fn has(&self, pod: &PodKey) -> bool {
        self.by_pod.contains_key(pod)
    }

    /// How many links the sandboxes of a pod declare.
    pub fn links_of(&self, pod: &PodKey) -> usize {
        let declared = self.of(pod).map(|state| state.links.len());
        declared.max().unwrap_or(0)
    }

    /// Whether a network has attached a sandbox that is not leaving.
    pub fn is_attached_by(&self, network: &str) -> bool {
        let mut staying = self.all().filter(|state| !state.leaving);
        staying.any(|state| state.attachments.iter().any(|(by, _)| by == network))
    }

    /// Whether a sandbox is leaving.
    pub fn is_leaving(&self, id: &SandboxId) -> bool {
        self.by_id.get(id).is_some_and(|state| state.leaving)
    }

    /// The sandboxes that are leaving.
    pub fn leaving(&self) -> Vec<SandboxId> {
        let leaving = self.by_id.values().filter(|state| state.leaving);
        leaving.map(|state| state.id.clone()).collect()
    }

    /// Enters the namespaces of sandboxes until the command is dealt with. Returns those that were
    /// entered; one that is gone is left out, which is as good as empty. One that cannot be entered
    /// for another reason may have anything in it.
    pub fn enter<'n>(
        &self,
        kernel: &mut dyn Kernel,
        netns: impl Iterator<Item = &'n Netns>,
    ) -> Result<BTreeSet<Netns>, KernelError> {
        let mut entered = BTreeSet::new();
        for netns in netns {
            let Netns::Sandbox(id) = netns else { continue };
            let Some(state) = self.get(id) else {
                continue;
            };
            match enter(kernel, state) {
                Ok(()) => drop(entered.insert(netns.clone())),
                Err(error) if error.is_netns_gone() => {
                    tracing::debug!(sandbox = %id, %error, "cannot enter")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(entered)
    }

    /// A time for a new sandbox: now, and later than any sandbox that is known.
    pub fn next_created(&self, unix_nanos: u64) -> u64 {
        let latest = self.by_id.values().map(|state| state.created + 1).max();
        latest.unwrap_or(0).max(unix_nanos)
    }
}

/// Enters a sandbox's namespace, if it is still the one that was attached.
pub(crate) fn enter(kernel: &mut dyn Kernel, state: &SandboxState) -> Result<(), KernelError> {
    kernel
        .enter(&state.id, &state.netns, Some(state.netns_identity()))
        .map(drop)
}

/// Whether the namespace that a sandbox was attached with is no longer at its path.
pub(crate) fn is_netns_gone(kernel: &dyn Kernel, state: &SandboxState) -> bool {
    match kernel.identify(&state.netns) {
        Ok(identity) => identity != state.netns_identity(),
        // The mount point is left when a namespace is unmounted.
        Err(KernelError::NotNetns { .. }) => true,
        Err(error) => error.is_netns_gone(),
    }
}

/// What this agent says of a sandbox's pod. Without an underlay there is no location to share.
pub(crate) fn record(state: &SandboxState, node: &Node, terms: Terms) -> PodRecord {
    let interfaces = state.attachments.iter().map(|(_, interface)| interface);
    PodRecord {
        pod: state.pod.clone(),
        location: node.vtep.map(|vtep| Location {
            node: node.name.clone(),
            vtep: vtep.address,
            sandbox: state.id.clone(),
            mtu: node.mtu,
            leaving: false,
        }),
        created: state.created,
        links: state.links.clone(),
        accept: Accept::effective(state.accept.as_ref(), terms.cross_namespace),
        max_foreign_links: terms.max_foreign_links,
        // A name that no link can have is in no link's way.
        networks: interfaces.filter_map(|name| name.parse().ok()).collect(),
        owner: Some(state.kubernetes.1.clone()).filter(|name| !name.is_empty()),
        given: state.given.clone(),
    }
}

/// A sandbox whose pod declares this from now on; none if that is what it has declared up to now.
pub(crate) fn redeclared(
    state: &SandboxState,
    links: Vec<DeclaredLink>,
    accept: Option<Accept>,
    unix_nanos: u64,
) -> Option<SandboxState> {
    let links = with_since(links, &state.links, unix_nanos);
    let is_new = (&links, &accept) != (&state.links, &state.accept);
    is_new.then(|| SandboxState {
        links,
        accept,
        ..state.clone()
    })
}

/// The links that a pod declares from now on, with the time since when it has declared each:
/// `before` are those that it has declared up to now.
pub(crate) fn with_since(
    mut links: Vec<DeclaredLink>,
    before: &[DeclaredLink],
    unix_nanos: u64,
) -> Vec<DeclaredLink> {
    let known: BTreeMap<LinkId, u64> = before.iter().map(|l| (l.id(), l.since)).collect();
    for link in &mut links {
        link.since = known.get(&link.id()).copied().unwrap_or(unix_nanos);
    }
    links
}
