//! The container runtime's directory of network configs: whether the runtime takes ours, and
//! whether ours is valid.
//!
//! A runtime reads the files *.conf, *.conflist and *.json in the order of their names. containerd
//! takes the first file, unless it is configured to take more. CRI-O takes the first valid one, or
//! the network whose name it is configured with.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ratchet_plugin::ConfigSummary;
use serde_json::{Map, Value};

use crate::Check;

const ORDER: &str = "CNI config";
const KEYS: &str = "config's keys";
const PLUGINS: &str = "plugins";

/// Our plugin's type.
const TYPE: &str = "ratchet";
/// Plugins that call other networks' plugins. They should come first.
const META: [&str; 4] = ["multus", "multus-shim", "genie", "danm"];
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
enum Content {
    /// A network with our plugin: the plugin's config, as a runtime passes it.
    Ours(Map<String, Value>),
    /// A network of a plugin that calls other networks: its type.
    Meta(String),
    /// Another network: the types of its plugins.
    Other(Vec<String>),
    /// Something that a runtime cannot read, and why.
    Broken(String),
}

/// Checks the directory. Returns what our config says, too.
pub(crate) fn look(dir: &Path, bin: &[PathBuf]) -> (Vec<Check>, Option<ConfigSummary>) {
    let files = match read(dir) {
        Ok(files) => files,
        Err(error) => {
            let hint = "create it and put a network config of type ratchet into it, or name the \
                        runtime's directory with --cni-dir";
            return (
                vec![Check::fail(
                    ORDER,
                    format!("cannot read {}: {error}", dir.display()),
                    hint,
                )],
                None,
            );
        }
    };
    let mut checks = vec![judge_order(dir, &files)];
    let ours = files.iter().find_map(|(name, content)| match content {
        Content::Ours(config) => Some((name, config)),
        _ => None,
    });
    let Some((name, config)) = ours else {
        return (checks, None);
    };
    let text = Value::Object(config.clone()).to_string();
    let summary = match ratchet_plugin::read_config(&text) {
        Ok(summary) => {
            checks.push(match summary.warnings.as_slice() {
                [] => Check::ok(KEYS, format!("{name} is valid")),
                warnings => Check::warn(
                    KEYS,
                    format!("{name}: {}", warnings.join("; ")),
                    "correct the file",
                ),
            });
            Some(summary)
        }
        Err(error) => {
            checks.push(Check::fail(
                KEYS,
                format!("{name}: {}", error.msg),
                error.details,
            ));
            None
        }
    };
    checks.push(judge_plugins(config, bin));
    (checks, summary)
}

/// The configs in a runtime's order.
fn read(dir: &Path) -> io::Result<Vec<(String, Content)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_config = path
            .extension()
            .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
        if is_config && path.is_file() {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let content = fs::read_to_string(&path)
                .map_or_else(|e| Content::Broken(e.to_string()), |text| sort(&text));
            files.push((name, content));
        }
    }
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(files)
}

/// What a file holds.
fn sort(text: &str) -> Content {
    let config: Map<String, Value> = match serde_json::from_str(text) {
        Ok(config) => config,
        Err(error) => return Content::Broken(format!("it is not a JSON object: {error}")),
    };
    let plugins: Vec<Map<String, Value>> = match config.get("plugins") {
        Some(Value::Array(plugins)) => plugins
            .iter()
            .filter_map(Value::as_object)
            .cloned()
            .collect(),
        Some(_) => return Content::Broken("its key \"plugins\" is not a list".into()),
        None => vec![config.clone()],
    };
    let types: Vec<&str> = plugins.iter().filter_map(kind).collect();
    if types.len() < plugins.len() || types.is_empty() {
        return Content::Broken("a plugin in it has no type".into());
    }
    if let Some(ours) = plugins.iter().find(|plugin| kind(plugin) == Some(TYPE)) {
        // In a list, the runtime gives each plugin the list's name and version.
        let mut ours = ours.clone();
        for key in ["name", "cniVersion"] {
            if let Some(value) = config.get(key) {
                ours.insert(key.to_owned(), value.clone());
            }
        }
        return Content::Ours(ours);
    }
    match types.iter().find(|kind| META.contains(kind)) {
        Some(meta) => Content::Meta((*meta).to_owned()),
        None => Content::Other(types.into_iter().map(str::to_owned).collect()),
    }
}

