//! The source filter, which lets through what this node's VXLAN devices send and receive, and
//! nothing else that has one of their VNIs.
//!
//! What it lets through follows from the devices (`ratchet_model::planner::passages`): before a
//! plan is executed, what its devices will need; after it, only what they have. A filter that
//! cannot be written keeps no link from being made: it is reported, and tried again with the next
//! change or resync.

use std::collections::BTreeSet;

use ratchet_kernel::KernelError;
use ratchet_model::{
    Reason, Vni,
    device::{Observed, Passage, Step},
    planner,
};

use crate::kernel::Kernel;

/// Why the filter does not work.
#[derive(Debug)]
struct Trouble {
    reason: Reason,
    /// Whether the kernel has no nftables: then only a resync tries again, since each attempt has
    /// the kernel look for a module.
    is_missing: bool,
}

/// The filter of this node.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// What it lets through; `None` when that is not known: nobody has read it yet, or the last
    /// attempt to read or write it failed.
    standing: Option<BTreeSet<Passage>>,
    /// Why it does not work, if it does not.
    trouble: Option<Trouble>,
    /// What devices were seen to need since the resync began.
    seen: BTreeSet<Passage>,
}

impl Guard {
    /// Why the filter does not work, if it does not.
    pub fn trouble(&self) -> Option<&Reason> {
        self.trouble.as_ref().map(|trouble| &trouble.reason)
    }

    /// Reads the filter, and undoes what others did to it.
    pub fn begin_resync(&mut self, kernel: &dyn Kernel) {
        self.seen.clear();
        let known = self.standing.take();
        let mended = kernel.filter().and_then(|found| {
            let wanted = known.unwrap_or_else(|| found.passages.clone());
            if !found.is_whole || found.passages != wanted {
                tracing::warn!("the source filter was changed by others; it is put back");
                kernel.set_filter(&wanted)?;
            }
            Ok(wanted)
        });
        self.take(mended);
    }

    /// All devices were seen: what none of them needs is let through no more.
    pub fn end_resync(&mut self, kernel: &dyn Kernel) {
        let seen = std::mem::take(&mut self.seen);
        if let Some(standing) = &self.standing {
            let stale: Vec<Passage> = standing.difference(&seen).copied().collect();
            self.change(kernel, &[], &stale);
        }
    }

    /// Lets through what the devices need that there will be after these steps, and gives those
    /// that are created source ports of their own.
    pub fn before(&mut self, kernel: &dyn Kernel, observed: &[Observed], steps: &mut [Step]) {
        if planner::passages(observed, steps, |_| true).is_empty() {
            return;
        }
        let is_missing = |trouble: &Trouble| trouble.is_missing;
        if self.standing.is_none() && !self.trouble.as_ref().is_some_and(is_missing) {
            let found = kernel.filter().map(|found| found.passages);
            self.take(found);
        }
        let Some(standing) = &self.standing else {
            return;
        };
        planner::assign_source_ports(steps, standing);
        let needed = planner::passages(observed, steps, |_| true);
        let missing: Vec<Passage> = needed.difference(standing).copied().collect();
        self.change(kernel, &missing, &[]);
    }

    /// Lets through no more what these devices, of which those of `done` are left, and links that
    /// had these VNIs do not need.
    pub fn after(
        &mut self,
        kernel: &dyn Kernel,
        (observed, steps): (&[Observed], &[Step]),
        is_done: impl Fn(usize) -> bool,
        ended: &BTreeSet<Vni>,
    ) {
        let there = planner::passages(observed, steps, is_done);
        let before = planner::passages(observed, steps, |_| false);
        let planned = planner::passages(observed, steps, |_| true);
        let of_devices = there.iter().chain(&before).chain(&planned);
        let mut vnis: BTreeSet<Vni> = of_devices.map(|passage| passage.vni).collect();
        vnis.extend(ended);
        self.seen.extend(&there);
        let Some(standing) = &self.standing else {
            return;
        };
        let is_stale = |passage: &&Passage| vnis.contains(&passage.vni) && !there.contains(passage);
        let stale: Vec<Passage> = standing.iter().filter(is_stale).copied().collect();
        self.change(kernel, &[], &stale);
    }

    fn change(&mut self, kernel: &dyn Kernel, permit: &[Passage], forbid: &[Passage]) {
        let Some(standing) = &mut self.standing else {
            return;
        };
        if permit.is_empty() && forbid.is_empty() {
            return;
        }
        let changed = kernel.change_filter(permit, forbid);
        for passage in forbid {
            standing.remove(passage);
            self.seen.remove(passage);
        }
        standing.extend(permit);
        if let Err(error) = changed {
            self.take(Err(error));
        }
    }

    fn take(&mut self, read: Result<BTreeSet<Passage>, KernelError>) {
        let error = match read {
            Ok(standing) => {
                if self.trouble.take().is_some() {
                    tracing::info!("the source filter works again");
                }
                self.standing = Some(standing);
                return;
            }
            Err(error) => error,
        };
        self.standing = None;
        let is_missing = matches!(error, KernelError::Unsupported { .. });
        let error = error.to_string();
        let reason = Reason::FilterMissing { error };
        if self.trouble() != Some(&reason) {
            tracing::error!(%reason, "tunnels are not protected");
        }
        self.trouble = Some(Trouble { reason, is_missing });
    }
}

#[cfg(test)]
mod tests;
