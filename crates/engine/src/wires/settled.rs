//! Links with which all went well, and which of their VNIs no device of this node has any more.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_kernel::KernelError;
use ratchet_model::{
    LinkId, Vni,
    device::{At, Kind, Netns, Observed, Operation, Step, VXLAN_PORT},
};

use super::{failure::LinkFailure, tracked::Fresh};
use crate::sandboxes::Sandboxes;

/// A link with which all went well.
pub(crate) struct Settled {
    /// The link.
    pub link: LinkId,
    /// The VNI of the tunnel that it has now. All others it may have had are gone, as far as was
    /// seen.
    pub vni: Option<Vni>,
    /// The VNIs of tunnels of it that were deleted for certain.
    pub deleted: BTreeSet<Vni>,
}

/// What came of the links that have ended, of those of which nothing is wanted, and of those of
/// which nothing stays as it is, without a failure.
pub(super) fn settled(
    (fresh, ended): (&[Fresh], &BTreeSet<LinkId>),
    deleted: &BTreeMap<LinkId, BTreeSet<Vni>>,
    failures: &BTreeMap<LinkId, LinkFailure>,
) -> Vec<Settled> {
    let made = fresh.iter().filter(|fresh| fresh.wiring.is_certain());
    let made = made.map(|fresh| (fresh.link.id, fresh.wiring.vni()));
    let ended = ended.iter().map(|link| (*link, None));
    made.chain(ended)
        .filter(|(link, _)| !failures.contains_key(link))
        .map(|(link, vni)| Settled {
            link,
            vni,
            deleted: deleted.get(&link).cloned().unwrap_or_default(),
        })
        .collect()
}

/// The VNIs of the tunnels that these steps deleted for certain, by link. A device whose socket is
/// not the node's is no tunnel, although it shows a VNI. In a pod that runs, it may have been
/// renamed before it could be deleted.
pub(super) fn deleted_vnis(
    sandboxes: &Sandboxes,
    observed: &[Observed],
    steps: &[Step],
    results: &[Result<(), KernelError>],
) -> BTreeMap<LinkId, BTreeSet<Vni>> {
    let of_tunnel = |device: &Observed| match device.kind {
        Kind::Vxlan { vni, port, .. } if port == VXLAN_PORT => Vni::try_from(vni).ok(),
        _ => None,
    };
    let is_safe = |device: &&Observed| match &device.netns {
        Netns::Sandbox(id) => sandboxes.is_leaving(id),
        _ => true,
    };
    let seen: BTreeMap<At, Vni> = observed
        .iter()
        .filter(is_safe)
        .filter_map(|device| Some((device.at(), of_tunnel(device)?)))
        .collect();
    let mut deleted: BTreeMap<LinkId, BTreeSet<Vni>> = BTreeMap::new();
    for (step, _) in steps.iter().zip(results).filter(|(_, done)| done.is_ok()) {
        if let Operation::Delete(at) = &step.operation
            && let Some(vni) = seen.get(at)
        {
            deleted.entry(step.link).or_default().insert(*vni);
        }
    }
    deleted
}
