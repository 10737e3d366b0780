//! An interface as results and reports show it.

use serde::{Deserialize, Serialize};

use crate::link::Mac;

/// The state of an interface, read back after a plan was executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name in the sandbox.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
}
