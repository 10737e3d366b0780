//! How users hear of what they have to fix.

mod outbox;

use ratchet_model::Reason;

pub(crate) use outbox::Outbox;

/// Posts warnings on pods, where `kubectl describe pod` shows them. The engine decides what to say
/// and when.
///
/// The engine's thread calls these: they return at once and do no I/O.
pub trait Events: Send {
    /// Returns whether a warning reaches its user now. While it does not, the engine keeps those
    /// that can wait.
    fn is_online(&self) -> bool;

    /// Warns of a pod, by the namespace and name that Kubernetes knows it by. The text has the
    /// reason, and what it is about. A warning that cannot be posted is dropped.
    fn warn(&self, namespace: &str, name: &str, reason: &Reason, text: &str);
}

/// Posts nothing: for tests and simulations in which no user reads events.
#[derive(Debug, Clone, Copy)]
pub struct NoEvents;

impl Events for NoEvents {
    fn is_online(&self) -> bool {
        false
    }

    fn warn(&self, _namespace: &str, _name: &str, _reason: &Reason, _text: &str) {}
}
