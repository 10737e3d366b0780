//! Reads what devices in the node's namespace are joined to.

use nix::errno::Errno;
use ratchet_model::device::{Netns, Part};

use crate::{
    observe::Seen,
    reply, request,
    socket::{Channel, Failure},
};

/// Says of each device that an agent joins what it is joined to. A pod's interface has no joint.
pub(crate) fn read(
    channel: &mut Channel,
    netns: &Netns,
    found: &mut [Seen],
) -> Result<(), Failure> {
    if *netns != Netns::Node {
        return Ok(());
    }
    let is_joined = |seen: &&mut Seen| {
        let alias = seen.device.alias.as_ref();
        alias.is_some_and(|alias| alias.part != Part::Pod)
    };
    let mut devices: Vec<&mut Seen> = found.iter_mut().filter(is_joined).collect();
    let asked = devices.iter();
    let requests = asked.map(|seen| request::get_joint(seen.device.index));
    let answers = channel.fetch(requests.collect());
    for (seen, answer) in devices.iter_mut().zip(answers) {
        seen.device.joined = match answer {
            Ok(payload) => reply::joint(&payload),
            // net/sched/cls_api.c, `tc_get_tfilter`: no such filter, or nothing that filters hang
            // on. ENODEV: the device has just gone.
            Err(failure) if is_absence(failure.errno) => None,
            Err(failure) => return Err(failure),
        };
    }
    Ok(())
}

fn is_absence(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::EINVAL | Errno::ENODEV)
}
