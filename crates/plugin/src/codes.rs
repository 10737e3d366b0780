//! Our own CNI codes, and the codes of the agent's failures.

use ratchet_cni::Error;
use ratchet_protocol::{ClientError, Failure, FailureKind};

/// Our codes, from 110. The specification leaves 100 and above to plugins; failures of embedded
/// plugins have the first of them.
pub mod own {
    /// The attachment exists already: a second ADD without a DEL. Not 7, since the config need not
    /// change.
    pub const EXISTS: u32 = 110;
    /// CHECK: something that ADD made has been changed or removed.
    pub const BROKEN: u32 = 111;
    /// The agent failed in an unexpected way.
    pub const AGENT: u32 = 112;
    /// Plugin and agent do not understand each other: they are too many releases apart.
    pub const PROTOCOL: u32 = 113;
}

/// Why there is no good answer from the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AgentError {
    /// There is no answer. What the agent did is unknown.
    Unreachable(Error),
    /// The agent refused.
    Refused(Failure),
}

impl From<AgentError> for Error {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Unreachable(error) => error,
            AgentError::Refused(Failure { kind, message, .. }) => match kind {
                FailureKind::Invalid => Error::invalid_config(message),
                FailureKind::TryLater => Error::try_again_later(message),
                FailureKind::Io => Error::io(message),
                FailureKind::Exists => Error::new(own::EXISTS, message),
                FailureKind::Broken => Error::new(own::BROKEN, message),
                FailureKind::Protocol => Error::new(own::PROTOCOL, message),
                FailureKind::Internal => Error::new(own::AGENT, message),
            },
        }
    }
}

impl From<ClientError> for AgentError {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        Self::Unreachable(match error {
            ClientError::NoAgent { .. } | ClientError::Broken { .. } => {
                Error::try_again_later(text)
            }
            ClientError::Garbled { .. } | ClientError::Incompatible { .. } => {
                Error::new(own::PROTOCOL, text)
            }
        })
    }
}
