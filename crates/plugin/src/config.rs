//! Ratchet's own keys of the network config: those of 2017, and those that came later.
//!
//! Reads and checks what can be checked without the node: whether an address is on an interface or
//! a store can be reached is the agent's to say.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use nix::unistd::{AccessFlags, access};
use ratchet_cni::{Config, Embedded, Error, Outer};
use ratchet_model::{Mtu, NodeName, nearest};
use ratchet_protocol::{DEFAULT_SOCKET, DEFAULT_STATE_DIR, Settings};
use serde_json::Value;

/// Our keys.
const OURS: [&str; 23] = [
    "etcd_host",
    "etcd_port",
    "store",
    "etcd_ca",
    "etcd_cert",
    "etcd_key",
    "etcd_user",
    "etcd_password_file",
    "etcd_prefix",
    "node_timeout",
    "kubeconfig",
    "child_path",
    "parent_interface",
    "parent_address",
    "use_labels",
    "delegate",
    "boot_network",
    "mtu",
    "node",
    "socket",
    "state_dir",
    "log_level",
    "log_file",
];
/// Keys that others put there, and `cniDir`, which 2017's code had and nothing needs any more.
const THEIRS: [&str; 10] = [
    "cniVersion",
    "name",
    "type",
    "args",
    "ipam",
    "dns",
    "prevResult",
    "runtimeConfig",
    "capabilities",
    "cniDir",
];
/// The specification's own namespace for keys.
const RESERVED_PREFIX: &str = "cni.dev/";

/// etcd's client port (IANA: etcd-client), as in 2017.
const ETCD_PORT: u16 = 2379;
/// The longest path of a unix socket: `sun_path` is 108 bytes with its NUL (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What the config says, defaults filled in where the plugin itself needs them.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// What agent and config must agree on.
    pub settings: Settings,
    /// The program to start as the agent; `None` is this one.
    pub child_path: Option<PathBuf>,
    pub use_labels: bool,
    pub delegate: Option<Embedded>,
    pub boot_network: Option<Embedded>,
    pub socket: PathBuf,
    pub state_dir: PathBuf,
    pub log_level: Option<String>,
    pub log_file: Option<PathBuf>,
    /// What is odd, but no reason to fail.
    pub warnings: Vec<String>,
}

impl Keys {
    /// Reads the keys; the first that is wrong is refused with code 7.
    pub fn strict(config: &Config) -> Result<Self, Error> {
        let (keys, problems) = read(config);
        problems.into_iter().next().map_or(Ok(keys), Err)
    }

    /// Reads what can be read, for DEL: what is wrong becomes a warning and has its default.
    pub fn lenient(config: &Config) -> Self {
        let (mut keys, problems) = read(config);
        keys.warnings.extend(problems.iter().map(Error::to_string));
        keys
    }

    /// What Ratchet's pods get first.
    pub fn boot(&self) -> Option<&Embedded> {
        self.boot_network.as_ref().or(self.delegate.as_ref())
    }

    /// All embedded plugins or lists, each once.
    pub fn embedded(&self) -> impl DoubleEndedIterator<Item = &Embedded> {
        self.delegate.iter().chain(&self.boot_network)
    }
}

/// A config being read: what is wrong with it is collected.
struct Reader<'a> {
    config: &'a Config,
    problems: Vec<Error>,
    warnings: Vec<String>,
}

