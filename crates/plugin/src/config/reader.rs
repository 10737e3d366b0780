//! Reads the values of the config's keys by the table of settings, and collects the wrong ones.

use std::path::Path;

use ratchet_cni::{Config, Embedded, Error, Outer, validate_interface_name};
use ratchet_model::nearest;
use ratchet_protocol::{DefaultValue, Kind, TablePart, all_settings, setting};
use serde_json::Value;

/// Keys of the specification and of runtimes, and `cniDir`, which only the code of 2017 read.
const KEYS_OF_OTHERS: [&str; 10] = [
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

/// A config that is being read.
pub(super) struct Reader<'a> {
    config: &'a Config,
    /// Why the config must be refused.
    pub problems: Vec<Error>,
    /// Odd values that are no reason to refuse the config.
    pub warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader that has warned about unknown keys.
    pub fn new(config: &'a Config) -> Self {
        Self {
            config,
            problems: Vec::new(),
            warnings: unknown_keys(config),
        }
    }

    /// The values of a part of the table.
    pub fn part<T: TablePart>(&mut self) -> T {
        let mut part = T::default();
        for setting in T::TABLE {
            let text = match setting.kind {
                Kind::Store => self.store(setting.key),
                _ => self.text(setting.key),
            };
            if text.is_some_and(|text| part.set(setting, &text).is_err()) {
                self.refuse::<()>(setting.key);
            }
        }
        part
    }

    /// A key's value as text in its usual form; `None` if it is absent or wrong.
    pub fn text(&mut self, key: &str) -> Option<String> {
        let kind = setting(key)?.kind;
        let value = self.value(key)?;
        match text(kind, value).and_then(|text| usual_form(kind, text)) {
            None => self.refuse(key),
            text => text,
        }
    }

    /// As [`Reader::text`], but with the default for a key that is absent or wrong.
    pub fn text_or_default(&mut self, key: &str) -> Option<String> {
        self.text(key).or_else(|| match setting(key)?.default {
            DefaultValue::Value(value) => Some(value.to_owned()),
            DefaultValue::Described(_) | DefaultValue::None => None,
        })
    }

    /// A plugin or a list of them. Nothing is run or looked up here.
    pub fn embedded(&mut self, key: &str) -> Option<Embedded> {
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

    /// Whether a key has a value. `null` and the empty string count as absent, as in Go.
    pub fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    fn value(&self, key: &str) -> Option<Value> {
        let raw = self.config.raw_key(key)?;
        let value = serde_json::from_str(raw.get()).unwrap_or(Value::Null);
        Some(value).filter(|value| *value != Value::String(String::new()))
    }

    /// Records that a key's value is not what the table of settings expects.
    pub fn refuse<T>(&mut self, key: &str) -> Option<T> {
        let expected = setting(key).map(|setting| setting.kind.expected());
        self.refuse_for(key, &expected.unwrap_or_default())
    }

    /// Records that a key's value is not what is expected.
    pub fn refuse_for<T>(&mut self, key: &str, expected: &str) -> Option<T> {
        let value = self.config.raw_key(key).map_or("null", |raw| raw.get());
        // A value with an @ may hold a password. 100 characters are enough for a message.
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

    /// Records a problem of the config.
    pub fn problem(&mut self, text: String) {
        let what_to_do = "correct the network config, usually a file in /etc/cni/net.d";
        self.problems
            .push(Error::invalid_config(text).with_details(what_to_do));
    }
}

/// Warnings about keys that have no effect. As in Go, the case of a key does not matter.
fn unknown_keys(config: &Config) -> Vec<String> {
    let known = || {
        let ours = all_settings().map(|setting| setting.key);
        ours.chain(KEYS_OF_OTHERS)
    };
    let mut warnings = Vec::new();
    for (key, _) in config.object().iter() {
        if known().any(|known| known.eq_ignore_ascii_case(key)) || key.starts_with(RESERVED_PREFIX)
        {
            continue;
        }
        let hint = nearest(key, known()).map(|near| format!("; is {near:?} meant?"));
        warnings.push(format!(
            "the config's key {key:?} is not known and has no effect{}",
            hint.unwrap_or_default()
        ));
    }
    warnings
}

/// A value as text. Numbers and flags may be strings, as people and the config of 2017 write them.
fn text(kind: Kind, value: Value) -> Option<String> {
    match (kind, value) {
        (_, Value::String(text)) if !text.contains('\0') => Some(text),
        (Kind::Mtu | Kind::Seconds | Kind::Count | Kind::Port, Value::Number(number)) => {
            Some(number.to_string())
        }
        (Kind::Flag, Value::Bool(flag)) => Some(flag.to_string()),
        _ => None,
    }
}

/// The form in which agents write such a value; `None` if it is wrong. Values of kinds that have a
/// type in the table are checked by that type.
fn usual_form(kind: Kind, text: String) -> Option<String> {
    let is_right = match kind {
        Kind::Interface => validate_interface_name(&text).is_ok(),
        Kind::Path | Kind::Program => text.starts_with('/'),
        Kind::Socket => is_socket_path(&text),
        Kind::Kubeconfig => text == "auto" || text.starts_with('/'),
        Kind::LogLevel | Kind::Flag => {
            let text = text.to_ascii_lowercase();
            let words = match kind {
                Kind::Flag => &["true", "false"][..],
                _ => &Kind::LOG_LEVELS,
            };
            return words.contains(&text.as_str()).then_some(text);
        }
        Kind::Port => text.parse::<u16>().is_ok_and(|port| port > 0),
        Kind::Plugins => false,
        Kind::Store
        | Kind::Node
        | Kind::Address
        | Kind::Mtu
        | Kind::Vnis
        | Kind::Seconds
        | Kind::Count
        | Kind::Wiring
        | Kind::CrossNamespace
        | Kind::User
        | Kind::Prefix
        | Kind::Host
        | Kind::Listen => true,
    };
    is_right.then_some(text)
}

fn is_socket_path(text: &str) -> bool {
    let path = Path::new(text);
    path.is_absolute() && path.file_name().is_some() && text.len() <= Kind::MAX_SOCKET_PATH
}
