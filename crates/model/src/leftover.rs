//! What a device leaves to the one that comes in its place: the index by which daemons in the pod
//! know it, and what users have added to it. Words only; that it outlives the agent is the agent's
//! affair.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    device::{Netns, Observed, WantedEnd},
    link::{End, Route},
    names::{LinkId, SandboxId},
};

/// What one end of a link had, in one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// The link.
    pub link: LinkId,
    /// The end of it.
    pub end: End,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The device's index.
    pub index: u32,
    /// Addresses that are not ours.
    pub addresses: Vec<IpNet>,
    /// Routes that are not ours.
    pub routes: Vec<Route>,
}

impl Leftover {
    /// What a device that stands at the place of an end leaves, and what it had to be given itself
    /// but has not got while it is unfinished. None is left by what is parked.
    pub(crate) fn of(device: &Observed, end: &WantedEnd) -> Option<Self> {
        let Netns::Sandbox(sandbox) = &end.netns else {
            return None;
        };
        let mut left = Self {
            link: end.alias.link,
            end: end.alias.end,
            sandbox: sandbox.clone(),
            index: device.index,
            addresses: device
                .addresses
                .iter()
                .filter(|o| !o.ours)
                .map(|o| o.address)
                .collect(),
            routes: device
                .routes
                .iter()
                .filter(|o| !o.ours)
                .map(|o| o.route.clone())
                .collect(),
        };
        if let Some(before) = end.leftover.as_ref().filter(|_| device.alias.is_none()) {
            let new = |address: &&IpNet| !left.addresses.contains(address);
            let addresses: Vec<IpNet> = before.addresses.iter().filter(new).copied().collect();
            let routes: Vec<Route> = before
                .routes
                .iter()
                .filter(|r| !left.routes.contains(r))
                .cloned()
                .collect();
            left.addresses.extend(addresses);
            left.routes.extend(routes);
        }
        Some(left)
    }
}
