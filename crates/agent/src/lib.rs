//! The agent: one long-lived process a node, which owns the node's links.
//!
//! It knows the local sandboxes (`state`: on disk before anything is done), shares them with the
//! other nodes (the store), and makes the kernel match. ADD, DEL, a change in the store, a timer
//! and its own start all end in one call, `Engine::reconcile`.
//!
//! The socket is served by an async runtime (`server`); all state belongs to one engine thread,
//! which takes one command after another and so needs no locks.

mod effective;
mod engine;
mod facts;
mod lifecycle;
mod logging;
mod memory;
mod options;
mod server;
mod state;
mod watcher;

pub use lifecycle::run;
pub use options::AgentOptions;
