//! The table of settings. To add one, add an entry here.
//!
//! The table has three parts, for settings of three kinds:
//! * [`Settings`]: plugin and agent must agree on them.
//! * [`LocalSettings`]: plugin and agent each use their own.
//! * [`PLUGIN_ONLY`]: only the plugin uses them.
//!
//! The doc comment of an entry is the text of `ratchet agent --help`; its first paragraph is also
//! the text in README.md, which a test compares.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use ratchet_model::{Mtu, NodeName, VniRange, WiringKind, declaration::CrossNamespace};
use serde::{Deserialize, Serialize};

use super::{
    AgentOption, DEFAULT_LOG_LEVEL, DEFAULT_SOCKET, DEFAULT_STATE_DIR, DEFAULT_STORE, DefaultValue,
    Group, Kind, SOCKET_VARIABLE, Setting, TablePart, WrongValue, define::settings,
};

settings! {
    /// The settings on which an agent and every network config of its node must agree: store, node
    /// and underlay. `None` means that a setting is absent. Then an agent takes the default, and a
    /// config agrees with any value.
    pub struct Settings;

    /// Where the nodes share their state: `sqlite:PATH` for the agents of one machine,
    /// `etcd://HOST:PORT,…` or `etcds://…` (TLS) for those of a cluster, `kubernetes` for Links in
    /// the Kubernetes API
    store: String {
        kind: Store,
        group: Store,
        default: DefaultValue::Value(DEFAULT_STORE),
        flag: "store",
        value: "URL",
        variable: "RATCHET_STORE",
    }
    /// This node's name, unique among the nodes that share the store
    node: NodeName {
        kind: Node,
        group: General,
        default: DefaultValue::Described("the host's name"),
        flag: "node",
        value: "NAME",
        variable: "RATCHET_NODE",
    }
    /// The underlay's interface, on which tunnels start
    parent_interface: String {
        kind: Interface,
        group: General,
        default: DefaultValue::Described("the default route's interface"),
        flag: "parent-interface",
        value: "INTERFACE",
        variable: "RATCHET_PARENT_INTERFACE",
    }
    /// The underlay's address, at which the other nodes reach this one (its VTEP)
    parent_address: IpAddr {
        kind: Address,
        group: General,
        default: DefaultValue::Described("the parent interface's first address"),
        flag: "parent-address",
        value: "ADDRESS",
        variable: "RATCHET_PARENT_ADDRESS",
    }
    /// The MTU of links that declare none: 68 to 65535
    mtu: Mtu {
        kind: Mtu,
        group: General,
        default: DefaultValue::Described("the parent interface's MTU less 50, over IPv6 less 70"),
        flag: "mtu",
        value: "BYTES",
        variable: "RATCHET_MTU",
    }
    /// How links are wired whose declaration does not say it: `direct` (the pod's interface is the
    /// veth or the VXLAN device itself) or `stitched` (it is a veth that is there from the start
    /// and stays as long as the pod does)
    ///
    /// A change of it reaches a link when one of its pods starts again.
    wiring: WiringKind {
        kind: Wiring,
        group: General,
        default: DefaultValue::Value("direct"),
        flag: "wiring",
        value: "KIND",
        variable: "RATCHET_WIRING",
    }
    /// The VNIs that links get whose declarations name none. It must be the same on all nodes
    ///
    /// 4096, Calico's, is left out of this range and of `declared_vni_range`.
    vni_range: VniRange {
        kind: Vnis,
        group: Store,
        default: DefaultValue::Value("11-999999"),
        flag: "vni-range",
        value: "FIRST-LAST",
        variable: "RATCHET_VNI_RANGE",
    }
    /// The VNIs that pods may declare
    ///
    /// A pod that declares another one is not started. Pods that run keep theirs.
    declared_vni_range: VniRange {
        kind: Vnis,
        group: General,
        default: DefaultValue::Value("1000000-16777215"),
        flag: "declared-vni-range",
        value: "FIRST-LAST",
        variable: "RATCHET_DECLARED_VNI_RANGE",
    }
    /// With etcd: after how many seconds without a sign of life from this node's agent the other
    /// agents remove its pods; 0: never
    ///
    /// A node that comes back later publishes its pods again, and their links continue.
    //
    // By default a node has enough time to come back after a reboot or the replacement of a switch,
    // and a cluster whose nodes come and go does not fill up with records. Nothing waits for the
    // timeout: a pod that is started on another node replaces its record at once, and Kubernetes
    // starts it there after 5 minutes.
    node_timeout: u32 {
        kind: Seconds,
        group: General,
        default: DefaultValue::Value("3600"),
        flag: "node-timeout",
        value: "SECONDS",
        variable: "RATCHET_NODE_TIMEOUT",
    }
    /// How many links a pod may declare
    max_links: NonZeroU32 {
        kind: Count,
        group: General,
        default: DefaultValue::Value("2048"),
        flag: "max-links",
        value: "NUMBER",
        variable: "RATCHET_MAX_LINKS",
    }
    /// How many addresses a declaration may give an end of a link
    max_addresses: NonZeroU32 {
        kind: Count,
        group: General,
        default: DefaultValue::Value("64"),
        flag: "max-addresses",
        value: "NUMBER",
        variable: "RATCHET_MAX_ADDRESSES",
    }
    /// How many routes a declaration may give an end of a link
    max_routes: NonZeroU32 {
        kind: Count,
        group: General,
        default: DefaultValue::Value("64"),
        flag: "max-routes",
        value: "NUMBER",
        variable: "RATCHET_MAX_ROUTES",
    }
    /// How many links pods of other namespaces may have with a pod that does not declare them
    max_foreign_links: NonZeroU32 {
        kind: Count,
        group: General,
        default: DefaultValue::Value("64"),
        flag: "max-foreign-links",
        value: "NUMBER",
        variable: "RATCHET_MAX_FOREIGN_LINKS",
    }
    /// How many devices the agent makes on its node for links: two for a link within the node, one
    /// for a link with another node
    max_devices: NonZeroU32 {
        kind: Count,
        group: General,
        default: DefaultValue::Value("65536"),
        flag: "max-devices",
        value: "NUMBER",
        variable: "RATCHET_MAX_DEVICES",
    }
    /// Links between pods of two namespaces: `deny`, with `consent` of both pods, or `allow` unless
    /// a pod's `ratchet.dev/accept` says otherwise
    cross_namespace: CrossNamespace {
        kind: CrossNamespace,
        group: General,
        default: DefaultValue::Value("consent"),
        flag: "cross-namespace",
        value: "POLICY",
        variable: "RATCHET_CROSS_NAMESPACE",
    }
    /// The path of a kubeconfig, or `auto`: the agent reads the labels and annotations of its
    /// node's pods from the Kubernetes API
    ///
    /// `auto` takes the service account of the agent's pod, or else the first kubeconfig that
    /// exists at a usual path.
    kubeconfig: String {
        kind: Kubeconfig,
        group: General,
        default: DefaultValue::Described("the API is not asked"),
        flag: "kubeconfig",
        value: "FILE",
        variable: "RATCHET_KUBECONFIG",
    }
    /// File with the CA certificates for etcd's servers
    etcd_ca: String {
        kind: Path,
        group: Etcd,
        default: DefaultValue::Described("the system's CA certificates"),
        flag: "etcd-ca",
        value: "FILE",
        variable: "RATCHET_ETCD_CA",
    }
    /// File with the client certificate for etcd
    etcd_cert: String {
        kind: Path,
        group: Etcd,
        default: DefaultValue::None,
        flag: "etcd-cert",
        value: "FILE",
        variable: "RATCHET_ETCD_CERT",
    }
    /// File with the private key of the client certificate
    etcd_key: String {
        kind: Path,
        group: Etcd,
        default: DefaultValue::None,
        flag: "etcd-key",
        value: "FILE",
        variable: "RATCHET_ETCD_KEY",
    }
    /// User to log in to etcd as
    etcd_user: String {
        kind: User,
        group: Etcd,
        default: DefaultValue::None,
        flag: "etcd-user",
        value: "NAME",
        variable: "RATCHET_ETCD_USER",
    }
    /// File with the user's password
    etcd_password_file: String {
        kind: Path,
        group: Etcd,
        default: DefaultValue::None,
        flag: "etcd-password-file",
        value: "FILE",
        variable: "RATCHET_ETCD_PASSWORD_FILE",
    }
    /// Prefix of all of Ratchet's keys in etcd
    etcd_prefix: String {
        kind: Prefix,
        group: Etcd,
        default: DefaultValue::Value("/ratchet"),
        flag: "etcd-prefix",
        value: "PREFIX",
        variable: "RATCHET_ETCD_PREFIX",
    }
}

