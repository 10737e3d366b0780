//! meshnet's Topologies, and what KNE's tools read of them.

use ratchet_api::{DeclaredBy, EndState, Link, meshnet::Status};
use ratchet_controller::Memory;
use serde_json::{Value, json};

use crate::fake::{Fake, key};

/// A link as a Topology has it: `uid`, `local_intf`, `peer_pod:peer_intf`, and both addresses.
fn link(uid: u32, local: &str, peer: &str, addresses: [&str; 2]) -> Value {
    let (pod, interface) = peer.rsplit_once(':').unwrap();
    json!({
        "uid": uid, "peer_pod": pod, "local_intf": local, "peer_intf": interface,
        "local_ip": addresses[0], "peer_ip": addresses[1],
    })
}

fn bare(uid: u32, local: &str, peer: &str) -> Value {
    link(uid, local, peer, ["", ""])
}

/// The cables: both ends with their addresses, and the reason if a Link is not accepted.
fn cables(api: &Fake) -> Vec<String> {
    let end = |end: &ratchet_api::LinkEnd| {
        let mut words = vec![format!("{}:{}", end.pod.as_ref().unwrap(), end.interface)];
        words.extend(end.addresses.clone());
        words.join(" ")
    };
    let shown = |link: &Link| {
        assert_eq!(link.spec.declared_by, DeclaredBy::Meshnet);
        let status = link.status.clone().unwrap_or_default();
        let reason = status.conditions.first();
        let reason = reason.map_or(String::new(), |condition| format!(" {}", condition.reason));
        format!("{} - {}{reason}", end(&link.spec.a), end(&link.spec.b))
    };
    let mut all: Vec<String> = api.all.links.values().map(|link| shown(link)).collect();
    all.sort();
    all
}

fn status(api: &Fake, name: &str) -> Status {
    api.all.meshnet[&key(name)].status.clone()
}

/// Pods on three nodes and their Topologies, all up.
fn lab(topologies: &[(&str, Value)]) -> (Fake, Memory) {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    for (number, pod) in ["r1", "r2", "r3"].iter().enumerate() {
        api.pod(&format!("lab/{pod}"), &format!("n{}", number + 1));
    }
    for (pod, links) in topologies {
        api.meshnet(&format!("lab/{pod}"), links);
    }
    settle(&mut api, &mut memory);
    (api, memory)
}

/// What there is after a while.
fn settle(api: &mut Fake, memory: &mut Memory) {
    for _ in 0..3 {
        api.settle(memory);
        api.agents();
        api.pass(2);
    }
    api.settle(memory);
}

/// What it is about, the Topologies by pod, and the cables.
type Case = (&'static str, Vec<(&'static str, Value)>, Vec<&'static str>);

#[test]
fn objects_become_cables() {
    let two = |one: Value, other: Value| json!([one, other]);
    let cases: Vec<Case> = vec![
        ("none", vec![("r1", json!([]))], vec![]),
        (
            "both sides, uid 0, no addresses",
            vec![
                ("r2", json!([bare(0, "eth2", "r1:eth1")])),
                ("r1", json!([bare(0, "eth1", "r2:eth2")])),
            ],
            vec!["r1:eth1 - r2:eth2"],
        ),
        (
            "one side is enough",
            vec![(
                "r2",
                json!([link(7, "eth1", "r1:eth1", ["10.0.0.2/24", "10.0.0.1/24"])]),
            )],
            vec!["r1:eth1 10.0.0.1/24 - r2:eth1 10.0.0.2/24"],
        ),
        (
            "an end's own word comes first",
            vec![
                (
                    "r1",
                    json!([link(1, "eth1", "r2:eth1", ["10.0.0.1/24", "10.0.0.9/24"])]),
                ),
                (
                    "r2",
                    json!([link(1, "eth1", "r1:eth1", ["10.0.0.2/24", "fd00::1/64"])]),
                ),
            ],
            vec!["r1:eth1 10.0.0.1/24 - r2:eth1 10.0.0.2/24"],
        ),
        (
            "an empty word is none",
            vec![
                (
                    "r1",
                    json!([link(1, "eth1", "r2:eth1", ["", "10.0.0.2/24"])]),
                ),
                (
                    "r2",
                    json!([link(1, "eth1", "r1:eth1", ["", "10.0.0.1/24"])]),
                ),
            ],
            vec!["r1:eth1 10.0.0.1/24 - r2:eth1 10.0.0.2/24"],
        ),
        (
            "a uid that other pods have, too",
            vec![
                (
                    "r1",
                    two(bare(1, "eth1", "r2:eth1"), bare(1, "eth2", "r3:eth1")),
                ),
                (
                    "r2",
                    two(bare(1, "eth1", "r1:eth1"), bare(1, "eth2", "r3:eth2")),
                ),
                (
                    "r3",
                    two(bare(1, "eth1", "r1:eth2"), bare(1, "eth2", "r2:eth2")),
                ),
            ],
            vec![
                "r1:eth1 - r2:eth1",
                "r1:eth2 - r3:eth1",
                "r2:eth2 - r3:eth2",
            ],
        ),
        (
            "several links between two pods",
            vec![
                (
                    "r1",
                    two(bare(1, "eth1", "r2:eth1"), bare(2, "eth2", "r2:eth2")),
                ),
                (
                    "r2",
                    two(bare(1, "eth1", "r1:eth1"), bare(2, "eth2", "r1:eth2")),
                ),
            ],
            vec!["r1:eth1 - r2:eth1", "r1:eth2 - r2:eth2"],
        ),
        (
            "both ends in one pod",
            vec![(
                "r1",
                two(bare(3, "eth1", "r1:eth2"), bare(3, "eth2", "r1:eth1")),
            )],
            vec!["r1:eth1 - r1:eth2"],
        ),
        (
            "a pod that is not there yet",
            vec![("r1", json!([bare(1, "eth1", "r9:eth1")]))],
            vec!["r1:eth1 - r9:eth1 PodNotFound"],
        ),
    ];
    for (what, topologies, expected) in cases {
        let (api, _) = lab(&topologies);
        assert_eq!(cables(&api), expected, "{what}");
        for (pod, _) in topologies {
            let error = status(&api, &format!("lab/{pod}")).plumbing_error;
            assert_eq!(error, "", "{what}");
        }
    }
}

