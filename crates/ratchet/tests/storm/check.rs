//! Checks that kernel, store and disk have what is declared.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, PodRecord, link::End, wiring::parked_name};
use serde_json::Value;

use crate::{
    topology::{Link, PODS},
    world::{NODES, World},
};

/// The contents of the store, parsed.
#[derive(Default)]
struct Contents {
    records: BTreeMap<usize, PodRecord>,
    /// Pod and declarer.
    index: BTreeSet<(usize, usize)>,
    vnis: BTreeMap<LinkId, u64>,
    /// The keys of the VNIs.
    numbers: BTreeMap<u64, Value>,
    /// The VNIs in the list of those in use.
    in_use: BTreeSet<u64>,
    /// Nodes that may have records.
    nodes: BTreeSet<String>,
    /// Nodes whose agents are alive.
    alive: BTreeSet<String>,
    /// Keys that could not be parsed.
    unknown: Vec<String>,
}

impl World {
    /// Everything that differs from what is declared.
    pub fn problems(&self) -> Vec<String> {
        let contents = self.contents();
        let mut problems = contents.unknown.clone();
        self.check_store(&contents, &mut problems);
        for pod in 0..PODS {
            self.check_pod(pod, &contents, &mut problems);
        }
        for node in 0..NODES {
            self.check_node(node, &mut problems);
        }
        problems
    }

    fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        let pod = |text: &str| {
            text.strip_prefix("default/p")
                .and_then(|number| number.parse::<usize>().ok())
        };
        for (path, value) in self.all.etcd.everything() {
            let read = path
                .strip_prefix("/ratchet/")
                .and_then(|path| path.split_once('/').or(Some((path, ""))));
            let is_known = match read {
                Some(("pods", name)) => pod(name)
                    .zip(serde_json::from_str(&value).ok())
                    .map(|(pod, record)| contents.records.insert(pod, record))
                    .is_some(),
                Some(("peers", names)) => names
                    .match_indices('/')
                    .nth(1)
                    .and_then(|(at, _)| pod(&names[..at]).zip(pod(&names[at + 1..])))
                    .map(|entry| contents.index.insert(entry))
                    .is_some(),
                Some(("links", id)) => id
                    .parse()
                    .ok()
                    .zip(value.parse().ok())
                    .map(|(id, vni)| contents.vnis.insert(id, vni))
                    .is_some(),
                Some(("vnis", "")) => {
                    for range in value.split(',') {
                        let (first, last) = range.split_once('-').unwrap_or((range, range));
                        contents
                            .in_use
                            .extend(first.parse::<u64>().unwrap()..=last.parse().unwrap());
                    }
                    true
                }
                Some(("numbers", vni)) => vni
                    .parse()
                    .ok()
                    .zip(serde_json::from_str::<Value>(&value).ok())
                    .map(|(vni, number)| contents.numbers.insert(vni, number))
                    .is_some(),
                Some(("nodes", name)) => contents.nodes.insert(name.to_owned()),
                Some(("alive", name)) => contents.alive.insert(name.to_owned()),
                _ => false,
            };
            if !is_known {
                contents.unknown.push(format!("store: {path} = {value}"));
            }
        }
        contents
    }

    fn lives(&self, pod: usize) -> bool {
        self.living.contains_key(&pod)
    }

    /// The number of a link's ends that have a living pod.
    fn living_ends(&self, link: &Link) -> usize {
        link.ends.iter().filter(|(pod, _)| self.lives(*pod)).count()
    }

    fn is_tunnel(&self, link: &Link) -> bool {
        let [one, other] = [0, 1].map(|end| {
            self.living
                .get(&link.ends[end].0)
                .map(|instance| instance.node)
        });
        one.is_some() && other.is_some() && one != other
    }

    fn check_store(&self, contents: &Contents, problems: &mut Vec<String>) {
        self.check_locations(contents, problems);
        self.check_nodes(contents, problems);
        check_index(contents, problems);
        self.check_vnis(contents, problems);
    }

    fn check_locations(&self, contents: &Contents, problems: &mut Vec<String>) {
        for pod in 0..PODS {
            let location = contents
                .records
                .get(&pod)
                .map(|record| record.location.as_ref());
            match (self.living.get(&pod), location) {
                (Some(instance), Some(Some(location))) => {
                    let found = (location.node.as_str(), location.sandbox.as_str());
                    let expected = (
                        self.node(instance.node).name.as_str(),
                        instance.sandbox.id.as_str(),
                    );
                    if found != expected {
                        problems.push(format!(
                            "store: p{pod} is in {expected:?}, but its record has {found:?}"
                        ));
                    }
                }
                (Some(_), found) => {
                    problems.push(format!("store: p{pod} lives, but its record has {found:?}"))
                }
                (None, Some(Some(found))) => problems.push(format!(
                    "store: p{pod} is deleted, but its record has {found:?}"
                )),
                (None, Some(None)) => {
                    let needed = self
                        .topology
                        .of(pod)
                        .any(|link| link.declarers().contains(&pod) && self.living_ends(link) > 0);
                    if !needed {
                        problems.push(format!(
                            "store: p{pod} is deleted, but its record is kept, though no link \
                             needs it"
                        ));
                    }
                }
                (None, None) => {}
            }
        }
    }

    fn check_nodes(&self, contents: &Contents, problems: &mut Vec<String>) {
        let inhabited: BTreeSet<String> = self
            .living
            .values()
            .map(|instance| self.node(instance.node).name.clone())
            .collect();
        if contents.nodes != inhabited || contents.alive != inhabited {
            let Contents { nodes, alive, .. } = contents;
            problems.push(format!(
                "store: nodes {nodes:?}, alive {alive:?}, and pods live on {inhabited:?}"
            ));
        }
    }

    fn check_vnis(&self, contents: &Contents, problems: &mut Vec<String>) {
        let numbers: BTreeSet<u64> = contents.vnis.values().copied().collect();
        if numbers != contents.in_use || numbers.len() != contents.vnis.len() {
            let besides: Vec<_> = contents.in_use.symmetric_difference(&numbers).collect();
            problems.push(format!(
                "store: VNIs of links {:?}, and in the list of VNIs in use, or the other way \
                 around, {besides:?}",
                contents.vnis
            ));
        }
        let of_link = |link: &LinkId, vni: &u64| {
            let number = contents.numbers.get(vni);
            number.is_some_and(|number| number["link"] == link.to_string().as_str())
        };
        let without = contents
            .vnis
            .iter()
            .filter(|(link, vni)| !of_link(link, vni));
        problems.extend(without.map(|(link, vni)| format!("store: VNI {vni} is not of {link}")));
        let left = contents
            .numbers
            .iter()
            .filter(|(vni, _)| !numbers.contains(vni));
        problems.extend(left.map(|(vni, number)| format!("store: VNI {vni} is kept: {number}")));
        let mut unneeded = contents.vnis.clone();
        for link in &self.topology.links {
            let vni = unneeded.remove(&link.id());
            match (self.living_ends(link), vni) {
                (0, Some(vni)) => problems.push(format!(
                    "store: {:?} has ended and has VNI {vni}",
                    link.ends
                )),
                (_, None) if self.is_tunnel(link) => {
                    problems.push(format!("store: {:?} has no VNI", link.ends))
                }
                _ => {}
            }
        }
        problems.extend(
            unneeded
                .iter()
                .map(|(link, vni)| format!("store: VNI {vni} of no link: {link}")),
        );
    }

    fn check_pod(&self, pod: usize, contents: &Contents, problems: &mut Vec<String>) {
        let Some(instance) = self.living.get(&pod) else {
            return;
        };
        let mut found = instance.sandbox.netns.links();
        for link in self.topology.of(pod) {
            for end in [0, 1] {
                if link.ends[end].0 != pod {
                    continue;
                }
                let device = found.remove(&link.ends[end].1);
                if self.living_ends(link) < 2 {
                    continue;
                }
                let problem = match device {
                    None => Some("is missing".to_owned()),
                    Some(device) => self.check_device(link, end, &device, contents),
                };
                problems.extend(problem.map(|problem| {
                    format!(
                        "{:?} (on node{}): end {end} {problem}",
                        link.ends,
                        instance.node + 1
                    )
                }));
            }
        }
        problems.extend(
            found
                .into_keys()
                .map(|name| format!("p{pod}: {name} should not be there")),
        );
    }

    fn check_device(
        &self,
        link: &Link,
        end: usize,
        device: &Value,
        contents: &Contents,
    ) -> Option<String> {
        let kind = if self.is_tunnel(link) {
            "vxlan"
        } else {
            "veth"
        };
        let info = &device["linkinfo"];
        if info["info_kind"] != kind {
            return Some(format!("expected a {kind}, found {info}"));
        }
        let flags: Vec<&str> = device["flags"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        if !flags.contains(&"UP") || !flags.contains(&"LOWER_UP") {
            return Some(format!("is not up: {flags:?}"));
        }
        let addresses = device["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|a| a["family"] == "inet");
        let addresses: Vec<&str> = addresses.filter_map(|a| a["local"].as_str()).collect();
        if addresses != [link.address(end)] || device["mtu"] != 1450 {
            return Some(format!("has {addresses:?} and MTU {}", device["mtu"]));
        }
        if kind == "vxlan" {
            let data = &info["info_data"];
            let remote = &self.node(self.living[&link.ends[1 - end].0].node).address;
            let vni = contents.vnis.get(&link.id());
            if data["remote"] != remote.as_str() || data["id"].as_u64() != vni.copied() {
                return Some(format!(
                    "is a tunnel to {} with VNI {}, not {remote} and {vni:?}",
                    data["remote"], data["id"]
                ));
            }
        }
        None
    }

    /// Checks that nothing of deleted sandboxes is in the node's namespace or on its disk.
    fn check_node(&self, number: usize, problems: &mut Vec<String>) {
        let node = self.node(number);
        let is_here = |pod: usize| {
            self.living
                .get(&pod)
                .is_some_and(|instance| instance.node == number)
        };
        let without_peer = self.topology.links.iter().filter(|link| {
            self.living_ends(link) == 1 && link.ends.iter().any(|(pod, _)| is_here(*pod))
        });
        let parked: BTreeSet<String> = without_peer
            .flat_map(|link| End::BOTH.map(|end| parked_name(link.id(), end)))
            .collect();
        let devices = node
            .netns
            .links()
            .into_keys()
            .filter(|name| name != "eth0" && !parked.contains(name));
        problems.extend(devices.map(|name| format!("{}: {name} should not be there", node.name)));
        let ids: BTreeSet<&str> = self
            .living
            .iter()
            .filter(|(pod, _)| is_here(**pod))
            .map(|(_, instance)| instance.sandbox.id.as_str())
            .collect();
        let files = std::fs::read_dir(node.state_dir.join("sandboxes")).unwrap();
        let files: Vec<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        let known: BTreeSet<&str> = files
            .iter()
            .map(|file| file.strip_suffix(".json").unwrap_or(file))
            .collect();
        problems.extend(
            known
                .symmetric_difference(&ids)
                .map(|id| format!("{}: state of sandbox {id}", node.name)),
        );
    }
}

/// Checks that the index by peer has exactly the peers that the records declare.
fn check_index(contents: &Contents, problems: &mut Vec<String>) {
    let declared = contents.records.iter().flat_map(|(pod, record)| {
        let peers = record
            .peers()
            .into_iter()
            .map(|peer| peer.name()[1..].parse().unwrap());
        peers.map(|peer: usize| (peer, *pod)).collect::<Vec<_>>()
    });
    let declared: BTreeSet<(usize, usize)> = declared.collect();
    problems.extend(
        contents
            .index
            .symmetric_difference(&declared)
            .map(|e| format!("store: index entry {e:?}")),
    );
}