settings! {
    /// The settings of one process: how a plugin reaches and starts its agent, and how an agent
    /// runs. They are not compared.
    pub struct LocalSettings;

    /// The agent's unix socket; its directory is created for root only
    socket: String {
        kind: Socket,
        group: General,
        default: DefaultValue::Value(DEFAULT_SOCKET),
        flag: "socket",
        value: "PATH",
        variable: SOCKET_VARIABLE,
    }
    /// Directory in which plugin and agent keep their state
    state_dir: String {
        kind: Path,
        group: General,
        default: DefaultValue::Value(DEFAULT_STATE_DIR),
        flag: "state-dir",
        value: "DIR",
        variable: "RATCHET_STATE_DIR",
    }
    /// File with the key under which the agent signs its devices; made at its first start
    ///
    /// It is not in the state directory, so that who loses that keeps the key. Without the key the
    /// agent still knows the devices of its pods, and signs them again.
    node_key: String {
        kind: Path,
        group: General,
        default: DefaultValue::Described("the state directory's path and `.key`"),
        flag: "node-key",
        value: "FILE",
        variable: "RATCHET_NODE_KEY",
    }
    /// What the agent logs: `off`, `error`, `warn`, `info`, `debug` or `trace`
    ///
    /// The command line also takes a filter such as `info,ratchet_kernel=debug`.
    log_level: String {
        kind: LogLevel,
        group: General,
        default: DefaultValue::Value(DEFAULT_LOG_LEVEL),
        flag: "log-level",
        value: "LEVEL",
        variable: "RATCHET_LOG",
    }
    /// File that the agent logs to, besides standard error
    log_file: String {
        kind: Path,
        group: General,
        default: DefaultValue::None,
        flag: "log-file",
        value: "PATH",
        variable: "RATCHET_LOG_FILE",
    }
    /// Address and port at which the agent serves `/livez`, `/readyz` and `/metrics` over HTTP
    ///
    /// Who reaches the port may ask: there is neither TLS nor a password.
    health: SocketAddr {
        kind: Listen,
        group: General,
        default: DefaultValue::None,
        flag: "health",
        value: "ADDRESS:PORT",
        variable: "RATCHET_HEALTH",
    }
    /// Whether the result of ADD has the addresses of links, as Multus wants it
    ///
    /// Multus then writes them into the pod's annotation `k8s.v1.cni.cncf.io/network-status`.
    /// containerd ignores them. Not with CRI-O, which takes all addresses of a result for
    /// the pod's own.
    report_addresses: bool {
        kind: Flag,
        group: General,
        default: DefaultValue::Value("false"),
        flag: "report-addresses",
        value: "BOOL",
        variable: "RATCHET_REPORT_ADDRESSES",
    }
}

