//! Parses Kubernetes manifests into the pods, nodes and volumes of a lab.

mod document;
mod field;
mod pod;

use std::{
    collections::BTreeMap,
    fmt,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::Context;

use document::Document;
use field::Field;
pub(crate) use field::{ManifestError, Origin};

/// The content of a file, as far as a lab uses it.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    /// The file, as the user named it.
    pub file: String,
    /// In the order of the file.
    pub pods: Vec<Pod>,
    /// In the order of the file; empty in most files, which are written for nodes that exist.
    pub nodes: Vec<Node>,
    /// What was skipped, and why.
    pub notes: Vec<String>,
}

/// A pod as declared.
#[derive(Debug)]
pub(crate) struct Pod {
    pub origin: Origin,
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub node_name: Option<String>,
    pub node_selector: BTreeMap<String, String>,
    pub mounts: Vec<VolumeMount>,
}

/// Files that are mounted at a path of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeMount {
    /// The field that declares it, for errors.
    pub field: String,
    /// The volume's name in the pod.
    pub volume: String,
    pub target: PathBuf,
    /// Only this file of the volume, mounted on `target` itself.
    pub sub_path: Option<String>,
    /// Path in the volume, and content.
    pub files: BTreeMap<String, String>,
}

/// A node as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

/// All mistakes of a file, so that one run reports all of them.
#[derive(Debug)]
pub(crate) struct ManifestErrors(pub Vec<ManifestError>);

impl std::error::Error for ManifestErrors {}

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl From<ManifestError> for ManifestErrors {
    fn from(error: ManifestError) -> Self {
        Self(vec![error])
    }
}

impl Manifest {
    /// Reads a file, or standard input for `-`.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read the manifest from standard input")?;
            return Ok(Self::parse("standard input", &text)?);
        }
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the manifest {file}"))?;
        Ok(Self::parse(&file, &text)?)
    }

    /// Parses the text of a file.
    pub fn parse(file: &str, text: &str) -> Result<Self, ManifestErrors> {
        let mut manifest = Self {
            file: file.to_owned(),
            ..Self::default()
        };
        let mut errors = Vec::new();
        let mut config_maps = pod::ConfigMaps::default();
        let documents = document::split(file, text)?;
        for document in &documents {
            if let Err(error) = manifest.collect(document, &mut config_maps) {
                errors.push(error);
            }
        }
        // Pods are parsed last: a ConfigMap may come after the pod that mounts it.
        for document in documents.iter().filter(|document| document.kind == "Pod") {
            match pod::parse(document, &config_maps, &mut manifest.notes) {
                Ok(pod) => manifest.pods.push(pod),
                Err(error) => errors.push(error),
            }
        }
        errors.extend(manifest.duplicates());
        if errors.is_empty() && manifest.pods.is_empty() {
            let origin = Origin {
                file: file.to_owned(),
                document: "the file".into(),
            };
            errors.push(origin.error(
                "kind",
                "expected at least one Pod, found none",
                "add a Pod document",
            ));
        }
        if errors.is_empty() {
            Ok(manifest)
        } else {
            Err(ManifestErrors(errors))
        }
    }

    fn collect(
        &mut self,
        document: &Document,
        config_maps: &mut pod::ConfigMaps,
    ) -> Result<(), ManifestError> {
        let root = document.root();
        match document.kind.as_str() {
            "Pod" => document.check_version("v1"),
            "Node" => {
                document.check_version("v1")?;
                let name = document.name()?;
                if self.nodes.iter().any(|node| node.name == name) {
                    let help = "give each Node a different name";
                    return Err(root.origin.error(
                        "metadata.name",
                        format!("there are two Nodes {name}"),
                        help,
                    ));
                }
                self.nodes.push(Node {
                    name,
                    labels: metadata_labels(&root)?,
                });
                Ok(())
            }
            "ConfigMap" => {
                document.check_version("v1")?;
                config_maps.add(document)
            }
            kind => {
                self.notes.push(format!(
                    "{}: skipped, a lab has no {kind} (it reads Pod, Node, ConfigMap and List)",
                    document.origin.document
                ));
                Ok(())
            }
        }
    }

    fn duplicates(&self) -> Vec<ManifestError> {
        let again = |(index, pod): (usize, &Pod)| {
            self.pods[..index]
                .iter()
                .any(|other| (&other.namespace, &other.name) == (&pod.namespace, &pod.name))
                .then(|| {
                    let problem = format!("there are two pods {}/{}", pod.namespace, pod.name);
                    pod.origin
                        .error("metadata.name", problem, "give each pod a different name")
                })
        };
        self.pods.iter().enumerate().filter_map(again).collect()
    }
}

/// `metadata.labels`, checked as a cluster does, so that a lab's manifest also works in a cluster.
fn metadata_labels(root: &Field<'_>) -> Result<BTreeMap<String, String>, ManifestError> {
    let Some(metadata) = root.get("metadata")? else {
        return Ok(BTreeMap::new());
    };
    let labels = metadata.string_map("labels")?;
    for (key, value) in &labels {
        if !is_label_value(value) {
            let field = field::join("metadata.labels", key);
            return Err(root.origin.error(
                &field,
                format!("expected a label value, found \"{value}\""),
                "Kubernetes allows at most 63 letters, digits, '-', '_' and '.', with a letter or \
                 digit at both ends; write anything else as an annotation with the same key",
            ));
        }
    }
    Ok(labels)
}

fn is_label_value(value: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && edge(value.chars().next())
        && edge(value.chars().last())
}

/// Whether Kubernetes allows this name for a pod, node or namespace. Such a name is safe in a path.
fn is_object_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 253
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
        && edge(name.chars().next())
        && edge(name.chars().last())
}

#[cfg(test)]
mod tests;
