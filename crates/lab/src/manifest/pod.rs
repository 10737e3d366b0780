//! Pods, and the ConfigMap volumes they mount.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use super::{
    Pod, VolumeMount,
    document::Document,
    field::{Field, ManifestError},
    metadata_labels,
};

/// The ConfigMaps of a file by namespace and name.
#[derive(Debug, Default)]
pub(super) struct ConfigMaps(BTreeMap<(String, String), BTreeMap<String, String>>);

impl ConfigMaps {
    pub fn add(&mut self, document: &Document) -> Result<(), ManifestError> {
        let key = (document.namespace()?, document.name()?);
        let data = document.root().string_map("data")?;
        for name in data.keys() {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !name.chars().all(plain) || name.is_empty() || name == "." || name == ".." {
                let field = super::field::join("data", name);
                let problem = format!("expected a file name as key, found \"{name}\"");
                return Err(document.origin.error(
                    &field,
                    problem,
                    "use letters, digits, '-', '_' and '.'",
                ));
            }
        }
        if self.0.insert(key, data).is_some() {
            let help = "give each ConfigMap a different name";
            return Err(document.origin.error(
                "metadata.name",
                "there are two ConfigMaps of this name",
                help,
            ));
        }
        Ok(())
    }

    fn names(&self, namespace: &str) -> String {
        let names: Vec<_> = self
            .0
            .keys()
            .filter(|(ns, _)| ns == namespace)
            .map(|(_, name)| name.as_str())
            .collect();
        if names.is_empty() {
            "none".into()
        } else {
            names.join(", ")
        }
    }
}

/// Parses a Pod document. Volumes that a lab does not have are reported in `notes`.
pub(super) fn parse(
    document: &Document,
    maps: &ConfigMaps,
    notes: &mut Vec<String>,
) -> Result<Pod, ManifestError> {
    let root = document.root();
    let (namespace, name) = (document.namespace()?, document.name()?);
    let annotations = root
        .get("metadata")?
        .map(|metadata| metadata.string_map("annotations"))
        .transpose()?;
    let spec = root.get("spec")?;
    let node_name = root.text_at(&["spec", "nodeName"])?;
    let node_selector = spec
        .as_ref()
        .map(|spec| spec.string_map("nodeSelector"))
        .transpose()?;
    let mounts = match &spec {
        Some(spec) => mounts(spec, &namespace, maps, notes)?,
        None => Vec::new(),
    };
    Ok(Pod {
        origin: document.origin.clone(),
        namespace,
        name,
        labels: metadata_labels(&root)?,
        annotations: annotations.unwrap_or_default(),
        node_name: node_name.filter(|name| !name.is_empty()),
        node_selector: node_selector.unwrap_or_default(),
        mounts,
    })
}

/// The files of each volume by name; `None` for a volume that a lab does not have.
type Volumes = BTreeMap<String, Option<BTreeMap<String, String>>>;