/// The settings that only the plugin uses.
pub const PLUGIN_ONLY: &[Setting] = &[
    Setting {
        key: "delegate",
        kind: Kind::Plugins,
        group: Group::General,
        default: DefaultValue::Described("required, unless chained"),
        option: None,
        doc: "The plugin, or list of `plugins`, for pods that are not Ratchet's",
    },
    Setting {
        key: "boot_network",
        kind: Kind::Plugins,
        group: Group::General,
        default: DefaultValue::Described("the delegate"),
        option: None,
        doc: "The plugin, or list of `plugins`, that runs first for Ratchet's pods: it makes eth0",
    },
    Setting {
        key: "use_labels",
        kind: Kind::Flag,
        group: Group::General,
        default: DefaultValue::Value("true"),
        option: None,
        doc: "Whether labels declare links, or only annotations",
    },
    Setting {
        key: "child_path",
        kind: Kind::Program,
        group: Group::General,
        default: DefaultValue::Described("this program"),
        option: None,
        doc: "The program to start as the agent when none answers",
    },
    Setting {
        key: "etcd_host",
        kind: Kind::Host,
        group: Group::Etcd,
        default: DefaultValue::None,
        option: None,
        doc: "The store is etcd on this host, as in the config of 2017",
    },
    Setting {
        key: "etcd_port",
        kind: Kind::Port,
        group: Group::Etcd,
        // etcd's client port (IANA: etcd-client).
        default: DefaultValue::Value("2379"),
        option: None,
        doc: "The port of `etcd_host`",
    },
];
