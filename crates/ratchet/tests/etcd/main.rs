//! Nodes that share a real etcd: the article's config, what it costs, and everything that can
//! befall etcd and the nodes.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod nodes;
mod outage;
mod reboot;
mod works;
