//! The command line.

use std::net::SocketAddr;

use clap::Args;
use ratchet_model::{Quotas, VniRange, declaration::CrossNamespace};

use crate::Config;

/// The options of `ratchet controller`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// A kubeconfig, or auto: the service account of the controller's pod
    #[arg(
        long,
        env = "RATCHET_KUBECONFIG",
        value_name = "FILE",
        default_value = "auto"
    )]
    pub kubeconfig: String,
    /// The namespace of the Lease
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAME",
        default_value = "ratchet"
    )]
    pub namespace: String,
    /// The Lease by which one of several controllers leads
    #[arg(
        long,
        env = "RATCHET_LEASE",
        value_name = "NAME",
        default_value = "ratchet-controller"
    )]
    pub lease: String,
    /// The most writes a second, over minutes; a minute's worth may come at once
    #[arg(
        long,
        env = "RATCHET_WRITES",
        value_name = "NUMBER",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub writes_per_second: u32,
    /// The most requests that wait for an answer at a time
    #[arg(
        long,
        env = "RATCHET_PARALLEL",
        value_name = "NUMBER",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub parallel: u16,
    /// The VNIs of links that declare none
    #[arg(
        long,
        env = "RATCHET_VNI_RANGE",
        value_name = "FIRST-LAST",
        default_value_t = VniRange::AUTOMATIC
    )]
    pub vni_range: VniRange,
    /// The VNIs that can be declared
    #[arg(
        long,
        env = "RATCHET_DECLARED_VNI_RANGE",
        value_name = "FIRST-LAST",
        default_value_t = VniRange::DECLARABLE
    )]
    pub declared_vni_range: VniRange,
    /// Links between pods of two namespaces: deny, consent (both pods want them) or allow
    #[arg(
        long,
        env = "RATCHET_CROSS_NAMESPACE",
        value_name = "WHICH",
        default_value_t = CrossNamespace::Consent
    )]
    pub cross_namespace: CrossNamespace,
    /// Accept that a node's tunnels end at an address which its Node object does not have
    ///
    /// Needed if tunnels have a network of their own. A node's agent could then name the address of
    /// another node, and get its frames.
    #[arg(long, env = "RATCHET_ANY_VTEP")]
    pub any_vtep: bool,
    /// Address and port at which the controller serves /livez, /readyz and /metrics over HTTP
    ///
    /// Who reaches the port may ask: there is neither TLS nor a password.
    #[arg(long, env = "RATCHET_HEALTH", value_name = "ADDRESS:PORT")]
    pub health: Option<SocketAddr>,
    /// Make links of meshnet's Topologies (networkop.co.uk/v1beta1), as KNE writes them
    ///
    /// Their Links go when a controller without this leads.
    #[arg(long, env = "RATCHET_MESHNET")]
    pub meshnet: bool,
    /// The log level: error, warn, info, debug, trace, or a filter such as ratchet_controller=debug
    #[arg(
        long,
        env = "RATCHET_LOG",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub log: String,
}

impl Options {
    /// The settings of the pure part.
    pub(crate) fn config(&self) -> Config {
        Config {
            quotas: Quotas::default(),
            cross_namespace: self.cross_namespace,
            any_vtep: self.any_vtep,
            automatic_vnis: self.vni_range,
            declarable_vnis: self.declared_vni_range,
        }
    }
}
