//! Conditions and reasons that are not of one end of a link.

use std::fmt;

/// The condition of a Link or a Topology that says whether its links can be made. Its reason is one
/// of [`Accepted`].
pub const ACCEPTED: &str = "Accepted";

/// The condition of a Topology that says whether all its links are up.
pub const READY: &str = "Ready";

/// Reasons of a link's end, beside the names of [`ratchet_model::Reason`].
pub mod end {
    /// The interface is there and complete.
    pub const WIRED: &str = "Wired";
    /// The pod's sandbox is not known on its node yet.
    pub const WAITING_FOR_SANDBOX: &str = "WaitingForSandbox";
    /// The pod started before the agent was installed: it must be started again.
    pub const STARTED_BEFORE_AGENT: &str = "StartedBeforeAgent";
    /// Nothing is left of the interface on the node.
    pub const REMOVED: &str = "Removed";
}

/// The reasons of the condition [`ACCEPTED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Accepted {
    /// Both pods are known, with node, underlay and VNI. The only one with the status `True`.
    Resolved,
    /// There is no such pod.
    PodNotFound,
    /// A pod has no node yet.
    NotScheduled,
    /// Several pods fit where one is meant.
    Ambiguous,
    /// A pod of another namespace is an end, and no LinkGrant there allows it.
    NotPermitted,
    /// Two declarations contradict each other, or claim one interface.
    Conflict,
    /// Another link has the VNI that is asked for.
    VNITaken,
    /// No VNI is free.
    VNIExhausted,
    /// A node's agent has not said where its tunnels end.
    NoUnderlay,
    /// A pod has its node's network, so it can have no link.
    HostNetwork,
    /// The declaration cannot be read, or asks for what Ratchet does not do.
    Unsupported,
}

impl Accepted {
    /// The word in the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolved => "Resolved",
            Self::PodNotFound => "PodNotFound",
            Self::NotScheduled => "NotScheduled",
            Self::Ambiguous => "Ambiguous",
            Self::NotPermitted => "NotPermitted",
            Self::Conflict => "Conflict",
            Self::VNITaken => "VNITaken",
            Self::VNIExhausted => "VNIExhausted",
            Self::NoUnderlay => "NoUnderlay",
            Self::HostNetwork => "HostNetwork",
            Self::Unsupported => "Unsupported",
        }
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use ratchet_model::reason::TABLE;

    use super::*;
    use crate::schema::REASON;

    #[test]
    fn reasons_fit_into_a_status_and_none_has_two_meanings() {
        let own = [
            end::WIRED,
            end::WAITING_FOR_SANDBOX,
            end::STARTED_BEFORE_AGENT,
            end::REMOVED,
        ];
        let of_the_model = TABLE.iter().map(|entry| entry.name);
        let mut all: Vec<&str> = own.into_iter().chain(of_the_model).collect();
        for name in &all {
            assert!(name.len() <= REASON, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()), "{name}");
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