#[test]
fn what_cannot_be_made_is_said_where_knes_tools_see_it() {
    let cases = [
        (
            bare(1, "eth1", "localhost:eth0"),
            "uid 1 (eth1 to localhost:eth0): Unsupported: peer_pod",
        ),
        (
            bare(1, "eth1", "physical/10.0.0.9:eth0"),
            "Unsupported: peer_pod physical/10.0.0.9",
        ),
        (bare(1, "eth1", "R2:eth1"), "Unsupported: \"R2\" cannot be"),
        (bare(1, "a/b", "r2:eth1"), "Unsupported: interface \"a/b\""),
        (bare(1, "eth1", "r1:eth1"), "Unsupported: it would connect"),
        (
            link(1, "eth1", "r2:eth1", ["10.0.0.1", ""]),
            "Unsupported: addresses",
        ),
    ];
    for (wrong, expected) in cases {
        let right = bare(2, "eth2", "r2:eth2");
        let (api, _) = lab(&[("r1", json!([wrong, right]))]);
        assert_eq!(cables(&api), ["r1:eth2 - r2:eth2"], "{expected}");
        let error = status(&api, "lab/r1").plumbing_error;
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_contradiction_makes_nothing_and_changes_nothing() {
    let one = json!([bare(1, "eth1", "r2:eth1")]);
    let other = json!([bare(1, "eth2", "r1:eth1")]);
    let (mut api, mut memory) = lab(&[("r1", one.clone()), ("r2", other.clone())]);
    assert_eq!(cables(&api), [""; 0]);
    for pod in ["lab/r1", "lab/r2"] {
        let error = status(&api, pod).plumbing_error;
        assert!(
            error.contains("Conflict: uid 1 is said to connect lab/r1/eth1"),
            "{error}"
        );
    }
    api.meshnet("lab/r2", &json!([bare(1, "eth1", "r1:eth1")]));
    settle(&mut api, &mut memory);
    assert_eq!(cables(&api), ["r1:eth1 - r2:eth1"]);
    assert_eq!(status(&api, "lab/r1").plumbing_error, "");
    let uid = |api: &Fake| api.link("lab/r1-").metadata.uid;
    let before = uid(&api);
    api.meshnet("lab/r2", &other);
    settle(&mut api, &mut memory);
    assert_eq!(cables(&api), ["r1:eth1 - r2:eth1 Conflict"]);
    assert_eq!(uid(&api), before);
    api.meshnet("lab/r1", &json!([bare(1, "eth1", "r2:eth2")]));
    settle(&mut api, &mut memory);
    assert_eq!(cables(&api), ["r1:eth1 - r2:eth2"]);
    assert_eq!(status(&api, "lab/r1").plumbing_error, "");
    // One pod that says two addresses of one interface.
    let address = |address| link(1, "eth1", "r2:eth2", [address, ""]);
    api.meshnet(
        "lab/r1",
        &json!([address("10.0.0.1/24"), address("10.0.0.2/24")]),
    );
    settle(&mut api, &mut memory);
    assert_eq!(cables(&api), ["r1:eth1 - r2:eth2 Conflict"]);
    let error = status(&api, "lab/r1").plumbing_error;
    assert!(
        error.contains("the address 10.0.0.1/24, and also 10.0.0.2/24"),
        "{error}"
    );
}

#[test]
fn uids_that_are_counted_anew_touch_no_link_that_stays() {
    let all = |peer: &str, first: u32| -> Value {
        let link = |uid| {
            bare(
                uid,
                &format!("eth{}", uid + first),
                &format!("{peer}:eth{}", uid + first),
            )
        };
        (0..5 - first).map(link).collect()
    };
    let (mut api, mut memory) = lab(&[("r1", all("r2", 1)), ("r2", all("r1", 1))]);
    assert_eq!(api.all.links.len(), 4);
    let uids = |api: &Fake| -> Vec<String> {
        let links = api.all.links.values();
        let kept = links.filter(|link| link.spec.a.interface != "eth1");
        kept.map(|link| link.metadata.uid.clone().unwrap())
            .collect()
    };
    let before = uids(&api);
    // The first link is left out, at one pod after the other.
    for pod in ["r1", "r2"] {
        let peer = if pod == "r1" { "r2" } else { "r1" };
        api.meshnet(&format!("lab/{pod}"), &all(peer, 2));
        settle(&mut api, &mut memory);
        assert_eq!(uids(&api), before, "after {pod}");
    }
    assert_eq!(cables(&api).len(), 3);
}

#[test]
fn a_pod_is_alive_when_its_agent_knows_its_sandbox() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.pod("lab/r1", "n1");
    api.meshnet("lab/r1", &json!([bare(0, "eth1", "r2:eth1")]));
    api.meshnet("lab/r2", &json!([bare(0, "eth1", "r1:eth1")]));
    api.settle(&mut memory);
    assert_eq!(status(&api, "lab/r1"), Status::default());
    settle(&mut api, &mut memory);
    let alive = status(&api, "lab/r1");
    let uid = api.all.pods[&"lab/r1".parse().unwrap()].uid.clone();
    assert_eq!(alive.src_ip, "10.0.0.1");
    assert_eq!(alive.container_id, format!("sandbox-of-{uid}"));
    assert!(!alive.net_ns.is_empty());
    assert_eq!(status(&api, "lab/r2"), Status::default());
    // A new pod of that name has another sandbox, which nobody knows yet.
    api.delete_pod("lab/r1");
    api.pod("lab/r1", "n2");
    api.settle(&mut memory);
    api.pass(2);
    api.settle(&mut memory);
    assert_eq!(status(&api, "lab/r1"), Status::default());
    settle(&mut api, &mut memory);
    assert_eq!(status(&api, "lab/r1").src_ip, "10.0.0.2");
    // Nothing that stays is written again.
    let version = api.all.meshnet[&key("lab/r1")]
        .metadata
        .resource_version
        .clone();
    api.pass(100);
    settle(&mut api, &mut memory);
    assert_eq!(
        api.all.meshnet[&key("lab/r1")].metadata.resource_version,
        version
    );
    // An end that failed.
    let link = api.link("lab/r1-");
    api.say_of(&link, EndState::Failed, link.metadata.generation.unwrap());
    api.settle(&mut memory);
    let error = status(&api, "lab/r1").plumbing_error;
    assert!(error.starts_with("uid 0 (eth1 to r2:eth1): "), "{error:?}");
}

#[test]
fn a_field_that_the_server_leaves_out_is_not_written_again_and_again() {
    let (mut api, mut memory) = lab(&[("r1", json!([bare(1, "eth1", "localhost:eth0")]))]);
    let forget = |api: &mut Fake| {
        let topology = api.all.meshnet.get_mut(&key("lab/r1")).unwrap();
        std::sync::Arc::make_mut(topology)
            .status
            .plumbing_error
            .clear();
    };
    let mut writes = 0;
    for _ in 0..30 {
        let plan = ratchet_controller::plan(&api.all, &api.config, &mut memory, api.now);
        writes += plan.meshnet.len();
        // The server leaves the object as it is.
        forget(&mut api);
        api.pass(2);
    }
    assert!((1..=2).contains(&writes), "{writes}");
}

#[test]
fn a_link_ends_with_the_last_that_declares_it() {
    let both = [
        ("r1", json!([bare(1, "eth1", "r2:eth1")])),
        ("r2", json!([bare(1, "eth1", "r1:eth1")])),
    ];
    let (mut api, mut memory) = lab(&both);
    let before = api.link("lab/r1-");
    assert!(before.metadata.owner_references.is_none());
    api.all.meshnet.remove(&key("lab/r1"));
    settle(&mut api, &mut memory);
    assert_eq!(api.link("lab/r1-").metadata.uid, before.metadata.uid);
    api.all.meshnet.remove(&key("lab/r2"));
    settle(&mut api, &mut memory);
    assert!(api.all.links.is_empty());
}

#[test]
fn the_same_link_by_a_topology_of_ratchet_or_by_a_pod() {
    let (mut api, mut memory) = lab(&[("r1", json!([bare(1, "eth1", "r2:eth1")]))]);
    api.topology(
        "lab/t",
        &json!({"links": [{"endpoints": ["r1:eth1", "r2:eth1"]}]}),
    );
    settle(&mut api, &mut memory);
    assert_eq!(api.link("lab/").spec.declared_by, DeclaredBy::Topology);
    let error = status(&api, "lab/r1").plumbing_error;
    assert!(error.contains("is this link already"), "{error}");
}
