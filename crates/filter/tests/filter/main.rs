//! The filter against the real kernel. Needs root; each test works in network namespaces that only
//! its own handles keep alive, so that nothing is left behind and tests do not see each other.

// The lint's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod changes;
mod forwarding;
mod packet;
mod receiving;
mod sending;
mod world;
