//! Why a call to the agent fails without an answer.

use std::{io, path::PathBuf};

/// Why there is no answer from the agent. The messages include the cause, so that `source` returns
/// none: a chain of errors would repeat it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent listens on the socket.
    #[error("no agent answers on {}: {cause}", socket.display())]
    NoAgent {
        /// The socket.
        socket: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The connection failed, or the answer took too long.
    #[error("the agent on {} did not answer: {cause}", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The agent sent something that is not an answer.
    #[error(
        "expected an answer of Ratchet's protocol from the agent on {}: {problem}",
        socket.display()
    )]
    Garbled {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with the answer.
        problem: String,
    },
    /// Client and agent have no protocol number in common.
    #[error(
        "this version ({VERSION}) and the agent on {} have no protocol in common: {message}; \
         restart the agent",
        socket.display(),
        VERSION = env!("CARGO_PKG_VERSION")
    )]
    Incompatible {
        /// The socket.
        socket: PathBuf,
        /// The agent's message.
        message: String,
    },
}
