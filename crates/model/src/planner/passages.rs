//! The passages that the devices of a plan need in the source filter, and the source ports by which
//! the filter knows what they send.
//!
//! Both follow from devices: the filter lets through what exists, and not what a wiring wants.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::{At, Kind, Observed, Operation, Passage, SourcePorts, Step, Tunnel};

/// The passages of those devices of ours that there are after these steps, of which `is_done` tells
/// by their position whether they were done.
pub fn passages(
    observed: &[Observed],
    steps: &[Step],
    is_done: impl Fn(usize) -> bool,
) -> BTreeSet<Passage> {
    let own = observed.iter().filter(|device| device.is_ours());
    let mut there: BTreeMap<At, Passage> = own
        .filter_map(|device| Some((device.at(), of_device(device)?)))
        .collect();
    let done = steps.iter().enumerate().filter(|(at, _)| is_done(*at));
    for (_, step) in done {
        match &step.operation {
            Operation::Delete(at) => {
                there.remove(at);
            }
            Operation::Move { from, to, .. } => {
                if let Some(passage) = there.remove(from) {
                    there.insert(to.clone(), passage);
                }
            }
            Operation::CreateVxlan {
                device,
                tunnel,
                source,
            } => {
                there.insert(device.at.clone(), of_tunnel(tunnel, *source));
            }
            Operation::Retarget { at, tunnel } => {
                let source = there.get(at).and_then(|passage| passage.source);
                there.insert(at.clone(), of_tunnel(tunnel, source));
            }
            _ => {}
        }
    }
    there.into_values().collect()
}

fn of_device(device: &Observed) -> Option<Passage> {
    let Kind::Vxlan {
        vni,
        remote,
        local,
        port,
        ..
    } = device.kind
    else {
        return None;
    };
    Some(Passage {
        port,
        vni: vni.try_into().ok()?,
        local: local?,
        remote: remote?,
        source: device.source,
    })
}

fn of_tunnel(tunnel: &Tunnel, source: Option<SourcePorts>) -> Passage {
    Passage {
        port: tunnel.port,
        vni: tunnel.vni,
        local: tunnel.local,
        remote: tunnel.remote,
        source,
    }
}

/// The first port that a device may have for a source: those below are the system's.
const FIRST: u16 = 1024;
/// The last block's end cannot be told to the kernel.
const LAST_BLOCK: u16 = u16::MAX / SourcePorts::BLOCK - 1;
const FIRST_BLOCK: u16 = FIRST / SourcePorts::BLOCK;

/// Gives each VXLAN device that is created source ports of its own, which no passage that stands
/// has.
///
/// Switches and network cards spread what a link carries by its source ports, so a device gets many
/// of them where there are few devices: 64 until a quarter of the ports is in use, 16 until two
/// fifths are, then 4. So there are enough for more than 10,000. Where none are left, a device has
/// none of its own.
pub fn assign_source_ports(steps: &mut [Step], standing: &BTreeSet<Passage>) {
    let mut free = None;
    for step in steps {
        if let Operation::CreateVxlan { source, .. } = &mut step.operation {
            let free = free.get_or_insert_with(|| Free::besides(standing));
            *source = free.take();
        }
    }
}

/// The blocks of source ports that no device has.
struct Free {
    used: BTreeSet<u16>,
    /// For each size, where to look for the next: before it all is used.
    next: BTreeMap<u16, u16>,
}

impl Free {
    fn besides(standing: &BTreeSet<Passage>) -> Self {
        let ranges = standing.iter().filter_map(|passage| passage.source);
        let blocks = ranges.flat_map(SourcePorts::blocks);
        Self {
            used: blocks.map(|port| port / SourcePorts::BLOCK).collect(),
            next: BTreeMap::new(),
        }
    }

    fn take(&mut self) -> Option<SourcePorts> {
        let all = usize::from(LAST_BLOCK - FIRST_BLOCK) + 1;
        let used = self.used.len();
        let preferred = if used * 4 < all {
            16
        } else if used * 5 < all * 2 {
            4
        } else {
            1
        };
        let mut sizes = SourcePorts::SIZES
            .into_iter()
            .filter(|size| *size <= preferred);
        sizes.find_map(|size| self.take_blocks(size))
    }

    fn take_blocks(&mut self, size: u16) -> Option<SourcePorts> {
        let start = self.next.get(&size).copied().unwrap_or(FIRST_BLOCK);
        let mut starts = (start..=LAST_BLOCK + 1 - size).step_by(usize::from(size));
        let found = starts.find(|start| self.used.range(*start..*start + size).next().is_none());
        let Some(first) = found else {
            self.next.insert(size, LAST_BLOCK + 1);
            return None;
        };
        self.used.extend(first..first + size);
        self.next.insert(size, first + size);
        Some(SourcePorts {
            low: first * SourcePorts::BLOCK,
            high: (first + size) * SourcePorts::BLOCK,
        })
    }
}

#[cfg(test)]
mod tests;
