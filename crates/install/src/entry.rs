//! The plugins in a network config, and how changes of others and of the source come together.
//! Pure.

use ratchet_cni::{Object, validate_plugin_type};
use ratchet_protocol::{LocalSettings, Settings, TablePart};
use serde_json::{Map, Value, json, value::RawValue};

/// Our plugin's type.
pub(crate) const TYPE: &str = "ratchet";

/// The plugin of a config, with its text as it was written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    raw: Box<RawValue>,
    value: Value,
    kind: String,
}

impl Entry {
    /// Reads a plugin's config.
    pub fn parse(raw: &RawValue) -> Result<Self, String> {
        let object = Object::parse(raw.get()).map_err(|_| "a plugin is not an object")?;
        let kind: Option<String> = object.decode("type").unwrap_or_default();
        let kind = kind.unwrap_or_default();
        if validate_plugin_type(&kind).is_err() {
            return Err("a plugin in it has no type".to_owned());
        }
        let value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let raw = raw.to_owned();
        Ok(Self { raw, value, kind })
    }

    fn of(value: Value) -> Self {
        let raw = serde_json::value::to_raw_value(&value).expect("a value can be written");
        Self::parse(&raw).expect("our own plugin has a type")
    }

    pub fn raw(&self) -> &str {
        self.raw.get()
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn is_ours(&self) -> bool {
        self.kind == TYPE
    }
}

/// Equal as JSON: order of keys and white space do not matter.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// Our own plugin, with the settings that the agent was given. It must agree with the agent in
/// them, and agrees with any value of one that is absent.
pub(crate) fn own(settings: &Settings, local: &LocalSettings) -> Entry {
    let mut entry = Map::new();
    entry.insert("type".to_owned(), json!(TYPE));
    for setting in Settings::TABLE {
        // With `kubeconfig`, the plugin knows that the agent reads labels.
        if let Some(text) = settings.get(setting.key) {
            entry.insert(setting.key.to_owned(), json!(text));
        }
    }
    // Where both find each other. What is logged, and where, is the agent's own.
    let (socket, state_dir) = (local.socket(), local.state_dir());
    for (key, path) in [("socket", socket), ("state_dir", state_dir)] {
        entry.insert(key.to_owned(), json!(path.to_string_lossy()));
    }
    if let Some(path) = &local.node_key {
        entry.insert("node_key".to_owned(), json!(path));
    }
    if local.report_addresses == Some(true) {
        entry.insert("report_addresses".to_owned(), json!(true));
    }
    let capabilities = json!({"io.kubernetes.cri.pod-annotations": true});
    entry.insert("capabilities".to_owned(), capabilities);
    Entry::of(Value::Object(entry))
}

/// The plugins of our file.
///
/// `source` has the present network's plugins, `base` those of the network when our file was last
/// written, and `present` what is in our file now. Other programs may have changed that: as in
/// any merge of three, a change of one side counts, and if both have changed a plugin, the
/// source's counts. A plugin is known by its type and its number among those of its type, so the
/// last of a type is the one that counts as removed. A file without the network's first plugin
/// gives pods no network, so what is missing there counts for nothing.
pub(crate) fn merge(
    base: &[Entry],
    present: &[Entry],
    source: &[Entry],
    own: &Entry,
) -> Vec<Entry> {
    let (base, present, source) = (numbered(base), numbered(present), numbered(source));
    let mut merged = Vec::new();
    let has_first = source
        .first()
        .is_some_and(|(key, _)| find(&present, *key).is_some());
    let is_unchanged =
        |(key, entry): &(Key<'_>, &Entry)| find(&base, *key).is_some_and(|before| before == *entry);
    for (at, plugin) in source.iter().enumerate() {
        let (key, entry) = plugin;
        // One that stays after it would get its number, and count as removed at the next merge.
        let is_last = || {
            let mut later = source[at..].iter().filter(|(other, _)| other.0 == key.0);
            later.all(is_unchanged)
        };
        merged.extend(match find(&present, *key) {
            Some(changed) if is_unchanged(plugin) => Some(changed),
            None if has_first && is_last() => None,
            _ => Some(*entry),
        });
    }
    for (key, entry) in &present {
        if find(&base, *key).is_none() && find(&source, *key).is_none() {
            merged.push(entry);
        }
    }
    merged.push(own);
    merged.into_iter().cloned().collect()
}

type Key<'a> = (&'a str, usize);

/// Entries with their keys, without ours.
fn numbered(entries: &[Entry]) -> Vec<(Key<'_>, &Entry)> {
    let mut numbered: Vec<(Key<'_>, &Entry)> = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.is_ours()) {
        let same = numbered.iter().filter(|((kind, _), _)| *kind == entry.kind);
        let key = (entry.kind.as_str(), same.count());
        numbered.push((key, entry));
    }
    numbered
}

fn find<'a>(entries: &[(Key<'_>, &'a Entry)], wanted: Key<'_>) -> Option<&'a Entry> {
    let mut entries = entries.iter();
    entries
        .find(|(key, _)| *key == wanted)
        .map(|(_, entry)| *entry)
}

#[cfg(test)]
mod tests;
