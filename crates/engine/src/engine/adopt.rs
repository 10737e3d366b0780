//! Adoption: what is done when the state directory was lost, whole or in part.
//!
//! The store says which sandboxes this node had; the kernel, by the aliases of our devices, in
//! which namespaces they are. A sandbox that is found is taken up again as if it had been on disk
//! all the time. One that is not found has gone, or has nothing of ours: its location is withdrawn,
//! so that nobody waits for it for ever.
//!
//! What only the runtime knew, the names of its attachments, stays unknown: the first DEL of an
//! adopted sandbox undoes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use ratchet_kernel::{Look, NetnsIdentity};
use ratchet_model::{PodRecord, SandboxId, device::Netns};

use super::Engine;
use crate::state::SandboxState;

/// A namespace in which a sandbox was found.
struct Home {
    path: PathBuf,
    identity: NetnsIdentity,
}

impl Engine {
    /// Takes up what this node has and its state directory does not. Gives whether nothing is left
    /// to be taken up.
    pub(super) fn adopt(&mut self) -> bool {
        if self.sandboxes.is_complete() {
            return true;
        }
        let Ok(effective) = self.effective().cloned() else {
            return false;
        };
        let Ok(store) = self.store() else {
            return false;
        };
        let records = match self
            .runtime
            .block_on(store.located_on(&effective.node.name))
        {
            Ok(records) => records,
            Err(error) => {
                self.store_failed(&error);
                return false;
            }
        };
        // Another machine that was given this one's name by mistake has another VTEP.
        let of_this_node = |record: &PodRecord| {
            record
                .location
                .as_ref()
                .is_some_and(|location| location.vtep == effective.node.vtep)
        };
        let unknown = |record: &PodRecord| {
            record
                .sandbox()
                .is_some_and(|id| self.sandboxes.get(id).is_none())
        };
        let lost: Vec<PodRecord> = records
            .into_iter()
            .filter(of_this_node)
            .filter(unknown)
            .collect();
        let ids = lost
            .iter()
            .filter_map(PodRecord::sandbox)
            .cloned()
            .collect();
        let mut homes = self.find_homes(&ids);
        let adopted = lost.into_iter().fold(true, |done, record| {
            let Some(id) = record.sandbox().cloned() else {
                return done;
            };
            let home = homes.remove(&id);
            done & self.take_up(id, record, home)
        });
        adopted && self.sandboxes.set_complete()
    }

    /// Takes up one sandbox, or withdraws it.
    fn take_up(&mut self, id: SandboxId, record: PodRecord, home: Option<Home>) -> bool {
        let pod = record.pod.clone();
        let Some(Home { path, identity }) = home else {
            tracing::warn!(%pod, sandbox = %id, "the sandbox's state is lost and it is nowhere to \
                                                 be found: it has gone");
            let Ok(store) = self.store() else {
                return false;
            };
            return match self.runtime.block_on(store.remove_pod(&pod, &id)) {
                Ok(()) => true,
                Err(error) => {
                    self.store_failed(&error);
                    false
                }
            };
        };
        tracing::warn!(
            %pod, sandbox = %id, netns = %path.display(),
            "the sandbox's state was lost; it is taken up again"
        );
        let state = SandboxState {
            kubernetes: (pod.namespace().to_owned(), pod.name().to_owned()),
            // Only the config of its ADD knew; this is the config's default. Without its labels, a
            // pod that declares by them would lose its links with the next news of the API.
            use_labels: true,
            netns: path,
            netns_identity: (identity.dev, identity.inode),
            boot_id: self.boot_id.clone(),
            created: record.created,
            links: record.links,
            attachments: BTreeSet::new(),
            leaving: false,
            id: id.clone(),
            pod,
        };
        match self.sandboxes.save(state) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(sandbox = %id, %error, "cannot write the state of a sandbox");
                false
            }
        }
    }

    /// Looks through all network namespaces of this machine for those with devices of these
    /// sandboxes.
    fn find_homes(&mut self, ids: &BTreeSet<SandboxId>) -> BTreeMap<SandboxId, Home> {
        let mut homes = BTreeMap::new();
        let Ok(scan) = "ratchet-adoption".parse::<SandboxId>() else {
            return homes;
        };
        if ids.is_empty() {
            return homes;
        }
        let mut seen: BTreeSet<NetnsIdentity> = [self.kernel.node()].into();
        for path in self.kernel.namespaces() {
            let Ok(identity) = self.kernel.identify(&path) else {
                continue;
            };
            if !seen.insert(identity) || self.kernel.enter(&scan, &path, None).is_err() {
                continue;
            }
            let look = [(Netns::Sandbox(scan.clone()), Look::All)].into();
            let devices = self.kernel.observe(&look, &|_| false).unwrap_or_default();
            let found = devices
                .into_iter()
                .filter_map(|device| device.alias?.sandbox)
                .filter(|id| ids.contains(id));
            for id in found {
                homes.entry(id).or_insert_with(|| Home {
                    path: path.clone(),
                    identity,
                });
            }
        }
        self.kernel.forget(&scan);
        homes
    }
}