fn kind(plugin: &Map<String, Value>) -> Option<&str> {
    plugin
        .get("type")
        .and_then(Value::as_str)
        .filter(|kind| !kind.is_empty())
}

fn judge_order(dir: &Path, files: &[(String, Content)]) -> Check {
    let position = files
        .iter()
        .position(|(_, content)| matches!(content, Content::Ours(_)));
    match position {
        Some(position) => judge_position(dir, files, position),
        None => judge_absence(dir, files),
    }
}

/// For a directory with a file of ours at `position`.
fn judge_position(dir: &Path, files: &[(String, Content)], position: usize) -> Check {
    let (ours, _) = &files[position];
    match files[..position].first() {
        None | Some((_, Content::Ours(_))) => {
            Check::ok(ORDER, format!("{ours} is the first in {}", dir.display()))
        }
        Some((name, Content::Meta(kind))) => Check::warn(
            ORDER,
            format!("{name} ({kind}) comes before {ours}"),
            "that plugin decides which networks a pod gets: make sure that the first one is \
             Ratchet's",
        ),
        Some((name, Content::Broken(why))) => Check::fail(
            ORDER,
            format!("{name} comes before {ours} and is broken: {why}"),
            format!(
                "correct or remove {}: with it, containerd starts no pod",
                dir.join(name).display()
            ),
        ),
        Some((name, Content::Other(types))) => Check::fail(
            ORDER,
            format!(
                "{name} ({}) comes before {ours}: the runtime takes that file and does not call \
                 Ratchet",
                types.join(", ")
            ),
            format!(
                "rename ours so that it sorts first, or make that network its \"delegate\" and \
                 remove {name}"
            ),
        ),
    }
}

/// For a directory without a file of ours.
fn judge_absence(dir: &Path, files: &[(String, Content)]) -> Check {
    let found = format!("no file in {} is of type ratchet", dir.display());
    let meta = files
        .iter()
        .find(|(_, content)| matches!(content, Content::Meta(_)));
    match meta {
        Some((name, _)) => Check::warn(
            ORDER,
            format!("{found}; {name} calls other networks"),
            "make sure that it calls a network of Ratchet's",
        ),
        None => Check::fail(
            ORDER,
            found,
            "put the network config there, or name the runtime's directory with --cni-dir",
        ),
    }
}

