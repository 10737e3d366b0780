//! Decides which nodes a lab has, and on which of them each pod runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::{Manifest, ManifestError, ManifestErrors, Node, Pod};

/// Every kubelet sets this label on its node, so a selector may rely on it.
pub(crate) const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// The nodes of a lab, and for each pod of the manifest the index of its node.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub nodes: Vec<Node>,
    pub placement: Vec<usize>,
}

/// Assigns a node to every pod. `default_count` is how many nodes to make up for a file that says
/// nothing about nodes.
pub(crate) fn schedule(
    manifest: &Manifest,
    default_count: usize,
) -> Result<Schedule, ManifestErrors> {
    let declared = !manifest.nodes.is_empty();
    let mut nodes = if declared {
        manifest.nodes.clone()
    } else {
        make_up_nodes(&manifest.pods, default_count)
    };
    for node in &mut nodes {
        node.labels
            .entry(HOSTNAME_LABEL.to_owned())
            .or_insert_with(|| node.name.clone());
    }
    // Pods with a nodeName or nodeSelector come first, so that the others are spread around them.
    let mut chosen: Vec<Option<usize>> = vec![None; manifest.pods.len()];
    let mut errors = Vec::new();
    for bound in [true, false] {
        for (index, pod) in manifest.pods.iter().enumerate() {
            if bound != (pod.node_name.is_some() || !pod.node_selector.is_empty()) {
                continue;
            }
            match choose(pod, &nodes, &chosen) {
                Ok(node) => chosen[index] = Some(node),
                Err(error) => errors.push(error),
            }
        }
    }
    if !errors.is_empty() {
        return Err(ManifestErrors(errors));
    }
    Ok(Schedule {
        nodes,
        placement: chosen.into_iter().flatten().collect(),
    })
}

/// The node of a pod: the named one, or the one with the fewest pods of those that match the
/// selector; among equals the first.
fn choose(pod: &Pod, nodes: &[Node], chosen: &[Option<usize>]) -> Result<usize, ManifestError> {
    let load = |node: usize| {
        chosen
            .iter()
            .flatten()
            .filter(|&&other| other == node)
            .count()
    };
    let fits = |node: &Node| match &pod.node_name {
        Some(name) => node.name == *name,
        None => pod
            .node_selector
            .iter()
            .all(|(key, value)| node.labels.get(key) == Some(value)),
    };
    let candidates = nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| fits(node))
        .map(|(index, _)| index);
    candidates
        .min_by_key(|&index| (load(index), index))
        .ok_or_else(|| no_node(pod, nodes))
}

fn no_node(pod: &Pod, nodes: &[Node]) -> ManifestError {
    let known: Vec<_> = nodes
        .iter()
        .map(|node| format!("{} ({})", node.name, labels(&node.labels)))
        .collect();
    let known = known.join(", ");
    match &pod.node_name {
        Some(name) => pod.origin.error(
            "spec.nodeName",
            format!("expected a Node of this file, found no \"{name}\""),
            format!("add that Node, or use one of these: {known}"),
        ),
        None => pod.origin.error(
            "spec.nodeSelector",
            format!(
                "expected a Node of this file with the labels {}, found none",
                labels(&pod.node_selector)
            ),
            format!("add these labels to one of the file's Nodes: {known}"),
        ),
    }
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if pairs.is_empty() {
        "no labels".into()
    } else {
        pairs.join(",")
    }
}

