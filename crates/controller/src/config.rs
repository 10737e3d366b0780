//! What the pure part is told beside the API's objects.

use ratchet_model::{Quotas, VniRange, declaration::CrossNamespace};

/// Settings of the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How much a pod may declare.
    pub quotas: Quotas,
    /// Which links between namespaces are allowed.
    pub cross_namespace: CrossNamespace,
    /// Whether tunnels may end at addresses that the Node object does not have.
    pub any_vtep: bool,
    /// The VNIs of links that declare none.
    pub automatic_vnis: VniRange,
    /// The VNIs that can be declared.
    pub declarable_vnis: VniRange,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            quotas: Quotas::default(),
            cross_namespace: CrossNamespace::default(),
            any_vtep: false,
            automatic_vnis: VniRange::AUTOMATIC,
            declarable_vnis: VniRange::DECLARABLE,
        }
    }
}