fn read(config: &Config) -> (Keys, Vec<Error>) {
    let mut reader = Reader {
        config,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    reader.unknown_keys();
    let keys = Keys {
        settings: reader.settings(),
        child_path: reader.child_path(),
        use_labels: reader.flag("use_labels").unwrap_or(true),
        delegate: reader.embedded("delegate"),
        boot_network: reader.embedded("boot_network"),
        socket: reader.socket().unwrap_or_else(|| DEFAULT_SOCKET.into()),
        state_dir: reader
            .path("state_dir")
            .unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
        log_level: reader.log_level(),
        log_file: reader.path("log_file"),
        warnings: std::mem::take(&mut reader.warnings),
    };
    (keys, reader.problems)
}

impl Reader<'_> {
    fn unknown_keys(&mut self) {
        for (key, _) in self.config.object().iter() {
            // As in Go, the case of a key does not matter.
            let is = |known: &&str| known.eq_ignore_ascii_case(key);
            if OURS.iter().chain(&THEIRS).any(is) || key.starts_with(RESERVED_PREFIX) {
                continue;
            }
            let hint = nearest(key, OURS.into_iter().chain(THEIRS));
            let hint = hint
                .map(|near| format!("; is {near:?} meant?"))
                .unwrap_or_default();
            self.warnings.push(format!(
                "the config's key {key:?} is not known and has no effect{hint}"
            ));
        }
    }

    /// Notes that a key's value is not what it should be.
    fn refuse<T>(&mut self, key: &str, expected: &str) -> Option<T> {
        let value = self.config.raw_key(key).map_or("null", |raw| raw.get());
        // What may be a password is not repeated, and nobody reads more than this of a value.
        let shown = if value.contains('@') {
            "(not shown)".to_owned()
        } else {
            value.chars().take(100).collect()
        };
        self.problem(format!(
            "the config's key {key:?} is {shown}: expected {expected}"
        ));
        None
    }

    fn problem(&mut self, text: String) {
        let what_to_do =
            "correct it in the network config, which usually is a file in /etc/cni/net.d";
        self.problems
            .push(Error::invalid_config(text).with_details(what_to_do));
    }

    /// The key's value; absent, `null` and the empty string are one, as in Go.
    fn value(&self, key: &str) -> Option<Value> {
        let raw = self.config.raw_key(key)?;
        let value = serde_json::from_str(raw.get()).unwrap_or(Value::Null);
        Some(value).filter(|value| *value != Value::String(String::new()))
    }

    fn text(&mut self, key: &str, expected: &str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) if !text.contains('\0') => Some(text),
            _ => self.refuse(key, expected),
        }
    }

    fn parsed<T: FromStr>(&mut self, key: &str, expected: &str) -> Option<T> {
        let text = self.text(key, expected)?;
        text.parse().ok().or_else(|| self.refuse(key, expected))
    }

    /// A number, or the string that people and 2017's config write for one.
    fn number<T: TryFrom<u32>>(&mut self, key: &str, expected: &str) -> Option<T> {
        let number = match self.value(key)? {
            Value::Number(number) => number
                .as_u64()
                .and_then(|number| u32::try_from(number).ok()),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .or_else(|| self.refuse(key, expected))
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(flag) => Some(flag),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => self.refuse(key, "true or false"),
        }
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        let expected = "an absolute path";
        let text = self.text(key, expected)?;
        if text.starts_with('/') {
            Some(text.into())
        } else {
            self.refuse(key, expected)
        }
    }

    /// The path of a file that the agent will read.
    fn file(&mut self, key: &str) -> Option<String> {
        self.path(key)
            .map(|path| path.to_string_lossy().into_owned())
    }

    fn kubeconfig(&mut self) -> Option<String> {
        let expected = "the absolute path of a kubeconfig, or \"auto\"";
        let text = self.text("kubeconfig", expected)?;
        if text == "auto" || text.starts_with('/') {
            Some(text)
        } else {
            self.refuse("kubeconfig", expected)
        }
    }

    fn settings(&mut self) -> Settings {
        let interface = "the name of one of the node's interfaces, such as \"eth0\"";
        let parent_interface = self.text("parent_interface", interface);
        let good = |name: &String| ratchet_cni::validate_interface_name(name).is_ok();
        let parent_interface = match parent_interface {
            Some(name) if !good(&name) => self.refuse("parent_interface", interface),
            name => name,
        };
        Settings {
            store: self.store(),
            node: self.parsed::<NodeName>(
                "node",
                "a node's name: 1 to 253 letters, digits, '-', '_' or '.'",
            ),
            parent_interface,
            parent_address: self.parsed::<IpAddr>(
                "parent_address",
                "an IPv4 or IPv6 address of the parent interface, without a prefix length",
            ),
            mtu: self.number::<Mtu>(
                "mtu",
                &format!("a number from {} to {}", Mtu::MIN, Mtu::MAX),
            ),
            etcd_ca: self.file("etcd_ca"),
            etcd_cert: self.file("etcd_cert"),
            etcd_key: self.file("etcd_key"),
            etcd_user: self.text("etcd_user", "a user's name"),
            etcd_password_file: self.file("etcd_password_file"),
            kubeconfig: self.kubeconfig(),
            etcd_prefix: self.text(
                "etcd_prefix",
                "what the keys in etcd begin with, such as \"/ratchet\"",
            ),
            node_timeout: self.number("node_timeout", "a number of seconds, or 0 for never"),
        }
    }

    /// The store's URL, in the form in which agents write it.
    fn store(&mut self) -> Option<String> {
        let etcd = self.etcd();
        let forms = "sqlite:/absolute/path, etcd://host:port, etcds://host:port or kubernetes";
        let store = self
            .text("store", forms)
            .and_then(|store| match store.split_once(':') {
                Some(("sqlite", path)) => {
                    // sqlite:///path is what other programs write; it means the same.
                    let path = path.strip_prefix("//").unwrap_or(path);
                    if path.starts_with('/') && !path.ends_with('/') {
                        Some(format!("sqlite:{path}"))
                    } else {
                        self.refuse("store", "sqlite: and the absolute path of a file")
                    }
                }
                Some(("etcd" | "etcds", rest)) if rest.len() > 2 && rest.starts_with("//") => {
                    Some(store)
                }
                None if store == "kubernetes" => Some(store),
                _ => self.refuse("store", forms),
            });
        let store = match (etcd, store) {
            (Some(etcd), Some(store)) if etcd != store => {
                self.problem(format!(
                    "the config's keys \"store\" and \"etcd_host\" are at odds ({etcd} by the \
                     latter): expected one of them"
                ));
                Some(store)
            }
            (etcd, store) => store.or(etcd),
        };
        if let Some(problem) = store.as_deref().and_then(not_built_in) {
            self.problem(problem);
        }
        store
    }

    /// 2017's two keys as a URL.
    fn etcd(&mut self) -> Option<String> {
        let expected =
            "a host name or an IP address, such as \"etcd-client.ratchet.svc.cluster.local\"";
        let port = self.number::<u16>("etcd_port", "a port from 1 to 65535");
        let port = if port == Some(0) {
            self.refuse("etcd_port", "a port from 1 to 65535")
        } else {
            port
        };
        let Some(host) = self.text("etcd_host", expected) else {
            if port.is_some() {
                self.warnings.push(
                    "the config's key \"etcd_port\" has no effect without \"etcd_host\"".into(),
                );
            }
            return None;
        };
        let port = port.unwrap_or(ETCD_PORT);
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(&host);
        if bare.parse::<std::net::Ipv6Addr>().is_ok() {
            return Some(format!("etcd://[{bare}]:{port}"));
        }
        if host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        {
            return Some(format!("etcd://{host}:{port}"));
        }
        self.refuse("etcd_host", expected)
    }

    fn child_path(&mut self) -> Option<PathBuf> {
        let path = self.path("child_path")?;
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() && access(&path, AccessFlags::X_OK).is_ok() => {
                Some(path)
            }
            Err(error) if is_absent(&error) => {
                let path = path.display();
                self.warnings.push(format!(
                    "the config's key \"child_path\" names {path}, which does not exist; this \
                     program is the agent instead"
                ));
                None
            }
            _ => self.refuse(
                "child_path",
                "a program that can be executed (make it executable, or remove the key)",
            ),
        }
    }

    fn socket(&mut self) -> Option<PathBuf> {
        let path = self.path("socket")?;
        let fits = path.as_os_str().len() <= MAX_SOCKET_PATH
            && path.file_name().is_some()
            && path != Path::new("/");
        if fits {
            Some(path)
        } else {
            self.refuse("socket", "the path of a file, of 107 bytes at most")
        }
    }

    fn log_level(&mut self) -> Option<String> {
        let expected = format!("one of {}", LOG_LEVELS.join(", "));
        let level = self.text("log_level", &expected)?.to_ascii_lowercase();
        if LOG_LEVELS.contains(&level.as_str()) {
            Some(level)
        } else {
            self.refuse("log_level", &expected)
        }
    }

    /// A plugin or a list of them. Nothing is run or looked up here.
    fn embedded(&mut self, key: &str) -> Option<Embedded> {
        let raw = self.config.raw_key(key)?;
        match Outer::of(self.config).and_then(|outer| Embedded::parse(raw, &outer)) {
            Ok(embedded) => Some(embedded),
            Err(error) => {
                self.problems
                    .push(error.context(&format!("the config's key {key:?}")));
                None
            }
        }
    }
}

/// Stores of the design that this build has no client for: remove one here when it lands.
fn not_built_in(store: &str) -> Option<String> {
    let scheme = ["kubernetes"]
        .into_iter()
        .find(|scheme| store.starts_with(scheme))?;
    Some(format!(
        "the config's key \"store\" asks for {scheme}, which is not built in yet: expected \
         sqlite:/absolute/path or etcd://host:port"
    ))
}

/// Whether the system says that there is nothing of this name.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests;
