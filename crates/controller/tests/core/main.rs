//! The pure core against an API in memory.
#![allow(clippy::unwrap_used, clippy::too_many_lines)]

mod fake;
mod links;
mod meshnet;
mod vnis;
