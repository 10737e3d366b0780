//! Quotas: how much one pod may declare, and all of a node together, so that no author of pods can
//! take more of a node than others need. All of them are here; each is a setting.

/// How much is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Links that one pod may declare (the setting `max_links`).
    pub links: usize,
    /// Addresses that a declaration may give one end (`max_addresses`).
    pub addresses: usize,
    /// Routes that a declaration may give one end (`max_routes`).
    pub routes: usize,
    /// Links with a pod that only pods of other namespaces declare (`max_foreign_links`).
    pub foreign_links: usize,
    /// Devices that one node makes for links (`max_devices`).
    pub devices: usize,
}

impl Quotas {
    /// How many bytes the text of a declaration may have. With the default of `max_links` that is
    /// 256 KiB, which Kubernetes allows for all annotations of a pod together
    /// (`TotalAnnotationSizeLimitB` in k8s.io/apimachinery/pkg/api/validation/objectmeta.go).
    pub fn bytes(&self) -> usize {
        self.links.saturating_mul(128)
    }

    /// How many values the text may hold: lists, objects, keys and scalars. A link with an address
    /// at each end has 11.
    pub fn values(&self) -> usize {
        self.links.saturating_mul(16)
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            links: 2048,
            addresses: 64,
            routes: 64,
            foreign_links: 64,
            devices: 65_536,
        }
    }
}
