//! Nodes that share a real etcd: the article's config, its costs, and the failures of etcd and of
//! nodes.
#![allow(clippy::too_many_lines, clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod nodes;
mod outage;
mod reboot;
mod works;
