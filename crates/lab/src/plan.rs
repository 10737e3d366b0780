//! Plans a lab: all its names and addresses, before anything is made.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::{
    cli::UpArgs,
    manifest::{self, Manifest, ManifestError, ManifestErrors},
    netns::Netns,
    schedule::schedule,
    state::{LabDir, Mount, Node, Pod, State},
};

/// The annotation with the commands to run inside a pod.
const SCRIPT: &str = "ratchet.dev/lab-run";
/// The interface of a node on the underlay.
pub(crate) const PARENT_INTERFACE: &str = "eth0";

/// A lab that can be made.
#[derive(Debug)]
pub(crate) struct Plan {
    pub state: State,
    /// For each pod of the state, what only `up` needs.
    pub inputs: Vec<Input>,
}

/// The contents of a pod's directory.
#[derive(Debug)]
pub(crate) struct Input {
    pub config: Value,
    pub script: Option<String>,
    /// Path below the pod's directory, and content.
    pub files: BTreeMap<PathBuf, String>,
}

impl Plan {
    /// Plans the lab of a manifest.
    ///
    /// # Errors
    /// Every reason why the lab cannot be made, as far as it can be known before making it.
    pub fn new(manifest: &Manifest, args: &UpArgs, ratchet: &Path) -> Result<Self> {
        let ratchet = ratchet
            .canonicalize()
            .with_context(|| format!("cannot find {}", ratchet.display()))?;
        let schedule = schedule(manifest, args.nodes.into())?;
        check_mounts(manifest)?;
        let addresses = addresses(args.underlay_cidr, schedule.nodes.len())?;
        let dir = LabDir::at(&args.name);
        let node = |(node, address): (&manifest::Node, IpAddr)| Node {
            name: node.name.clone(),
            labels: node.labels.clone(),
            address,
            netns: Netns::planned(format!("{}-{}", args.name, node.name)),
            agent: None,
        };
        let nodes: Vec<Node> = schedule.nodes.iter().zip(addresses).map(node).collect();
        let mut pods = Vec::new();
        let mut inputs = Vec::new();
        for (declared, &node) in manifest.pods.iter().zip(&schedule.placement) {
            pods.push(pod(&args.name, declared, &nodes[node].name)?);
            inputs.push(input(declared, &nodes[node], &dir));
        }
        let binary_dir = ratchet
            .parent()
            .map(|parent| format!(":{}", parent.display()))
            .unwrap_or_default();
        let state = State {
            name: args.name.clone(),
            id: random_hex(16)?,
            file: manifest.file.clone(),
            ratchet,
            cni_path: format!("{}{binary_dir}", args.cni_path),
            complete: false,
            cidr: args.underlay_cidr,
            underlay: Netns::planned(format!("{}-underlay", args.name)),
            nodes,
            pods,
        };
        check_names(&state)?;
        for node in &state.nodes {
            dir.check_socket(&node.name)?;
        }
        Ok(Self { state, inputs })
    }
}

fn pod(lab: &str, declared: &manifest::Pod, node: &str) -> Result<Pod> {
    // As in `kubectl`, the default namespace is left out.
    let short = match declared.namespace.as_str() {
        "default" => declared.name.clone(),
        namespace => format!("{namespace}-{}", declared.name),
    };
    let mounts = declared.mounts.iter().map(|mount| Mount {
        source: volume_dir(&mount.volume).join(mount.sub_path.as_deref().unwrap_or_default()),
        target: mount.target.clone(),
    });
    Ok(Pod {
        namespace: declared.namespace.clone(),
        name: declared.name.clone(),
        node: node.to_owned(),
        netns: Netns::planned(format!("{lab}-{short}")),
        container_id: random_hex(32)?,
        uid: random_uuid()?,
        attached: false,
        mounts: mounts.collect(),
        has_script: declared.annotations.contains_key(SCRIPT),
    })
}

fn volume_dir(volume: &str) -> PathBuf {
    Path::new("volumes").join(volume)
}

