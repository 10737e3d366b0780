//! When an ADD is answered: it fails only for a fault, or for what its own pod declares. A
//! forger's own ADD is not judged.

use ratchet_model::reason::{Group, TABLE};
use ratchet_protocol::Failure;

use crate::{
    cluster::Sandbox,
    history::{Kind, Wrong},
    network::{Device, Inner},
};

/// Judges an ADD that has failed.
///
/// # Errors
/// It failed for what another pod declares, or for a VNI.
pub fn check(network: &Inner, sandbox: &Sandbox, failure: &Failure) -> Result<(), Wrong> {
    if is_fault(failure) || network.namespace(sandbox.netns).is_none() {
        return Ok(());
    }
    // A device that is not Ratchet's is in the way of an interface that the pod itself declares.
    let links = sandbox.declaration.links.iter();
    let mut own = links
        .flat_map(|link| link.ends(sandbox.pod))
        .filter(|end| end.pod == sandbox.pod);
    let is_blocked = own.any(|end| {
        let found = network.find(sandbox.netns, &end.interface);
        let device = found.and_then(|id| network.device(id));
        device.is_some_and(|device| !Device::is_ours(device))
    });
    if is_blocked {
        return Ok(());
    }
    let text = format!("the ADD of {} failed: {failure}", sandbox.id);
    Err(Wrong::new(Kind::AddFails, text))
}

/// Whether a failure says that disk, store or node do not do their part.
fn is_fault(failure: &Failure) -> bool {
    let Some(reason) = &failure.reason else {
        return true;
    };
    let entry = TABLE.iter().find(|entry| entry.code == reason.code);
    entry.is_some_and(|entry| entry.group == Group::Node)
}