/// Whether the programs that the config names exist.
fn judge_plugins(config: &Map<String, Value>, bin: &[PathBuf]) -> Check {
    let mut wanted = vec![TYPE.to_owned()];
    for key in ["delegate", "boot_network"] {
        let Some(Value::Object(embedded)) = config.get(key) else {
            continue;
        };
        let plugins = match embedded.get("plugins") {
            Some(Value::Array(plugins)) if !embedded.contains_key("type") => plugins.clone(),
            _ => vec![Value::Object(embedded.clone())],
        };
        for plugin in &plugins {
            let types = [&plugin["type"], &plugin["ipam"]["type"]];
            let types = types
                .into_iter()
                .filter_map(Value::as_str)
                .filter(|kind| !kind.is_empty());
            wanted.extend(types.map(str::to_owned));
        }
    }
    wanted.dedup();
    let lacks: Vec<String> = wanted
        .iter()
        .filter_map(|kind| {
            ratchet_cni::find_in_path(kind, bin)
                .err()
                .map(|_| kind.clone())
        })
        .collect();
    let dirs: Vec<String> = bin.iter().map(|dir| dir.display().to_string()).collect();
    let dirs = dirs.join(", ");
    if lacks.is_empty() {
        Check::ok(PLUGINS, format!("{} in {dirs}", wanted.join(", ")))
    } else {
        Check::fail(
            PLUGINS,
            format!("{} missing in {dirs}", lacks.join(", ")),
            "install them there (Debian: containernetworking-plugins), or name the runtime's \
             directory with --cni-bin",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    const OURS: &str = r#"{"cniVersion":"1.0.0","name":"n","type":"ratchet",
        "delegate":{"type":"bridge","ipam":{"type":"host-local"}}}"#;
    const LIST: &str = r#"{"cniVersion":"1.0.0","name":"l","plugins":[{"type":"bridge"},
        {"type":"ratchet","nod":"x"}]}"#;

    fn order(files: &[(&str, &str)]) -> Check {
        let files: Vec<_> = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), sort(text)))
            .collect();
        judge_order(Path::new("/d"), &files)
    }

    #[test]
    fn the_runtime_takes_the_first() {
        assert_eq!(
            order(&[("10-r.conf", OURS), ("20-x.conf", r#"{"type":"bridge"}"#)]).verdict,
            Verdict::Ok
        );
        assert_eq!(order(&[("10-r.conflist", LIST)]).verdict, Verdict::Ok);
        let check = order(&[("05-x.conf", r#"{"type":"bridge"}"#), ("10-r.conf", OURS)]);
        assert!(
            check.verdict == Verdict::Fail && check.found.contains("05-x.conf (bridge)"),
            "{check}"
        );
        let check = order(&[("05-x.conf", "{"), ("10-r.conf", OURS)]);
        assert!(
            check.verdict == Verdict::Fail && check.hint.contains("/d/05-x.conf"),
            "{check}"
        );
        assert_eq!(
            order(&[
                ("00-multus.conf", r#"{"type":"multus"}"#),
                ("10-r.conf", OURS)
            ])
            .verdict,
            Verdict::Warn
        );
        assert_eq!(
            order(&[("00-multus.conf", r#"{"type":"multus"}"#)]).verdict,
            Verdict::Warn
        );
        assert_eq!(order(&[]).verdict, Verdict::Fail);
    }

    #[test]
    fn files_are_told_apart() {
        for broken in [
            "",
            "[]",
            "{}",
            r#"{"plugins":{}}"#,
            r#"{"plugins":[]}"#,
            r#"{"plugins":[{}]}"#,
            r#"{"type":""}"#,
        ] {
            assert!(matches!(sort(broken), Content::Broken(_)), "{broken}");
        }
        let Content::Ours(ours) = sort(LIST) else {
            panic!()
        };
        assert_eq!(
            (ours["name"].as_str(), ours["cniVersion"].as_str()),
            (Some("l"), Some("1.0.0"))
        );
    }

    #[test]
    fn all_that_a_config_names_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let (net, bin) = (dir.path().join("net.d"), dir.path().join("bin"));
        fs::create_dir(&net).unwrap();
        fs::create_dir(&bin).unwrap();
        fs::write(net.join("10-r.conf"), OURS).unwrap();
        fs::write(net.join("00-notes.txt"), "not a config").unwrap();
        for program in ["ratchet", "bridge"] {
            fs::write(bin.join(program), "").unwrap();
        }
        let (checks, summary) = look(&net, std::slice::from_ref(&bin));
        assert!(summary.is_some());
        let verdicts: Vec<_> = checks.iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Ok, Verdict::Fail]);
        assert!(
            checks[2].found.starts_with("host-local missing"),
            "{}",
            checks[2]
        );
        fs::write(
            net.join("10-r.conf"),
            OURS.replace(r#""delegate""#, r#""mtu":1,"delegate""#),
        )
        .unwrap();
        let (checks, summary) = look(&net, &[bin]);
        assert!(
            summary.is_none() && checks[1].found.contains("\"mtu\""),
            "{}",
            checks[1]
        );
        assert_eq!(
            look(Path::new("/nowhere/at/all"), &[]).0[0].verdict,
            Verdict::Fail
        );
    }
}