fn mounts(
    spec: &Field<'_>,
    namespace: &str,
    maps: &ConfigMaps,
    notes: &mut Vec<String>,
) -> Result<Vec<VolumeMount>, ManifestError> {
    let volumes = volumes(spec, namespace, maps, notes)?;
    let mut mounts: Vec<VolumeMount> = Vec::new();
    for container in spec.list("containers")? {
        for field in container.list("volumeMounts")? {
            if let Some(mount) = mount(&field, &volumes)? {
                add_mount(&mut mounts, mount, &field)?;
            }
        }
    }
    // A directory is mounted before the mounts below it, as it would cover them.
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

/// Adds a mount. All containers of a lab's pod share one mount namespace, so two of them may mount
/// the same files at a path, but not different ones.
fn add_mount(
    mounts: &mut Vec<VolumeMount>,
    mount: VolumeMount,
    field: &Field<'_>,
) -> Result<(), ManifestError> {
    let Some(other) = mounts.iter().find(|other| other.target == mount.target) else {
        mounts.push(mount);
        return Ok(());
    };
    if (&other.files, &other.sub_path) == (&mount.files, &mount.sub_path) {
        return Ok(());
    }
    let problem = format!(
        "{} already mounts something else at {}",
        other.field,
        other.target.display()
    );
    Err(field.error(
        problem,
        "use two paths: in a lab the containers of a pod share one file system",
    ))
}

fn volumes(
    spec: &Field<'_>,
    namespace: &str,
    maps: &ConfigMaps,
    notes: &mut Vec<String>,
) -> Result<Volumes, ManifestError> {
    let mut volumes = Volumes::new();
    for field in spec.list("volumes")? {
        let name = field.required_text("name", "give the volume a name")?;
        if name.contains('/') || name.starts_with('.') {
            return Err(field.error(
                format!("expected a volume name, found \"{name}\""),
                "use lower case letters, digits and '-'",
            ));
        }
        let files = volume(&field, namespace, maps)?;
        if files.is_none() {
            notes.push(format!(
                "{}: {}: a lab has ConfigMap volumes only, so \"{name}\" is not mounted",
                spec.origin.document, field.path
            ));
        }
        volumes.insert(name, files);
    }
    Ok(volumes)
}

/// The files of a volume; `None` when it is not a ConfigMap.
fn volume(
    field: &Field<'_>,
    namespace: &str,
    maps: &ConfigMaps,
) -> Result<Option<BTreeMap<String, String>>, ManifestError> {
    let Some(source) = field.get("configMap")? else {
        return Ok(None);
    };
    let name = source.required_text("name", "name the ConfigMap")?;
    let optional = source
        .get("optional")?
        .map(|field| field.boolean())
        .transpose()?
        .unwrap_or_default();
    let Some(data) = maps.0.get(&(namespace.to_owned(), name.clone())) else {
        if optional {
            return Ok(Some(BTreeMap::new()));
        }
        let problem = format!(
            "expected a ConfigMap of namespace {namespace}, found no \"{name}\" in this file"
        );
        let help = format!(
            "add it, or name one of the file's ConfigMaps: {}",
            maps.names(namespace)
        );
        return Err(source
            .origin
            .error(&format!("{}.name", source.path), problem, help));
    };
    let items = source.list("items")?;
    if items.is_empty() {
        return Ok(Some(data.clone()));
    }
    selected(items, &name, data, optional).map(Some)
}

/// The files of a ConfigMap volume with `items`: each item gives a key of the ConfigMap a path.
fn selected(
    items: Vec<Field<'_>>,
    config_map: &str,
    data: &BTreeMap<String, String>,
    optional: bool,
) -> Result<BTreeMap<String, String>, ManifestError> {
    let mut files = BTreeMap::new();
    for item in items {
        let key = item.required_text("key", "name a key of the ConfigMap")?;
        let path = item.required_text("path", "write the path of the key's file")?;
        if !stays_inside(&path) {
            return Err(item.error(
                format!("\"{path}\" leaves the volume"),
                "use a relative path without \"..\"",
            ));
        }
        match data.get(&key) {
            Some(content) => drop(files.insert(path, content.clone())),
            None if optional => {}
            None => {
                let keys: Vec<_> = data.keys().map(String::as_str).collect();
                let problem = format!("expected a key of ConfigMap {config_map}, found \"{key}\"");
                return Err(item.error(problem, format!("it has: {}", keys.join(", "))));
            }
        }
    }
    Ok(files)
}

fn mount(field: &Field<'_>, volumes: &Volumes) -> Result<Option<VolumeMount>, ManifestError> {
    let name = field.required_text("name", "name one of the pod's volumes")?;
    let Some(files) = volumes.get(&name) else {
        let names: Vec<_> = volumes.keys().map(String::as_str).collect();
        let help = format!(
            "add it to spec.volumes, or name one of the pod's volumes: {}",
            names.join(", ")
        );
        return Err(field.error(
            format!("expected a volume of the pod, found \"{name}\""),
            help,
        ));
    };
    let target = field.required_text("mountPath", "write the path where the volume is mounted")?;
    let target = PathBuf::from(target);
    if !target.is_absolute()
        || target == Path::new("/")
        || target.components().any(|c| c == Component::ParentDir)
    {
        let problem = format!(
            "expected an absolute path below /, found \"{}\"",
            target.display()
        );
        return Err(field.error(problem, "write it without \"..\""));
    }
    let Some(files) = files else { return Ok(None) };
    let sub_path = field
        .get("subPath")?
        .map(|field| field.text())
        .transpose()?
        .filter(|path| !path.is_empty());
    if let Some(path) = &sub_path
        && !files.contains_key(path)
    {
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        let problem = format!("expected a file of volume {name} as subPath, found \"{path}\"");
        return Err(field.error(problem, format!("it has: {}", names.join(", "))));
    }
    Ok(Some(VolumeMount {
        field: field.path.clone(),
        volume: name,
        target,
        sub_path,
        files: files.clone(),
    }))
}

fn stays_inside(path: &str) -> bool {
    Path::new(path)
        .components()
        .all(|component| matches!(component, Component::Normal(_)))
}
