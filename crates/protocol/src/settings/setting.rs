//! A row of the table of settings.

use ratchet_model::{Mtu, Vni, VniRange, declaration::CrossNamespace};

/// A setting: a key of the network config, and an option of `ratchet agent` if the agent has it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key in the network config.
    pub key: &'static str,
    /// The values that the key takes.
    pub kind: Kind,
    /// What the setting belongs to.
    pub group: Group,
    /// The value when the setting is absent.
    pub default: DefaultValue,
    /// The agent's option. Settings for the plugin only have none.
    pub option: Option<AgentOption>,
    /// The documentation: paragraphs, separated by empty lines. Line breaks have no meaning.
    pub(super) doc: &'static str,
}

/// The agent's option for a setting.
#[derive(Debug, Clone, Copy)]
pub struct AgentOption {
    /// The flag, without its leading `--`.
    pub flag: &'static str,
    /// The name of the value in help texts.
    pub value: &'static str,
    /// The environment variable that is used when the flag is absent.
    pub variable: &'static str,
}

/// The value of an absent setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// None.
    None,
    /// This value.
    Value(&'static str),
    /// A value that depends on the node or the config, in words.
    Described(&'static str),
}

/// What a setting belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Pods, this node, or its agent.
    General,
    /// Which store is used, and what is asked of it.
    Store,
    /// How an etcd cluster is reached, which also decides which store is used.
    Etcd,
}

/// The values that a setting takes in the network config. The command line is less strict about
/// paths and log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A store's URL.
    Store,
    /// A node's name.
    Node,
    /// The name of a network interface.
    Interface,
    /// An IP address.
    Address,
    /// An MTU in bytes.
    Mtu,
    /// A range of VNIs.
    Vnis,
    /// A number of seconds.
    Seconds,
    /// How many of something are allowed.
    Count,
    /// How links are wired.
    Wiring,
    /// Which links between namespaces are allowed.
    CrossNamespace,
    /// The name of a user.
    User,
    /// A prefix of keys in etcd.
    Prefix,
    /// A path.
    Path,
    /// The path of a unix socket.
    Socket,
    /// The path of an executable program.
    Program,
    /// The path of a kubeconfig, or `auto`.
    Kubeconfig,
    /// A level of log messages.
    LogLevel,
    /// A host's name or IP address.
    Host,
    /// A TCP port.
    Port,
    /// An IP address and a port to listen at.
    Listen,
    /// True or false.
    Flag,
    /// The config of a CNI plugin or of a list of them. Only this kind is an object.
    Plugins,
}

impl Kind {
    /// The longest path of a unix socket: `sun_path` is 108 bytes with its NUL (unix(7)).
    pub const MAX_SOCKET_PATH: usize = 107;
    /// The levels of log messages.
    pub const LOG_LEVELS: [&'static str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    /// What is expected, for messages: "an absolute path".
    pub fn expected(self) -> String {
        let expected = match self {
            Self::Store => {
                "sqlite:/absolute/path, etcd://host:port, etcds://host:port or kubernetes"
            }
            Self::Node => "a node's name: 1 to 253 letters, digits, '-', '_' or '.'",
            Self::Interface => "the name of one of the node's interfaces, such as \"eth0\"",
            Self::Address => {
                "an IPv4 or IPv6 address of the parent interface, without a prefix length"
            }
            Self::Mtu => return format!("a number from {} to {}", Mtu::MIN, Mtu::MAX),
            Self::Vnis => {
                let (max, example) = (Vni::MAX, VniRange::AUTOMATIC);
                return format!("a range of VNIs from 1 to {max}, such as \"{example}\"");
            }
            Self::Seconds => "a number of seconds, or 0 for never",
            Self::Count => "a number from 1 up",
            Self::Wiring => "direct or stitched",
            Self::CrossNamespace => {
                return format!("one of {}", CrossNamespace::VALUES.join(", "));
            }
            Self::User => "a user's name",
            Self::Prefix => "the prefix of the keys in etcd, such as \"/ratchet\"",
            Self::Path => "an absolute path",
            Self::Socket => {
                let bytes = Self::MAX_SOCKET_PATH;
                return format!("the absolute path of a file, of at most {bytes} bytes");
            }
            Self::Program => {
                "the absolute path of an executable program (make it executable, or remove the key)"
            }
            Self::Kubeconfig => "the absolute path of a kubeconfig, or \"auto\"",
            Self::LogLevel => return format!("one of {}", Self::LOG_LEVELS.join(", ")),
            Self::Host => {
                "a host name or an IP address, such as \"etcd-client.ratchet.svc.cluster.local\""
            }
            Self::Port => "a port from 1 to 65535",
            Self::Listen => "an IP address and a port, such as \"0.0.0.0:9479\" or \"[::]:9479\"",
            Self::Flag => "true or false",
            Self::Plugins => "the config of a CNI plugin, or an object with a list of \"plugins\"",
        };
        expected.to_owned()
    }
}

impl Setting {
    /// The first paragraph of the documentation, on one line.
    pub fn summary(&self) -> String {
        self.paragraphs().next().unwrap_or_default()
    }

    /// The other paragraphs, each on one line, with an empty line between them.
    pub fn details(&self) -> String {
        self.paragraphs().skip(1).collect::<Vec<_>>().join("\n\n")
    }

    fn paragraphs(&self) -> impl Iterator<Item = String> {
        let words = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        self.doc.split("\n\n").map(words)
    }
}
