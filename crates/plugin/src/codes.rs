//! CNI codes of our own, and what the agent's failures are in CNI's terms.

use ratchet_cni::Error;
use ratchet_protocol::{ClientError, Failure, FailureKind};

/// Codes beyond the specification's, from 110 up: the specification leaves 100 and more to plugins,
/// and embedded plugins' failures have the first of them.
pub mod own {
    /// The attachment exists already: a second ADD without a DEL. Not 7: nobody has to change a
    /// config.
    pub const EXISTS: u32 = 110;
    /// CHECK: something that ADD made has been changed or removed.
    pub const BROKEN: u32 = 111;
    /// The agent failed in a way that it did not foresee.
    pub const AGENT: u32 = 112;
    /// Plugin and agent do not understand each other: they are too many releases apart.
    pub const PROTOCOL: u32 = 113;
}

/// Why there is no good answer from the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AgentError {
    /// There is no answer at all: nobody knows what the agent did.
    Unreachable(Error),
    /// The agent says no.
    Refused(Failure),
}

impl AgentError {
    /// Whether the agent refused for this reason.
    pub fn is(&self, kind: FailureKind) -> bool {
        matches!(self, Self::Refused(failure) if failure.kind == kind)
    }
}

impl From<AgentError> for Error {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Unreachable(error) => error,
            AgentError::Refused(Failure { kind, message }) => match kind {
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