fn input(declared: &manifest::Pod, node: &Node, dir: &LabDir) -> Input {
    let labels: Vec<Value> = declared
        .labels
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect();
    let node_dir = dir.node(&node.name);
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "ratchet-lab",
        "type": "ratchet",
        "store": dir.store(),
        "node": node.name,
        "parent_interface": PARENT_INTERFACE,
        "parent_address": node.address,
        "socket": dir.socket(&node.name),
        "state_dir": node_dir.join("state"),
        "use_labels": true,
        "delegate": {"type": "loopback"},
        "boot_network": {"type": "loopback"},
        "args": {"cni": {"labels": labels}},
        "runtimeConfig": {"io.kubernetes.cri.pod-annotations": declared.annotations},
    });
    let files = declared.mounts.iter().flat_map(|mount| {
        mount
            .files
            .iter()
            .map(|(path, content)| (volume_dir(&mount.volume).join(path), content.clone()))
    });
    Input {
        config,
        script: declared.annotations.get(SCRIPT).cloned(),
        files: files.collect(),
    }
}

/// The first addresses of the underlay, one for each node.
fn addresses(cidr: IpNet, count: usize) -> Result<Vec<IpAddr>> {
    // The first address of an IPv6 network is the routers' anycast address.
    let skip = usize::from(matches!(cidr, IpNet::V6(_)));
    let addresses: Vec<IpAddr> = cidr.hosts().skip(skip).take(count).collect();
    if addresses.len() < count {
        bail!(
            "the underlay {cidr} has {} addresses for {count} nodes: use a larger --underlay-cidr",
            addresses.len()
        );
    }
    Ok(addresses)
}

/// Checks that no namespace name is too long or used twice (`lab-node1` can be a pod and a node).
fn check_names(state: &State) -> Result<()> {
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    let pods = state
        .pods
        .iter()
        .map(|pod| (&pod.netns, format!("pod {}/{}", pod.namespace, pod.name)));
    let nodes = state
        .nodes
        .iter()
        .map(|node| (&node.netns, format!("node {}", node.name)));
    for (netns, what) in [(&state.underlay, "the underlay".to_owned())]
        .into_iter()
        .chain(nodes)
        .chain(pods)
    {
        if let Some(other) = seen.get(netns.name.as_str()) {
            bail!(
                "{what} and {other} would both be the network namespace {}: rename one of them",
                netns.name
            );
        }
        if netns.name.len() > 255 {
            bail!(
                "the name of {what}'s network namespace would be longer than 255 bytes: use \
                 shorter names"
            );
        }
        seen.insert(&netns.name, what);
    }
    Ok(())
}

/// Checks that each volume has an existing mount point: a lab adds nothing to the machine's
/// file system.
fn check_mounts(manifest: &Manifest) -> Result<(), ManifestErrors> {
    let mut errors: Vec<ManifestError> = Vec::new();
    for pod in &manifest.pods {
        for mount in &pod.mounts {
            let covered = pod
                .mounts
                .iter()
                .any(|other| other != mount && mount.target.starts_with(&other.target));
            if covered || is_private(&mount.target) {
                continue;
            }
            let (wanted, exists) = match mount.sub_path {
                Some(_) => ("a file", mount.target.is_file()),
                None => ("a directory", mount.target.is_dir()),
            };
            if !exists {
                errors.push(pod.origin.error(
                    &format!("{}.mountPath", mount.field),
                    format!(
                        "expected {wanted} of this machine, found none at {}",
                        mount.target.display()
                    ),
                    "a lab runs programs of this machine on files of this machine: install the \
                     program that brings this path, make the path, or mount below /run, which \
                     each pod has for itself",
                ));
            }
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ManifestErrors(errors))
    }
}

/// Whether a path is in the part of the file system that each pod has for itself.
pub(crate) fn is_private(path: &Path) -> bool {
    ["/run", "/var/run"]
        .iter()
        .any(|private| path.starts_with(private) && path != Path::new(private))
}

fn random_hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut buffer))
        .context("cannot read /dev/urandom")?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn random_uuid() -> Result<String> {
    let hex = random_hex(16)?;
    Ok(format!(
        "{}-{}-4{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    ))
}

#[cfg(test)]
mod tests;
