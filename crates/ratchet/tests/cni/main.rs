//! The 58 points of the CNI checklist, one test each, named by its number; docs/cni.md is the table
//! of them.
//!
//! All of it is black box: the built binary is called as a runtime calls it, with real plugins or
//! small scripts in the places of the embedded ones.
#![allow(clippy::unwrap_used, missing_docs)]

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
mod protocol;
mod runtime_fit;
