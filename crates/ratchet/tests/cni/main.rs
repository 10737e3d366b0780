//! The 58 points of the CNI checklist, one test each, named by the point's number. docs/cni.md has
//! the table of points.
//!
//! All tests are black box: they call the built binary as a runtime does, with real plugins or
//! small scripts as embedded plugins.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../../../cni/tests/answer/mod.rs"]
mod answer;

mod bench;
mod boot;
mod boot_faults;
mod chained;
mod check;
mod del;
mod delegate;
mod delegate_failures;
mod gc_status;
mod installed;
mod protocol;
mod runtime_fit;
