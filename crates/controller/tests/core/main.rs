//! The pure core against an API in memory.

mod fake;
mod links;
mod vnis;