/// Makes up the nodes for a file that has none: those that its pods name or select, or
/// `default_count` nodes if there are none of either.
fn make_up_nodes(pods: &[Pod], default_count: usize) -> Vec<Node> {
    let mut named: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut selectors: BTreeSet<&BTreeMap<String, String>> = BTreeSet::new();
    for pod in pods {
        match (&pod.node_name, pod.node_selector.get(HOSTNAME_LABEL)) {
            (Some(name), _) | (None, Some(name)) => {
                named
                    .entry(name.clone())
                    .or_default()
                    .extend(pod.node_selector.clone());
            }
            (None, None) if pod.node_selector.is_empty() => {}
            (None, None) => {
                selectors.insert(&pod.node_selector);
            }
        }
    }
    let mut nodes: Vec<Node> = Vec::new();
    let anonymous: Vec<BTreeMap<String, String>> = if named.is_empty() && selectors.is_empty() {
        vec![BTreeMap::new(); default_count.min(pods.len())]
    } else {
        selectors.into_iter().cloned().collect()
    };
    let mut names = (1..)
        .map(|number| format!("node{number}"))
        .filter(|name| !named.contains_key(name));
    nodes.extend(
        anonymous
            .into_iter()
            .zip(&mut names)
            .map(|(labels, name)| Node { name, labels }),
    );
    nodes.extend(named.iter().map(|(name, labels)| Node {
        name: name.clone(),
        labels: labels.clone(),
    }));
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, spec: &str) -> String {
        format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
    }

    fn node(name: &str, labels: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"
        )
    }

    fn place(documents: &[String]) -> Result<Vec<String>, String> {
        let manifest = Manifest::parse("f.yaml", &documents.concat()).unwrap();
        let schedule = schedule(&manifest, 2).map_err(|error| error.to_string())?;
        Ok(schedule
            .placement
            .iter()
            .map(|&index| schedule.nodes[index].name.clone())
            .collect())
    }

    #[test]
    fn selectors_without_nodes_make_up_one_each_in_sorted_order() {
        let (left, right) = ("nodeSelector: {side: left}", "nodeSelector: {side: right}");
        let pods = [pod("d", right), pod("a", left), pod("b", left)];
        assert_eq!(place(&pods).unwrap(), ["node2", "node1", "node1"]);
    }

    #[test]
    fn a_node_name_is_kept_and_its_node_is_not_made_up_twice() {
        let pods = [
            pod("a", "nodeName: node1"),
            pod("b", "nodeSelector: {x: 'y'}"),
            pod("c", "nodeName: node1"),
        ];
        assert_eq!(place(&pods).unwrap(), ["node1", "node2", "node1"]);
        assert_eq!(
            place(&[pod("a", "nodeSelector: {kubernetes.io/hostname: w7}")]).unwrap(),
            ["w7"]
        );
    }

    #[test]
    fn pods_without_wishes_are_spread_around_the_bound_ones() {
        assert_eq!(
            place(&["a", "b", "c"].map(|name| pod(name, ""))).unwrap(),
            ["node1", "node2", "node1"]
        );
        let documents = [
            pod("a", ""),
            pod("b", "nodeName: n1"),
            pod("c", ""),
            node("n1", ""),
            node("n2", ""),
        ];
        assert_eq!(place(&documents).unwrap(), ["n2", "n1", "n1"]);
    }

    #[test]
    fn declared_nodes_are_matched_by_their_labels() {
        let documents = [
            node("l", "side: left"),
            node("r", "side: right"),
            pod("a", "nodeSelector: {side: right}"),
        ];
        assert_eq!(place(&documents).unwrap(), ["r"]);
    }

    #[test]
    fn a_selector_that_no_node_matches_names_document_field_and_labels() {
        let documents = [
            node("l", "side: left"),
            pod("a", "nodeSelector: {side: up}"),
        ];
        assert_eq!(
            place(&documents).unwrap_err(),
            "f.yaml: document 2 (Pod/a): spec.nodeSelector: expected a Node of this file with the \
             labels side=up, found none: add these labels to one of the file's Nodes: \
             l (kubernetes.io/hostname=l,side=left)"
        );
        let documents = [node("l", ""), pod("a", "nodeName: m")];
        assert!(
            place(&documents)
                .unwrap_err()
                .contains("spec.nodeName: expected a Node of this file, found no \"m\"")
        );
    }

    #[test]
    fn the_cloud_router_goes_half_to_the_left_and_half_to_the_right() {
        let text = include_str!("../../../examples/cloud-router.yaml");
        let manifest = Manifest::parse("cloud-router.yaml", text).unwrap();
        let schedule = schedule(&manifest, 2).unwrap();
        let names: Vec<_> = manifest.pods.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names, ["centosa", "quagga-a", "quagga-b", "centosb"]);
        assert_eq!(schedule.placement, [0, 0, 1, 1]);
        assert_eq!(schedule.nodes[0].labels["ratchetside"], "left");
        assert_eq!(manifest.pods[1].labels["ratchet.pair_ifname"], "mid2");
        let files: Vec<_> = manifest.pods[1].mounts[0].files.keys().collect();
        assert_eq!(files, ["ospfd.conf", "vtysh.conf", "zebra.conf"]);
        assert_eq!(manifest.notes, Vec::<String>::new());
    }
}
