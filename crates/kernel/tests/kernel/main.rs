//! The crate against the real kernel. Needs root; each test works in network namespaces that only
//! its own handles keep alive, so that nothing is left behind and tests do not see each other.

// The lint's exception for tests does not reach their helpers.
#![allow(clippy::too_many_lines, clippy::unwrap_used)]

mod delete;
mod errors;
mod forgery;
mod frames;
mod observe;
mod relocate;
mod site;
mod stitched;
mod underlay;
mod veth;
mod vxlan;
mod world;
