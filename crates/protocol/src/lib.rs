//! The protocol on the agent's unix socket: the requests of plugin and command line, and the
//! agent's answers.
//!
//! A message is a line with one JSON document. A connection has one request and one answer; `links`
//! with `watch` has an answer for each change. docs/protocol.md describes it for other clients.
//! This crate holds the messages and a blocking client. It has no async runtime and does nothing by
//! itself.
//!
//! # Versions
//! Every message has `protocol`, a number. Both sides ignore fields that they do not know, so a new
//! field needs no new number. The number goes up when an old peer would misunderstand. The agent
//! answers with the request's number if it is in [`SUPPORTED`], which includes the number of the
//! release before. Otherwise it answers which numbers it supports.

mod client;
mod error;
mod framing;
mod message;
mod report;
mod settings;
mod stream;

pub use client::Client;
pub use error::ClientError;
pub use framing::{MAX_MESSAGE, parse_reply, parse_request};
pub use message::{
    Attach, Attached, Attachment, Check, Collect, Detach, Failure, FailureKind, ForgetNode,
    Forgotten, Hello, Pod, Prepare, Prepared, Reply, Request, SUPPORTED,
};
pub use report::{EndReport, LinkReport, LinkState, Links, ReasonReport};
pub use settings::{
    AgentOption, DEFAULT_SOCKET, DEFAULT_STATE_DIR, DEFAULT_STORE, DefaultValue, Difference, Group,
    KUBERNETES_STORE, Kind, LocalSettings, PLUGIN_ONLY, SOCKET_VARIABLE, Setting, Settings,
    TablePart, WrongValue, all_settings, setting,
};

/// The newest protocol number, which is used first.
pub const PROTOCOL: u32 = 1;
