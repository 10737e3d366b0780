//! The protocol on the agent's unix socket: what plugin and command line ask, what the agent
//! answers.
//!
//! One JSON document a line; one request, then one answer a connection (`links` with `watch`: an
//! answer a change). Documented for other clients in docs/protocol.md. This crate holds the
//! messages and a blocking client; it has no async runtime and does nothing by itself.
//!
//! # Versions
//! Every message carries `protocol`, a number. Both sides ignore fields they do not know, so a
//! field can be added without a new number; the number goes up when an old peer would
//! misunderstand. An agent answers a request in the request's number if it is among [`SUPPORTED`],
//! which holds the number of the release before, too; else it says which it knows.

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
pub use report::{EndReport, LinkReport, LinkState, Links};
pub use settings::{
    AgentOption, DEFAULT_SOCKET, DEFAULT_STATE_DIR, DEFAULT_STORE, DefaultValue, Difference, Group,
    Kind, LocalSettings, PLUGIN_ONLY, SOCKET_VARIABLE, Setting, Settings, TablePart, WrongValue,
    all_settings, setting,
};

/// The newest protocol number, and what is spoken first.
pub const PROTOCOL: u32 = 1;
