//! All settings, in one table (table.rs), and what plugin, agent and command line do with them.
//!
//! The table feeds the plugin's reading of the network config, the options of `ratchet agent`, the
//! comparison of the two, and the table in README.md. This module does not look at the node and
//! does not know JSON: the plugin reads configs.

mod define;
mod setting;
mod table;

use std::{
    fmt,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use ratchet_model::Quotas;

pub use setting::{AgentOption, DefaultValue, Group, Kind, Setting};
pub use table::{LocalSettings, PLUGIN_ONLY, Settings};

/// The store, by default.
pub const DEFAULT_STORE: &str = "sqlite:/var/lib/ratchet/ratchet.db";

/// The store that says itself what pods declare: Links in the Kubernetes API.
pub const KUBERNETES_STORE: &str = "kubernetes";

/// Where the agent listens, by default.
pub const DEFAULT_SOCKET: &str = "/run/ratchet/agent.sock";

/// The environment variable that names the agent's socket.
pub const SOCKET_VARIABLE: &str = "RATCHET_SOCKET";

/// The log level, by default.
const DEFAULT_LOG_LEVEL: &str = "info";

/// Where agent and plugin keep their state, by default. Not the runtime's cache (/var/lib/cni),
/// which runtimes may clean at any time.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/ratchet";

/// All settings.
pub fn all_settings() -> impl Iterator<Item = &'static Setting> {
    PLUGIN_ONLY
        .iter()
        .chain(Settings::TABLE)
        .chain(LocalSettings::TABLE)
}

/// The setting of a key of the network config.
pub fn setting(key: &str) -> Option<&'static Setting> {
    all_settings().find(|setting| setting.key == key)
}

/// A part of the table with a value for each of its settings, or none.
pub trait TablePart: Default {
    /// The settings of this part.
    const TABLE: &'static [Setting];

    /// The value of a key as text; `None` if the setting is absent.
    fn get(&self, key: &str) -> Option<String>;

    /// Sets the value of a setting from text.
    ///
    /// # Errors
    /// When the text is not a value of the setting, or the setting is of another part.
    fn set(&mut self, setting: &Setting, text: &str) -> Result<(), WrongValue>;

    /// These values. The others' values where these are absent.
    #[must_use]
    fn or(self, others: Self) -> Self;

    /// The values as options on the command line of `ratchet agent`.
    fn arguments(&self) -> Vec<String> {
        let argument = |setting: &Setting| {
            let (option, value) = (setting.option?, self.get(setting.key)?);
            Some([format!("--{}", option.flag), value])
        };
        Self::TABLE.iter().filter_map(argument).flatten().collect()
    }
}

/// A text that is not a value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongValue(pub Kind);

impl fmt::Display for WrongValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0.expected())
    }
}

impl std::error::Error for WrongValue {}

/// A setting on which an agent and a config disagree.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The setting.
    pub setting: &'static Setting,
    /// The agent's value; `None` if it is absent.
    pub agent: Option<String>,
    /// The config's value.
    pub config: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let agent = self.agent.as_deref().unwrap_or("not set");
        let (key, config) = (self.setting.key, &self.config);
        write!(
            f,
            "{key} is {agent} for the agent and {config} in the config"
        )
    }
}

impl Settings {
    /// All keys with their values; `None` for settings that are absent.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, Option<String>)> {
        Self::TABLE
            .iter()
            .map(|setting| (setting.key, self.get(setting.key)))
    }

    /// Whether the store says what pods declare, and not their labels and annotations.
    pub fn store_declares(&self) -> bool {
        self.store.as_deref() == Some(KUBERNETES_STORE)
    }

    /// The settings for which a config has another value than the agent.
    pub fn differences(&self, config: &Settings) -> Vec<Difference> {
        let difference = |setting: &'static Setting| {
            let (agent, config) = (self.get(setting.key), config.get(setting.key)?);
            (agent.as_ref() != Some(&config)).then_some(Difference {
                setting,
                agent,
                config,
            })
        };
        Self::TABLE.iter().filter_map(difference).collect()
    }

    /// The config's values, and these settings where the config has none.
    #[must_use]
    pub fn overridden_by(&self, config: &Settings) -> Settings {
        config.clone().or(self.clone())
    }

    /// These settings, with the table's default values where they are absent. Defaults that depend
    /// on the node stay absent.
    #[must_use]
    pub fn or_defaults(self) -> Self {
        let mut defaults = Self::default();
        for setting in Self::TABLE {
            if let DefaultValue::Value(value) = setting.default {
                let set = defaults.set(setting, value);
                set.expect("a default in the table is a value of its setting");
            }
        }
        self.or(defaults)
    }

    /// How much a pod may declare.
    pub fn quotas(&self) -> Quotas {
        let default = Quotas::default();
        let count = |setting: Option<NonZeroU32>, default| {
            setting.map_or(default, |count| {
                usize::try_from(count.get()).unwrap_or(usize::MAX)
            })
        };
        Quotas {
            links: count(self.max_links, default.links),
            addresses: count(self.max_addresses, default.addresses),
            routes: count(self.max_routes, default.routes),
            foreign_links: count(self.max_foreign_links, default.foreign_links),
            devices: count(self.max_devices, default.devices),
        }
    }

    /// Whether both settings name the same store and reach it in the same way.
    pub fn same_store(&self, other: &Settings) -> bool {
        Self::TABLE
            .iter()
            .filter(|setting| matches!(setting.group, Group::Store | Group::Etcd))
            .all(|setting| self.get(setting.key) == other.get(setting.key))
    }
}

impl LocalSettings {
    /// The agent's socket.
    pub fn socket(&self) -> &Path {
        Path::new(self.socket.as_deref().unwrap_or(DEFAULT_SOCKET))
    }

    /// The directory of the state of agent and plugin.
    pub fn state_dir(&self) -> &Path {
        Path::new(self.state_dir.as_deref().unwrap_or(DEFAULT_STATE_DIR))
    }

    /// The file of the node's key.
    pub fn node_key(&self) -> PathBuf {
        let named = self.node_key.as_ref().map(PathBuf::from);
        named.unwrap_or_else(|| self.state_dir().with_added_extension("key"))
    }

    /// What the agent logs: a level or a filter.
    pub fn log_level(&self) -> &str {
        self.log_level.as_deref().unwrap_or(DEFAULT_LOG_LEVEL)
    }
}

#[cfg(test)]
mod tests;
