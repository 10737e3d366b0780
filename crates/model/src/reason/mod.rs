//! Reasons: why a link is not up, what is wrong with a declaration, and what keeps a node from
//! working. Each has a code that programs can rely on, a message and a hint what to do.
//!
//! The [table](table) owns codes, meanings and texts; docs/reasons.md is made from it. A reason
//! decides nothing: what happens to a link is decided where the reason is found.

#[macro_use]
mod define;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;

pub use table::{Reason, TABLE};

/// What a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A link waits for something that comes by itself.
    Waiting,
    /// A link cannot be made until a person has corrected something.
    Conflict,
    /// A pod's labels or annotations are wrong.
    Declaration,
    /// The kernel could not be read, or did not do a step. That is tried again.
    Kernel,
    /// What concerns all links of a node.
    Node,
    /// A link is made, and may not do what its user expects.
    Warning,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The code: snake_case. It stays as it is for as long as there is a reason like this one.
    pub code: &'static str,
    /// The same in CamelCase, as Kubernetes writes the reasons of events.
    pub name: &'static str,
    /// What it is about.
    pub group: Group,
    /// What it means: a sentence.
    pub meaning: &'static str,
    /// What to do, with the names of the reason's data in braces.
    pub hint: &'static str,
}

impl Reason {
    /// The code: snake_case, stable.
    pub fn code(&self) -> &'static str {
        self.entry().code
    }

    /// The code in CamelCase.
    pub fn name(&self) -> &'static str {
        self.entry().name
    }

    /// Whether trying again is of no use until a person has corrected something.
    pub fn is_conflict(&self) -> bool {
        self.entry().group == Group::Conflict
    }

    /// Whether the link waits for something that comes by itself.
    pub fn is_waiting(&self) -> bool {
        self.entry().group == Group::Waiting
    }
}

/// The message; with the hint, unless the message says enough by itself.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        match self.says_hint() {
            true => write!(f, ": {}", self.hint()),
            false => Ok(()),
        }
    }
}
