//! From settings to what they come to on this node: defaults filled in and the underlay looked
//! up.

use std::time::Duration;

use ratchet_model::{Mtu, NodeName, wiring::Node};
use ratchet_protocol::{Failure, FailureKind, Settings};
use ratchet_store::StoreError;

use crate::kernel::Kernel;

/// Settings with all defaults filled in, and the node they describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effective {
    /// All of them said.
    pub settings: Settings,
    /// The node for wiring.
    pub node: Node,
}

impl Effective {
    /// How long other agents are to wait for a word from this one; none: for ever.
    pub fn node_timeout(&self) -> Option<Duration> {
        let seconds = self.settings.node_timeout.filter(|seconds| *seconds > 0)?;
        Some(Duration::from_secs(seconds.into()))
    }

    /// Looks at the node.
    pub fn resolve(settings: &Settings, kernel: &dyn Kernel) -> Result<Self, Failure> {
        let invalid = |text: String| Failure::new(FailureKind::Invalid, text);
        let underlay = kernel
            .underlay(
                settings.parent_interface.as_deref(),
                settings.parent_address,
            )
            .map_err(|e| invalid(e.to_string()))?;
        let name = node_name(settings).map_err(invalid)?;
        let node = Node {
            name: name.clone(),
            vtep: underlay.address,
            parent: underlay.index,
            mtu: Mtu::within_underlay(underlay.mtu, underlay.address),
            default_mtu: settings.mtu,
        };
        let settings = Settings {
            node: Some(name),
            parent_interface: Some(underlay.interface),
            parent_address: Some(underlay.address),
            ..settings.clone().or_defaults()
        };
        Ok(Self { settings, node })
    }
}

/// The node's name: as set, or the host's.
///
/// # Errors
/// When it is not set and the host's name cannot be read or is no node name.
pub fn node_name(settings: &Settings) -> Result<NodeName, String> {
    if let Some(name) = &settings.node {
        return Ok(name.clone());
    }
    let name = nix::unistd::gethostname()
        .map_err(|e| format!("cannot read the host's name: {e}; set \"node\""))?;
    name.to_string_lossy()
        .parse()
        .map_err(|e: ratchet_model::NameError| format!("{e}; set \"node\""))
}

/// A store's error as the socket's clients see it.
pub(crate) fn store_failure(error: &StoreError) -> Failure {
    let kind = match error {
        StoreError::Unavailable(_) => FailureKind::TryLater,
        StoreError::Broken(_) => FailureKind::Io,
        StoreError::Config(_) => FailureKind::Invalid,
    };
    Failure::new(kind, format!("store: {error}"))
}
