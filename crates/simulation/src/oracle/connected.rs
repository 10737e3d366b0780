//! When everything has settled: a link that must be up carries frames, and its ends are as
//! declared.

use super::expected::{Link, describe};
use crate::{
    declaration::address_text,
    history::{Kind, Wrong},
    network::{DeviceId, Inner, OVERHEAD, UNDERLAY_MTU},
};

/// Checks one link.
///
/// # Errors
/// What is wrong with it.
pub fn check(network: &Inner, link: &Link<'_>) -> Result<(), Wrong> {
    let devices = devices(network, link)?;
    carries(network, link, devices)?;
    check_addresses(network, link, devices)?;
    check_mtu(network, link, devices)
}

/// The devices of both ends.
fn devices(network: &Inner, link: &Link<'_>) -> Result<[DeviceId; 2], Wrong> {
    let find = |end: usize| {
        let (sandbox, interface) = (link.sandboxes[end], &link.ends[end].interface);
        network.find(sandbox.netns, interface).ok_or_else(|| {
            let text = format!(
                "{} must be up, but there is no {interface} in sandbox {}",
                describe(link.ends),
                sandbox.id
            );
            Wrong::new(Kind::LinkDown, text)
        })
    };
    Ok([find(0)?, find(1)?])
}

/// A frame that leaves by either end arrives at the other one, and nowhere else.
fn carries(network: &Inner, link: &Link<'_>, [a, z]: [DeviceId; 2]) -> Result<(), Wrong> {
    for (from, to) in [(a, z), (z, a)] {
        let Some(sender) = network.device(from) else {
            continue;
        };
        let receivers = network.receivers(sender);
        if receivers != [to] {
            let found: Vec<String> = receivers
                .iter()
                .filter_map(|id| network.device(*id))
                .map(|device| network.describe(device))
                .collect();
            let text = format!(
                "{} must be up, but a frame from {} arrives at [{}]",
                describe(link.ends),
                network.describe(sender),
                found.join(", ")
            );
            return Err(Wrong::new(Kind::LinkDown, text));
        }
    }
    Ok(())
}

/// Both ends have the addresses that were declared.
fn check_addresses(network: &Inner, link: &Link<'_>, devices: [DeviceId; 2]) -> Result<(), Wrong> {
    for (end, device) in link.ends.iter().zip(devices) {
        let mut declarations = link.declarations.iter();
        let declared = declarations.find_map(|(pod, link)| link.address_of(*pod, end));
        let Some(device) = network.device(device) else {
            continue;
        };
        let wanted: Vec<String> = declared.into_iter().map(address_text).collect();
        let has: Vec<String> = device
            .addresses
            .iter()
            .map(|observed| observed.address.to_string())
            .collect();
        if has != wanted {
            let text = format!(
                "{} has the addresses {has:?}, and {wanted:?} were declared",
                network.describe(device)
            );
            return Err(Wrong::new(Kind::WrongAddresses, text));
        }
    }
    Ok(())
}

/// Both ends have the MTU that was declared, or the one that a tunnel leaves.
fn check_mtu(network: &Inner, link: &Link<'_>, devices: [DeviceId; 2]) -> Result<(), Wrong> {
    let declared = link.declarations.iter().find_map(|(_, link)| link.mtu);
    let wanted = declared.unwrap_or(UNDERLAY_MTU - OVERHEAD);
    let devices = devices.into_iter().filter_map(|id| network.device(id));
    match devices.into_iter().find(|device| device.mtu != wanted) {
        Some(device) => {
            let text = format!(
                "{} has the MTU {}, expected {wanted}",
                network.describe(device),
                device.mtu
            );
            Err(Wrong::new(Kind::WrongMtu, text))
        }
        None => Ok(()),
    }
}
