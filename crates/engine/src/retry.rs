//! Why something has to be tried again.
//!
//! What a command cannot finish is not lost: it is tried again by the next resync, which comes
//! sooner for that (see [`crate::resync`]). What these reasons add is what to tell the client that
//! waits, and what to log.

use std::fmt;

use ratchet_kernel::KernelError;
use ratchet_model::SandboxId;
use ratchet_protocol::{Failure, FailureKind};

/// What came of something that may have to be tried again.
pub(crate) type Tried<T = ()> = Result<T, Retry>;

/// The reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Retry {
    /// The store is offline or refuses. When it is offline, its return starts a resync at once.
    Store(Failure),
    /// The node has no underlay, or no name. Each resync looks for them.
    Node(Failure),
    /// The kernel does not answer, or refuses a step.
    Kernel(String),
    /// The state directory cannot be written.
    StateDir(String),
    /// A link gets no VNI: all are taken, or the facts at hand are stale and must be read again.
    Vnis,
    /// Something of ours is still in a leaving sandbox.
    NotSwept(SandboxId),
    /// A publish of a leaving sandbox had no answer and may still land: it is removed once more.
    Unsettled(SandboxId),
}

impl Retry {
    /// What the client is told that waits for this.
    pub fn failure(self) -> Failure {
        match self {
            Retry::Store(failure) | Retry::Node(failure) => failure,
            Retry::StateDir(_) => Failure::new(FailureKind::Io, self.to_string()),
            other => Failure::new(FailureKind::TryLater, other.to_string()),
        }
    }
}

impl From<Retry> for Failure {
    fn from(retry: Retry) -> Self {
        retry.failure()
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Retry::Store(failure) | Retry::Node(failure) => failure.fmt(f),
            Retry::Kernel(text) => f.write_str(text),
            Retry::StateDir(text) => write!(f, "cannot write to the state directory: {text}"),
            Retry::Vnis => f.write_str("a link between two nodes has no VNI yet"),
            Retry::NotSwept(id) => {
                write!(
                    f,
                    "sandbox {id} is leaving and still has devices of Ratchet"
                )
            }
            Retry::Unsettled(id) => {
                write!(
                    f,
                    "a record of sandbox {id} may still reach the store; removing it again"
                )
            }
        }
    }
}

impl From<KernelError> for Retry {
    fn from(error: KernelError) -> Self {
        Retry::Kernel(error.to_string())
    }
}

/// Brings together what came of several things, all of which were tried. The first reason counts:
/// all of them lead to the same resync.
pub(crate) fn all(tried: impl IntoIterator<Item = Tried>) -> Tried {
    tried.into_iter().fold(Ok(()), Result::and)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_tried_and_the_first_reason_counts() {
        let mut tried = 0;
        let parts = [Ok(()), Err(Retry::Vnis), Err(Retry::Kernel("no".into()))];
        let parts = parts.into_iter().inspect(|_| tried += 1);
        assert_eq!(all(parts), Err(Retry::Vnis));
        assert_eq!((tried, all([Ok(())])), (3, Ok(())));
    }

    #[test]
    fn a_failure_says_what_kind_of_retry_it_is() {
        let failure = Failure::new(FailureKind::Invalid, "bad URL");
        assert_eq!(Retry::Store(failure.clone()).failure(), failure);
        let kind = |retry: Retry| retry.failure().kind;
        assert_eq!(kind(Retry::StateDir("full".into())), FailureKind::Io);
        assert_eq!(kind(Retry::Vnis), FailureKind::TryLater);
    }
}
