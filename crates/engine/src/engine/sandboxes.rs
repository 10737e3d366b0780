//! The sandboxes of this node, in memory and on disk alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use ratchet_kernel::KernelError;
use ratchet_model::{Location, PodKey, PodRecord, SandboxId};

use crate::{
    effective::Effective,
    kernel::Kernel,
    state::{SandboxState, StateDir},
};

/// All sandboxes that have not been undone completely.
pub(crate) struct Sandboxes {
    dir: StateDir,
    by_id: BTreeMap<SandboxId, SandboxState>,
    by_pod: BTreeMap<PodKey, BTreeSet<SandboxId>>,
    /// Sandboxes whose pod has a later one on another node.
    superseded: BTreeSet<SandboxId>,
    /// Sandboxes that are about to be attached: on disk as leaving, so that whoever finds them
    /// undoes them; otherwise as good as absent.
    expected: BTreeMap<SandboxId, SandboxState>,
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
            complete: false,
            dir,
        };
        for state in sandboxes.dir.load()? {
            sandboxes.remember(state);
        }
        sandboxes.complete = sandboxes.dir.is_complete();
        Ok(sandboxes)
    }

    /// Whether all that this node has is known; if not, some of the state was lost.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Notes that nothing is missing any more; gives whether that could be written down.
    pub fn set_complete(&mut self) -> bool {
        let written = self.dir.set_complete();
        if let Err(error) = &written {
            tracing::error!(%error, "cannot write to the state directory");
        }
        self.complete = written.is_ok();
        self.complete
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
    /// superseded.
    pub fn current(&self, pod: &PodKey) -> Option<&SandboxState> {
        self.of(pod)
            .filter(|state| !state.leaving && !self.superseded.contains(&state.id))
            .max_by_key(|state| (state.created, &state.id))
    }

    pub fn supersede(&mut self, id: &SandboxId, superseded: bool) {
        if superseded {
            self.superseded.insert(id.clone());
        } else {
            self.superseded.remove(id);
        }
    }

    /// The pods that have a sandbox here, in whatever state.
    pub fn pods(&self) -> BTreeSet<PodKey> {
        self.by_pod.keys().cloned().collect()
    }

    pub fn has(&self, pod: &PodKey) -> bool {
        self.by_pod.contains_key(pod)
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

/// What this agent says of a sandbox's pod.
pub(crate) fn record(state: &SandboxState, effective: &Effective) -> PodRecord {
    PodRecord {
        pod: state.pod.clone(),
        location: Some(Location {
            node: effective.node.name.clone(),
            vtep: effective.node.vtep,
            sandbox: state.id.clone(),
            mtu: effective.node.mtu,
            leaving: false,
        }),
        created: state.created,
        links: state.links.clone(),
    }
}
