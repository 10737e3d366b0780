//! Checks that kernel, disk and store have what is declared.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};

use crate::{
    support::{Sandbox, eventually},
    world::{Life, Operation, World},
};

/// The address and the route (network and gateway) that are added by hand to the survivors'
/// interfaces.
const BY_HAND: (&str, &str, &str) = ("10.77.0.1", "10.78.0.0/24", "10.77.0.2");

/// What may not change of a pod's interfaces: name, index, MAC, and the routes that were added by
/// hand.
pub fn identities(sandbox: &Sandbox) -> Vec<(String, Value, Value, String)> {
    let routes = sandbox
        .netns
        .sh("ip route show proto boot")
        .replace(" linkdown", "");
    let identity = |(name, link): (String, Value)| {
        (
            name,
            link["ifindex"].clone(),
            link["address"].clone(),
            routes.clone(),
        )
    };
    sandbox.netns.links().into_iter().map(identity).collect()
}

/// Adds an address and a route to a survivor's interface.
pub fn add_by_hand(sandbox: &Sandbox) {
    let (address, network, via) = BY_HAND;
    sandbox.netns.sh(&format!(
        "ip address add {address}/24 dev es && ip route add {network} via {via}"
    ));
}

impl World {
    /// Waits until everything is as declared.
    pub fn assert_as_declared(&self, life: &Life, operation: Operation, what: &str) {
        eventually(&format!("the declared state ({what})"), || {
            let problems = self.problems(life, operation == Operation::DelLast);
            if problems.is_empty() {
                Ok(())
            } else {
                Err(format!("{problems:#?}"))
            }
        });
        let Some(subject) = &life.subject else { return };
        for address in ["10.0.3.2", "10.0.4.2", "fd00:3::2", "fd00:4::2"] {
            eventually(&format!("an answer from {address} ({what})"), || {
                if subject.netns.ping(address) {
                    Ok(())
                } else {
                    Err("none".into())
                }
            });
        }
    }

    fn problems(&self, life: &Life, is_over: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let mut devices = |sandbox: &Sandbox, expected: &[(&str, &str, &str)]| {
            let found: Vec<_> = sandbox
                .netns
                .links()
                .into_values()
                .map(|link| describe(&link))
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, kind, address)| {
                    let ipv6 = address.replace("10.0.", "fd00:").replacen('.', "::", 1);
                    let by_hand = Some(BY_HAND.0).filter(|_| life.by_hand && *name == "es");
                    let addresses: Vec<&str> = [*address]
                        .into_iter()
                        .chain(by_hand)
                        .chain([&*ipv6])
                        .collect();
                    format!("{name} {kind} 1450 up {addresses:?}")
                })
                .collect();
            if found != expected {
                problems.push(format!("{}: {found:?}, not {expected:?}", sandbox.pod.name));
            }
        };
        if let Some(subject) = &life.subject {
            let [near, far] = if life.is_away {
                ["vxlan", "veth"]
            } else {
                ["veth", "vxlan"]
            };
            devices(
                subject,
                &[("ef", far, "10.0.4.1"), ("en", near, "10.0.3.1")],
            );
            devices(&life.near, &[("es", near, "10.0.3.2")]);
            devices(&life.far, &[("es", far, "10.0.4.2")]);
        } else if is_over {
            devices(&life.near, &[]);
            devices(&life.far, &[]);
        }
        let living = |sandbox: &&Sandbox| {
            !is_over || !std::ptr::eq(*sandbox, &life.near) && !std::ptr::eq(*sandbox, &life.far)
        };
        let here: Vec<&Sandbox> = [&self.still[0], &self.still[1], &life.near]
            .into_iter()
            .chain(life.subject_on(0))
            .filter(living)
            .collect();
        let there: Vec<&Sandbox> = [&self.still[2], &life.far]
            .into_iter()
            .chain(life.subject_on(1))
            .filter(living)
            .collect();
        let store = self.store();
        for (node, sandboxes) in self.cluster.nodes.iter().zip([&here, &there]) {
            let ids: BTreeSet<String> = sandboxes
                .iter()
                .map(|sandbox| format!("{}.json", sandbox.id))
                .collect();
            let files = fs::read_dir(node.state_dir.join("sandboxes")).unwrap();
            let files: BTreeSet<String> = files
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            if files != ids {
                problems.push(format!("{}: state of {files:?}, not {ids:?}", node.name));
            }
            let devices: Vec<String> = node
                .netns
                .links()
                .into_keys()
                .filter(|name| name != "eth0")
                .collect();
            // While the subject has no sandbox, the survivor's other end is parked here.
            let parked = usize::from(
                std::ptr::eq(node, &self.cluster.nodes[0]) && life.subject.is_none() && !is_over,
            );
            if devices.len() > parked {
                problems.push(format!("{}: {devices:?}", node.name));
            }
            problems.extend(
                sandboxes
                    .iter()
                    .filter(|s| !store.contains(&s.id))
                    .map(|s| format!("store: no {}", s.pod.name)),
            );
        }
        let known = store.matches("ab12").count();
        if known != here.len() + there.len()
            || is_over && store.contains(&format!("-{}", life.number))
        {
            problems.push(format!("store: {store}"));
        }
        problems
    }

    /// The contents of the store, as text.
    fn store(&self) -> String {
        self.etcd.as_ref().map_or_else(
            || self.cluster.store_rows(),
            |etcd| format!("{:?}", etcd.everything()),
        )
    }
}

/// The compared properties of a device: name, kind, MTU, whether it is up, and its addresses.
fn describe(link: &Value) -> String {
    let addresses = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|address| address["scope"] == "global");
    let addresses: Vec<&str> = addresses
        .filter_map(|address| address["local"].as_str())
        .collect();
    let is_up = link["flags"].as_array().unwrap().contains(&json!("UP"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!(
        "{} {} {} {} {addresses:?}",
        text(&link["ifname"]),
        text(&link["linkinfo"]["info_kind"]),
        link["mtu"],
        if is_up { "up" } else { "down" }
    )
}
