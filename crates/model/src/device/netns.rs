//! Where a device is.

use std::fmt;

use crate::names::SandboxId;

/// A network namespace in which devices of Ratchet's can be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Netns {
    /// The node's own: the agent runs in it, tunnels start in it and ends are parked in it.
    Node,
    /// A sandbox's.
    Sandbox(SandboxId),
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Netns::Node => f.write_str("node"),
            Netns::Sandbox(id) => write!(f, "sandbox {id}"),
        }
    }
}

/// A device's location: its namespace and its name there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// The namespace.
    pub netns: Netns,
    /// The name.
    pub name: String,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.name, self.netns)
    }
}
