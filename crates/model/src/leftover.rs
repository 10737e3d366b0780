//! What a device leaves to the one that replaces it: the index by which daemons in the pod know it,
//! and what users have added to it.
//!
//! The planner computes which leftovers are to be kept, used and dropped. What is kept between two
//! plans is here; the engine also has it on disk.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    device::{Part, WantedEnd},
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

impl Leftover {
    /// To which end it is left.
    pub fn key(&self) -> LeftoverKey {
        LeftoverKey {
            link: self.link,
            end: self.end,
            sandbox: self.sandbox.clone(),
        }
    }
}

/// An end of a link in a sandbox, where it has one interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftoverKey {
    /// The link.
    pub link: LinkId,
    /// The end of it.
    pub end: End,
    /// The sandbox.
    pub sandbox: SandboxId,
}

/// The leftovers that are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers(BTreeMap<LeftoverKey, Leftover>);

/// What a plan says of leftovers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftoverChanges {
    /// What the devices that the plan replaces leave. It must be kept from before the first step
    /// is executed, where it survives the agent. It is complete only if addresses and routes were
    /// observed of every device, whether its alias says that it is complete or not.
    pub remembered: Vec<Leftover>,
    /// Those of links of which the plan makes all devices: of no use once these exist, which is
    /// when all steps of the link have succeeded.
    pub used: BTreeSet<LeftoverKey>,
    /// Those of links that are not wanted any more: of no use.
    pub dropped: BTreeSet<LeftoverKey>,
}

impl Leftovers {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Leftover> {
        self.0.values()
    }

    /// To which ends they are left.
    pub fn keys(&self) -> impl Iterator<Item = &LeftoverKey> {
        self.0.keys()
    }

    /// What is left to an end.
    pub fn of(&self, end: &WantedEnd) -> Option<&Leftover> {
        if self.0.is_empty() || end.alias.part != Part::Pod {
            return None;
        }
        self.0.get(&LeftoverKey {
            link: end.alias.link,
            end: end.alias.end,
            sandbox: end.alias.sandbox.clone()?,
        })
    }

    /// Before a plan is executed: keeps what it says. Returns whether anything is new.
    pub fn remember(&mut self, changes: &LeftoverChanges) -> bool {
        let mut is_new = false;
        for leftover in &changes.remembered {
            let before = self.0.insert(leftover.key(), leftover.clone());
            is_new |= before.as_ref() != Some(leftover);
        }
        is_new
    }

    /// After it was executed: drops what is of no use any more. `has_failed` tells the links of
    /// which a step did not succeed. Returns whether anything was dropped.
    pub fn finish(
        &mut self,
        changes: &LeftoverChanges,
        has_failed: impl Fn(LinkId) -> bool,
    ) -> bool {
        self.retain(|leftover| {
            let key = leftover.key();
            let is_used = changes.used.contains(&key) && !has_failed(key.link);
            !is_used && !changes.dropped.contains(&key)
        })
    }

    /// Drops all others. Returns whether there were any.
    pub fn retain(&mut self, is_needed: impl Fn(&Leftover) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|_, leftover| is_needed(leftover));
        self.0.len() != before
    }
}

impl FromIterator<Leftover> for Leftovers {
    fn from_iter<T: IntoIterator<Item = Leftover>>(leftovers: T) -> Self {
        let keyed = leftovers.into_iter().map(|left| (left.key(), left));
        Self(keyed.collect())
    }
}
