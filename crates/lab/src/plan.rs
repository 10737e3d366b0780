//! Everything a lab will be, with all names and addresses, before anything of it is made.

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
    /// What is needed once only, for each pod of the state.
    pub inputs: Vec<Input>,
}

/// What a pod's directory is filled with.
#[derive(Debug)]
pub(crate) struct Input {
    pub config: Value,
    pub script: Option<String>,
    /// Path below the pod's directory, and content.
    pub files: BTreeMap<PathBuf, String>,
}

impl Plan {
    /// Plans the lab of a manifest; every reason why it cannot be made is found here, if it can be
    /// known at all.
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
        let own = ratchet
            .parent()
            .map(|parent| format!(":{}", parent.display()))
            .unwrap_or_default();
        let state = State {
            name: args.name.clone(),
            id: random_hex(16)?,
            file: manifest.file.clone(),
            ratchet,
            cni_path: format!("{}{own}", args.cni_path),
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
    // As in `kubectl`, the default namespace needs no mention.
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

/// The first addresses of the underlay, one a node.
fn addresses(cidr: IpNet, count: usize) -> Result<Vec<IpAddr>> {
    // The first address of an IPv6 network is the routers' anycast address.
    let skip = usize::from(matches!(cidr, IpNet::V6(_)));
    let addresses: Vec<IpAddr> = cidr.hosts().skip(skip).take(count).collect();
    if addresses.len() < count {
        bail!(
            "the underlay {cidr} has {} addresses for {count} nodes: give a larger --underlay-cidr",
            addresses.len()
        );
    }
    Ok(addresses)
}

/// Two things of one lab must not want one namespace (`lab-node1` can be a pod and a node).
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
                "the network namespace of {what} would have a name of over 255 bytes: use shorter \
                 names"
            );
        }
        seen.insert(&netns.name, what);
    }
    Ok(())
}

/// A lab adds no directory to the host's file system, so a volume needs one that is there.
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
            let (wanted, there) = match mount.sub_path {
                Some(_) => ("a file", mount.target.is_file()),
                None => ("a directory", mount.target.is_dir()),
            };
            if !there {
                errors.push(pod.origin.error(
                    &format!("{}.mountPath", mount.field),
                    format!(
                        "expected {wanted} of this machine, found none at {}",
                        mount.target.display()
                    ),
                    "a lab runs this machine's programs on its files: install the program that \
                    goes with it, make \
                     it, or mount below /run, which each pod has for itself",
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

/// Whether a path lies in the part of the file system that each pod has for itself.
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
mod tests {
    use super::*;

    fn plan(text: &str, cidr: &str) -> Result<Plan> {
        let manifest = Manifest::parse("f.yaml", text).unwrap();
        let args = UpArgs {
            file: "f.yaml".into(),
            name: "t".into(),
            underlay_cidr: cidr.parse().unwrap(),
            nodes: 2,
            cni_path: "/cni".into(),
            log_level: "info".into(),
        };
        Plan::new(&manifest, &args, Path::new("/bin/sh"))
    }

    fn pod(name: &str, more: &str) -> String {
        format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}{more}}}\n")
    }

    #[test]
    fn the_plugins_config_is_what_a_runtime_would_give() {
        let more = ", labels: {ratchet: 'true', app: x}, annotations: {a: b}";
        let plan = plan(&pod("a", more), "10.89.0.0/24").unwrap();
        let config = &plan.inputs[0].config;
        assert_eq!(
            config["store"],
            "sqlite:/run/ratchet/lab/t/store/ratchet.db"
        );
        assert_eq!(
            config["socket"],
            "/run/ratchet/lab/t/nodes/node1/agent.sock"
        );
        assert_eq!(config["parent_address"], "10.89.0.1");
        assert_eq!(
            config["args"]["cni"]["labels"][1],
            json!({"key": "ratchet", "value": "true"})
        );
        assert_eq!(
            config["runtimeConfig"]["io.kubernetes.cri.pod-annotations"],
            json!({"a": "b"})
        );
        assert_eq!(plan.state.pods[0].container_id.len(), 64);
        assert_eq!(plan.state.pods[0].uid.len(), 36);
        assert!(
            plan.state.cni_path.starts_with("/cni:/"),
            "{}",
            plan.state.cni_path
        );
    }

    #[test]
    fn names_follow_from_lab_namespace_and_pod() {
        let plan = plan(
            &(pod("a", "") + &pod("a", ", namespace: blue")),
            "10.89.0.0/24",
        )
        .unwrap();
        let names: Vec<_> = plan
            .state
            .namespaces()
            .iter()
            .map(|netns| netns.name.clone())
            .collect();
        assert_eq!(
            names,
            ["t-a", "t-blue-a", "t-node1", "t-node2", "t-underlay"]
        );
    }

    #[test]
    fn two_things_in_one_namespace_are_refused() {
        let error = plan(&pod("node1", ""), "10.89.0.0/24")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "pod default/node1 and node node1 would both be the network namespace t-node1: rename \
             one of them"
        );
        assert!(
            plan(
                &(pod("b-a", "") + &pod("a", ", namespace: b")),
                "10.89.0.0/24"
            )
            .is_err()
        );
    }

    #[test]
    fn an_underlay_too_small_says_so_and_ipv6_leaves_the_anycast_address_out() {
        let two = pod("a", "") + &pod("b", "");
        assert!(
            plan(&two, "10.89.0.1/32")
                .unwrap_err()
                .to_string()
                .contains("1 addresses for 2 nodes")
        );
        assert_eq!(
            plan(&two, "fd00::/64").unwrap().state.nodes[0]
                .address
                .to_string(),
            "fd00::1"
        );
    }

    #[test]
    fn a_mount_point_this_machine_lacks_is_a_manifest_error() {
        let text = |path: &str| {
            format!(
                "{}spec:\n  containers: [{{volumeMounts: [{{name: v, mountPath: {path}}}]}}]\n  \
                volumes: [{{name: v, \
                 configMap: {{name: c}}}}]\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: \
                 {{name: c}}\n",
                pod("a", "")
            )
        };
        let error = plan(&text("/no/such"), "10.89.0.0/24")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(
                "f.yaml: document 1 (Pod/a): spec.containers[0].volumeMounts[0].mountPath: \
                 expected a directory"
            ),
            "{error}"
        );
        assert!(plan(&text("/run/anything"), "10.89.0.0/24").is_ok());
        assert!(plan(&text("/etc"), "10.89.0.0/24").is_ok());
    }
}
