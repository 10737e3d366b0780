//! The agent: one long-lived process per node, which owns the node's links.
//!
//! This crate is the process: command line, logging, the lock on the node, the socket (`server`)
//! and the label source (`labels`), which share an async runtime, and how the agent is (`health`).
//! The state of links belongs to the engine ([`ratchet_engine`]), which runs on its own thread and
//! takes one command after another.
//! Nothing here may touch the kernel or the store.

mod carriers;
mod health;
mod labels;
mod lifecycle;
mod logging;
mod options;
mod server;

pub use lifecycle::run;
pub use options::AgentOptions;
