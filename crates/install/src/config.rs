//! What our file says, from the files that are there. Pure.
//!
//! A runtime reads the files *.conf, *.conflist and *.json in the order of their names, and takes
//! the first one. Ours comes before the present network's file, whose plugins it has.

use std::collections::BTreeSet;

use ratchet_cni::{Object, Version, validate_network_name};
use serde_json::value::RawValue;

use crate::entry::{Entry, merge};

/// The name of our file.
pub const FILE: &str = "00-ratchet.conflist";

/// The key of our file that has the network's file and its plugins as they were. Runtimes take no
/// notice of it.
const SOURCE: &str = "ratchet.dev/source";

/// Plugins that call other networks' plugins. They take the first file that is not their own, which
/// is ours, so ours must not call them.
const META: [&str; 4] = ["multus", "multus-shim", "genie", "danm"];

const EXTENSIONS: [&str; 3] = [".conf", ".conflist", ".json"];

/// The oldest version in which a plugin gets the result of those before it.
const OLDEST: Version = Version::V0_3_0;

/// A file of the directory of network configs.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub name: String,
    /// What it holds, or why it cannot be read.
    pub content: Result<String, String>,
}

/// What to do with our file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It must hold this text.
    Write {
        text: String,
        /// The file with the present network.
        source: String,
        /// What people should know of.
        warnings: Vec<String>,
    },
    /// It stays as it is, and so does its absence.
    Leave(String),
    /// A file is broken, perhaps because it is being written: look again.
    Wait(String),
}

/// A network.
#[derive(Debug, Clone)]
struct Network {
    /// All keys of the network but the plugins.
    keys: Vec<(String, Box<RawValue>)>,
    plugins: Vec<Entry>,
}

/// Our file as it is.
#[derive(Debug, Clone, Default)]
struct Present {
    base: Vec<Entry>,
    plugins: Vec<Entry>,
}

/// The names of the files that no runtime could read.
pub(crate) fn broken(files: &[File]) -> BTreeSet<String> {
    let is_broken = |file: &&File| match file.name == FILE {
        true => present(file).is_err(),
        false => is_foreign(file) && network(file).is_err(),
    };
    let broken = files.iter().filter(is_broken);
    broken.map(|file| file.name.clone()).collect()
}

/// Says what our file must hold. Broken files are waited for, but for those in `given_up`.
pub(crate) fn decide(files: &[File], own: &Entry, given_up: &BTreeSet<String>) -> Verdict {
    let mut warnings = Vec::new();
    let decided = known(files, given_up, &mut warnings).and_then(|present| {
        let (name, network) = first(files, given_up, &mut warnings)?;
        Ok((present, name, network))
    });
    match decided {
        Err(verdict) => verdict,
        Ok((present, name, network)) => Verdict::Write {
            text: render(name, &network, &present, own),
            source: name.to_owned(),
            warnings,
        },
    }
}

/// Whether the runtime calls our plugin: the first network says so, not counting plugins that call
/// other networks. If not, the error says why.
pub(crate) fn calls_us(files: &[File]) -> Result<(), String> {
    let is_read = |file: &&File| is_foreign(file) || file.name == FILE;
    let mut read: Vec<&File> = files.iter().filter(is_read).collect();
    read.sort_by(|one, other| one.name.cmp(&other.name));
    for file in read {
        match network(file) {
            Ok(network) if network.plugins.iter().any(Entry::is_ours) => return Ok(()),
            Ok(network) if meta(&network).is_none() => {
                let name = &file.name;
                return Err(format!(
                    "the runtime takes {name}, which does not call Ratchet"
                ));
            }
            // Runtimes take no notice of a broken file.
            Ok(_) | Err(_) => {}
        }
    }
    Err("there is no network config yet".to_owned())
}

/// What is known of our file; empty if there is none.
fn known(
    files: &[File],
    given_up: &BTreeSet<String>,
    warnings: &mut Vec<String>,
) -> Result<Present, Verdict> {
    let Some(ours) = files.iter().find(|file| file.name == FILE) else {
        return Ok(Present::default());
    };
    match present(ours) {
        Ok(Some(present)) => Ok(present),
        Ok(None) => Err(Verdict::Leave(format!(
            "{FILE} was not made by `ratchet agent --install`: rename or remove it"
        ))),
        Err(why) if !given_up.contains(FILE) => Err(Verdict::Wait(format!("{FILE}: {why}"))),
        Err(why) => {
            warnings.push(format!("{FILE} is broken and is written again: {why}"));
            Ok(Present::default())
        }
    }
}

/// The network that the runtime would take without us, and its file's name.
fn first<'a>(
    files: &'a [File],
    given_up: &BTreeSet<String>,
    warnings: &mut Vec<String>,
) -> Result<(&'a str, Network), Verdict> {
    let mut sorted: Vec<&File> = files.iter().filter(|file| is_foreign(file)).collect();
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    for file in sorted {
        let name = file.name.as_str();
        let is_before = name < FILE;
        let network = match network(file) {
            Ok(network) => network,
            Err(why) if !given_up.contains(name) => {
                return Err(Verdict::Wait(format!("{name}: {why}")));
            }
            Err(why) => {
                warnings.push(format!("{name} is broken and is not followed: {why}"));
                continue;
            }
        };
        if is_before && meta(&network).is_some() {
            continue;
        }
        fits(name, &network).map_err(Verdict::Leave)?;
        if is_before {
            warnings.push(format!(
                "{name} comes before {FILE}, so the runtime takes it and does not call Ratchet: \
                 rename it"
            ));
        }
        return Ok((name, network));
    }
    let is_there = files.iter().any(|file| file.name == FILE);
    Err(Verdict::Leave(match is_there {
        false => "there is no network config yet".to_owned(),
        true => "the network's config is gone: pods start with what was there last".to_owned(),
    }))
}

