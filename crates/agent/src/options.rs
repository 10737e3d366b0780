//! The agent's command line.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;
use ratchet_model::{Mtu, NodeName};
use ratchet_protocol::{DEFAULT_SOCKET, DEFAULT_STATE_DIR, Settings};

/// What `ratchet agent` takes. A CNI config's keys of the same names mean the same.
#[derive(Debug, Clone, Args)]
pub struct AgentOptions {
    /// Where nodes share their facts [default: sqlite:/var/lib/ratchet/ratchet.db]
    ///
    /// `sqlite:PATH` joins the agents of one host; `etcd://HOST:PORT,…` and `etcds://…` (with TLS)
    /// those of a cluster.
    #[arg(long, env = "RATCHET_STORE", value_name = "URL")]
    pub store: Option<String>,
    /// File with the certificates of the authorities that may vouch for etcd [default: the
    /// system's]
    #[arg(
        long,
        env = "RATCHET_ETCD_CA",
        value_name = "FILE",
        help_heading = "etcd"
    )]
    pub etcd_ca: Option<String>,
    /// File with the certificate to show to etcd
    #[arg(
        long,
        env = "RATCHET_ETCD_CERT",
        value_name = "FILE",
        help_heading = "etcd"
    )]
    pub etcd_cert: Option<String>,
    /// File with its private key
    #[arg(
        long,
        env = "RATCHET_ETCD_KEY",
        value_name = "FILE",
        help_heading = "etcd"
    )]
    pub etcd_key: Option<String>,
    /// User to log in to etcd as
    #[arg(
        long,
        env = "RATCHET_ETCD_USER",
        value_name = "NAME",
        help_heading = "etcd"
    )]
    pub etcd_user: Option<String>,
    /// File with the user's password
    #[arg(
        long,
        env = "RATCHET_ETCD_PASSWORD_FILE",
        value_name = "FILE",
        help_heading = "etcd"
    )]
    pub etcd_password_file: Option<String>,
    /// How the Kubernetes API is reached, for pods' labels: the path of a kubeconfig, or `auto`
    /// [default: it is not asked]
    #[arg(long, env = "RATCHET_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// What all keys in etcd begin with [default: /ratchet]
    #[arg(
        long,
        env = "RATCHET_ETCD_PREFIX",
        value_name = "PREFIX",
        help_heading = "etcd"
    )]
    pub etcd_prefix: Option<String>,
    /// After how many seconds without a sign of life from this agent the others remove its node's
    /// pods; 0: never [default: 3600]
    ///
    /// Only with etcd. A node that comes back later all the same publishes its pods again, and its
    /// links go on.
    #[arg(long, env = "RATCHET_NODE_TIMEOUT", value_name = "SECONDS")]
    pub node_timeout: Option<u32>,
    /// This node's name, unique among the nodes that share the store [default: the host's name]
    #[arg(long, env = "RATCHET_NODE", value_name = "NAME")]
    pub node: Option<NodeName>,
    /// The underlay's interface, on which tunnels start [default: the default route's]
    #[arg(long, env = "RATCHET_PARENT_INTERFACE", value_name = "INTERFACE")]
    pub parent_interface: Option<String>,
    /// The underlay's address, at which the other nodes reach this one (its VTEP) [default: the
    /// parent interface's first]
    #[arg(long, env = "RATCHET_PARENT_ADDRESS", value_name = "ADDRESS")]
    pub parent_address: Option<IpAddr>,
    /// MTU of links that set none, 68 to 65535 [default: the parent interface's less 50 (less 70
    /// over IPv6)]
    #[arg(long, env = "RATCHET_MTU", value_name = "BYTES", value_parser = parse_mtu)]
    pub mtu: Option<Mtu>,
    /// Unix socket to listen on; its directory is made, for root only
    #[arg(long, env = "RATCHET_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Directory for what must outlive the agent
    #[arg(long, env = "RATCHET_STATE_DIR", value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// What to log: error, warn, info, debug, trace, or a filter such as
    /// `info,ratchet_kernel=debug`
    #[arg(
        long,
        env = "RATCHET_LOG",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub log_level: String,
    /// File to log to, besides standard error
    #[arg(long, env = "RATCHET_LOG_FILE", value_name = "PATH")]
    pub log_file: Option<PathBuf>,
    /// Started by the plugin because no agent answered: gives way to a managed agent, and takes its
    /// settings from the plugin's config
    #[arg(long, hide = true)]
    pub on_demand: bool,
}

impl AgentOptions {
    /// What the command line says about store, node and underlay.
    pub fn settings(&self) -> Settings {
        Settings {
            store: self.store.clone(),
            node: self.node.clone(),
            parent_interface: self.parent_interface.clone(),
            parent_address: self.parent_address,
            mtu: self.mtu,
            etcd_ca: self.etcd_ca.clone(),
            etcd_cert: self.etcd_cert.clone(),
            etcd_key: self.etcd_key.clone(),
            etcd_user: self.etcd_user.clone(),
            etcd_password_file: self.etcd_password_file.clone(),
            etcd_prefix: self.etcd_prefix.clone(),
            node_timeout: self.node_timeout,
            kubeconfig: self.kubeconfig.clone(),
        }
    }
}

fn parse_mtu(text: &str) -> Result<Mtu, String> {
    let bytes: u32 = text
        .parse()
        .map_err(|_| format!("expected {} to {}", Mtu::MIN, Mtu::MAX))?;
    Mtu::try_from(bytes).map_err(|e| e.to_string())
}
