//! What a device leaves to the one that replaces it: the index by which daemons in the pod know it,
//! and what users have added to it.
//!
//! Only the type. The planner says what is left and who gets it; the agent keeps it on disk.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    link::{End, Route},
    names::{LinkId, SandboxId},
};

/// What the device of one end of a link had, in one sandbox.
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
