//! Faults of a node's way to the store.

use ratchet_store::StoreError;

/// What is wrong between a node and the store.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// Nothing comes through.
    pub is_offline: bool,
    /// How many more calls take long.
    pub slow: u32,
    /// How many more changes are made without an answer.
    pub unanswered: u32,
    /// How many more reads are answered with former contents, and how old these are.
    pub stale: (u32, usize),
}

/// The failure of a call that does not come through.
pub(super) fn offline() -> StoreError {
    StoreError::Unavailable("the simulation cut this node off".to_owned())
}
