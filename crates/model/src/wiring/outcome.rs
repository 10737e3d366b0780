//! What a wiring says.

use std::fmt;

use crate::device::Wanted;

/// What this node does for a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// The kernel object that it wants; none: nothing is made and nothing kept.
    pub wanted: Option<Wanted>,
    /// What the link waits for, or why it cannot be made.
    pub obstacle: Option<Obstacle>,
}

/// Why a link is not up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// It waits for something that comes by itself.
    Waiting(String),
    /// It waits for a pod that no record names.
    Unheard(String),
    /// A person has to correct something.
    Error(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::Waiting(text) | Obstacle::Unheard(text) | Obstacle::Error(text) => {
                f.write_str(text)
            }
        }
    }
}
