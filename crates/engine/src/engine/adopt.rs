//! Adoption: what is done when the state directory was lost, whole or in part.
//!
//! The store says which sandboxes this node had; the kernel, by the aliases of our devices, in
//! which namespaces they are. A sandbox that is found is taken up again as if it had been on disk
//! all the time. One that is not found has gone, or has nothing of ours: its record is removed,
//! so that its peers do not wait for it for ever.
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
use crate::{
    retry::{self, Tried},
    state::SandboxState,
};

/// A namespace in which a sandbox was found.
struct Home {
    path: PathBuf,
    identity: NetnsIdentity,
}

impl Engine {
    /// Takes up what this node has and its state directory does not.
    pub(super) fn adopt(&mut self) -> Tried {
        if self.sandboxes.is_complete() {
            return Ok(());
        }
        let node = self.node.wiring()?;
        let vtep = node.vtep.ok_or_else(|| self.no_underlay())?;
        // Another machine that was given this one's name by mistake has another VTEP.
        let is_of_this_node = |record: &PodRecord| {
            let location = record.location.as_ref();
            location.is_some_and(|location| location.vtep == vtep.address)
        };
        let records = self.session.located_on(&node.name)?;
        let lost: Vec<(SandboxId, PodRecord)> = records
            .into_iter()
            .filter(is_of_this_node)
            .filter_map(|record| Some((record.sandbox()?.clone(), record)))
            .filter(|(id, _)| self.sandboxes.get(id).is_none())
            .collect();
        let ids = lost.iter().map(|(id, _)| id.clone()).collect();
        let mut homes = self.find_homes(&ids);
        retry::all(lost.into_iter().map(|(id, record)| {
            let home = homes.remove(&id);
            self.take_up(id, record, home)
        }))?;
        self.sandboxes.set_complete()
    }

    /// Takes up one sandbox, or removes its record when it is nowhere.
    fn take_up(&mut self, id: SandboxId, record: PodRecord, home: Option<Home>) -> Tried {
        let pod = record.pod.clone();
        let Some(Home { path, identity }) = home else {
            tracing::warn!(
                %pod, sandbox = %id,
                "the sandbox's state is lost and its namespace is not found: it has gone"
            );
            return self.session.remove_pod(&pod, &id);
        };
        tracing::warn!(
            %pod, sandbox = %id, netns = %path.display(),
            "the sandbox's state was lost; it is taken up again"
        );
        let state = SandboxState {
            kubernetes: (
                pod.namespace().to_owned(),
                record.owner.unwrap_or_else(|| pod.name().to_owned()),
            ),
            held_by: None,
            // Only the config of its ADD knew; this is the config's default. Without its labels, a
            // pod that declares by them would lose its links with the next news of the API.
            use_labels: true,
            netns: path,
            netns_identity: (identity.dev, identity.inode),
            boot_id: self.boot_id.clone(),
            created: record.created,
            accept: record.accept.annotation(),
            given: record.given,
            links: record.links,
            attachments: BTreeSet::new(),
            leaving: false,
            id,
            pod,
        };
        self.sandboxes.save_or_retry(state)
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
