//! When everything has settled: a link that must be up carries frames, and its ends are as
//! declared, but for a forger's own: with an alias that it has kept, its root can say that an end
//! is complete which is not.

use std::collections::BTreeSet;

use super::expected::{Link, describe};
use crate::{
    declaration::address_text,
    history::{Kind, Wrong},
    network::{DeviceId, Endpoint, Inner, OVERHEAD, PodNumber, UNDERLAY_MTU},
};

/// Checks one link.
///
/// # Errors
/// What is wrong with it.
pub fn check(network: &Inner, link: &Link<'_>, forgers: &BTreeSet<PodNumber>) -> Result<(), Wrong> {
    let devices = devices(network, link)?;
    carries(network, link, devices)?;
    let ends = link.ends.iter().zip(devices);
    for (end, device) in ends.filter(|(end, _)| !forgers.contains(&end.pod)) {
        check_addresses(network, link, (end, device))?;
        check_mtu(network, link, device)?;
    }
    Ok(())
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

/// An end has the addresses that were declared.
fn check_addresses(
    network: &Inner,
    link: &Link<'_>,
    (end, device): (&Endpoint, DeviceId),
) -> Result<(), Wrong> {
    let mut declarations = link.declarations.iter();
    let declared = declarations.find_map(|(pod, link)| link.address_of(*pod, end));
    let Some(device) = network.device(device) else {
        return Ok(());
    };
    let wanted: Vec<String> = declared.into_iter().map(address_text).collect();
    let has: Vec<String> = device
        .addresses
        .iter()
        .map(|observed| observed.address.to_string())
        .collect();
    if has == wanted {
        return Ok(());
    }
    let text = format!(
        "{} has the addresses {has:?}, and {wanted:?} were declared",
        network.describe(device)
    );
    Err(Wrong::new(Kind::WrongAddresses, text))
}

/// An end has the MTU that was declared, or the one that a tunnel leaves.
fn check_mtu(network: &Inner, link: &Link<'_>, device: DeviceId) -> Result<(), Wrong> {
    let declared = link.declarations.iter().find_map(|(_, link)| link.mtu);
    let wanted = declared.unwrap_or(UNDERLAY_MTU - OVERHEAD);
    match network.device(device).filter(|device| device.mtu != wanted) {
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