/// The plugin that calls other networks, if there is one.
fn meta(network: &Network) -> Option<&str> {
    let mut types = network.plugins.iter().map(Entry::kind);
    types.find(|kind| META.contains(kind))
}

/// Whether our plugin can be called behind those of a network, and how to make it so.
fn fits(name: &str, network: &Network) -> Result<(), String> {
    if let Some(meta) = meta(network) {
        return Err(format!(
            "{name} ({meta}) must come before {FILE}, or pods would no longer get what {meta} \
             gives them: rename it, such as to 00-multus.conf"
        ));
    }
    if network.plugins.iter().any(Entry::is_ours) {
        return Err(format!(
            "{name} calls Ratchet already: remove it, or run the agent without --install"
        ));
    }
    let keys = network.keys.iter().rev();
    let version = keys
        .filter(|(key, _)| key.eq_ignore_ascii_case("cniVersion"))
        .find_map(|(_, raw)| serde_json::from_str::<String>(raw.get()).ok());
    let version = version.unwrap_or_default();
    match Version::parse(&version) {
        Some(version) if version >= OLDEST => Ok(()),
        _ => Err(format!(
            "the cniVersion of {name} is {version:?}: expected {OLDEST} to {}, in which plugins \
             follow each other",
            Version::NEWEST
        )),
    }
}

/// Whether we have written a file with our name.
pub(crate) fn is_ours(bytes: &[u8]) -> bool {
    Object::from_slice(bytes).is_ok_and(|object| object.get(SOURCE).is_some())
}

/// Whether a runtime reads the file, and it is not ours.
pub(crate) fn is_foreign(file: &File) -> bool {
    file.name != FILE && EXTENSIONS.iter().any(|end| file.name.ends_with(end))
}

/// Reads our file. `None`: it is not one that we have made.
fn present(file: &File) -> Result<Option<Present>, String> {
    let object = object(file)?;
    let Some(source) = object.get(SOURCE) else {
        return Ok(None);
    };
    let source = Object::parse(source.get()).map_err(|error| error.to_string())?;
    Ok(Some(Present {
        base: plugins(&source)?.unwrap_or_default(),
        plugins: plugins(&object)?.unwrap_or_default(),
    }))
}

/// Reads a network as runtimes do: the name's ending says whether it is a list.
fn network(file: &File) -> Result<Network, String> {
    let object = object(file)?;
    let is_list = file.name.ends_with(".conflist");
    let plugins = match is_list {
        true => plugins(&object)?.unwrap_or_default(),
        false => vec![single(&object)?],
    };
    if plugins.is_empty() {
        return Err("it has no list of \"plugins\"".to_owned());
    }
    let name: Option<String> = object.decode("name").map_err(|error| error.to_string())?;
    validate_network_name(&name.unwrap_or_default()).map_err(|error| error.to_string())?;
    let of_the_network = |key: &str| match is_list {
        true => !["plugins", SOURCE].contains(&key),
        false => OF_BOTH.contains(&key),
    };
    let keys = object.iter().filter(|(key, _)| of_the_network(key));
    Ok(Network {
        keys: keys
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        plugins,
    })
}

/// Keys that a single plugin has from its network.
const OF_BOTH: [&str; 2] = ["cniVersion", "name"];

fn object(file: &File) -> Result<Object, String> {
    let text = file.content.as_ref().map_err(Clone::clone)?;
    let object = Object::parse(text).map_err(|error| error.to_string())?;
    match object.is_empty() {
        true => Err("it is empty".to_owned()),
        false => Ok(object),
    }
}

fn plugins(object: &Object) -> Result<Option<Vec<Entry>>, String> {
    let list: Option<Vec<Box<RawValue>>> = object
        .decode("plugins")
        .map_err(|_| "its key \"plugins\" is not a list")?;
    list.map(|list| list.iter().map(|raw| Entry::parse(raw)).collect())
        .transpose()
}

/// A single plugin as one of a list, which has the name and the version itself.
fn single(object: &Object) -> Result<Entry, String> {
    let members = object.iter().filter(|(key, _)| !OF_BOTH.contains(key));
    let text = written(members.map(|(key, value)| (key, value.get())), "");
    let raw = RawValue::from_string(text).map_err(|error| error.to_string())?;
    Entry::parse(&raw)
}

/// The text of our file. It is the same for the same input, so that bytes can be compared.
fn render(name: &str, network: &Network, present: &Present, own: &Entry) -> String {
    let plugins = merge(&present.base, &present.plugins, &network.plugins, own);
    let name = serde_json::to_string(name).expect("a text can be written");
    let (list, base) = (list(&plugins), list(&network.plugins));
    let source = written([("file", &*name), ("plugins", &base)].into_iter(), "  ");
    let keys = network
        .keys
        .iter()
        .map(|(key, value)| (key.as_str(), value.get()));
    let keys = keys.chain([("plugins", &*list), (SOURCE, &*source)]);
    written(keys, "") + "\n"
}

/// An object. Values stay as they are.
fn written<'a>(members: impl Iterator<Item = (&'a str, &'a str)>, indent: &str) -> String {
    let line = |(key, value)| {
        let key = serde_json::to_string(key).expect("a text can be written");
        format!("{indent}  {key}: {value}")
    };
    let members: Vec<String> = members.map(line).collect();
    format!("{{\n{}\n{indent}}}", members.join(",\n"))
}

fn list(entries: &[Entry]) -> String {
    let lines: Vec<String> = entries
        .iter()
        .map(|entry| format!("    {}", entry.raw()))
        .collect();
    format!("[\n{}\n  ]", lines.join(",\n"))
}

#[cfg(test)]
mod tests;
