//! The agent: one long-lived process a node, which owns the node's links.
//!
//! This crate is the process: command line, logging, the lock on the node, the socket. The socket
//! is served by an async runtime (`server`); all state belongs to the engine ([`ratchet_engine`]),
//! which runs on a thread of its own and takes one command after another.

mod lifecycle;
mod logging;
mod options;
mod server;

pub use lifecycle::run;
pub use options::AgentOptions;
