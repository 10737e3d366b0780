//! Which Links there are, and what becomes of them.

use ratchet_controller::{Memory, PodState, plan};
use ratchet_model::PodKey;
use serde_json::{Value, json};

use crate::fake::{Fake, key};

fn link(one: &str, other: &str) -> Value {
    json!({"endpoints": [one, other]})
}

fn topology(links: &[Value]) -> Value {
    json!({"links": links})
}

#[test]
fn a_topology_becomes_links_with_pods_nodes_and_vnis() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.pod("lab/r1", "n1");
    api.pod("lab/r2", "n2");
    let mut wanted = link("r2:eth1", "r1:eth1");
    wanted["addresses"] = json!([["10.0.0.2/24"], ["10.0.0.1/24"]]);
    api.topology("lab/ring", &topology(&[wanted]));
    api.settle(&mut memory);
    let made = api.link("lab/ring-");
    assert_eq!(made.spec.vni, Some(11));
    let (a, b) = (&made.spec.a, &made.spec.b);
    assert_eq!(a.pod.as_deref(), Some("r1"));
    assert_eq!(a.addresses, ["10.0.0.1/24"]);
    assert_eq!(a.node.as_deref(), Some("n1"));
    assert_eq!(b.vtep.as_deref(), Some("10.0.0.2"));
    assert_eq!(b.tunnel_mtu, Some(1450));
    assert_eq!((&a.mac, &b.mac), (&None, &None));
    let labels: Vec<String> = made.metadata.labels.unwrap().into_keys().collect();
    assert_eq!(labels, ["node.ratchet.dev/n1", "node.ratchet.dev/n2"]);
    assert_eq!(made.metadata.owner_references.unwrap()[0].name, "ring");
    let status = |api: &Fake| api.all.topologies[&key("lab/ring")].status.clone().unwrap();
    assert_eq!((status(&api).links, status(&api).ready), (1, 0));
    api.agents();
    api.settle(&mut memory);
    assert_eq!((status(&api).links, status(&api).ready), (1, 1));
    assert_eq!(status(&api).conditions[1].status, "True");
    assert!(api.link("lab/ring-").status.unwrap().conditions.is_empty());
}

#[test]
fn a_topology_adds_removes_and_readdresses_and_touches_no_other_link() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    for pod in ["r1", "r2", "r3"] {
        api.pod(&format!("lab/{pod}"), "n1");
    }
    let one = link("r1:eth1", "r2:eth1");
    let mut two = link("r2:eth2", "r3:eth2");
    api.topology("lab/t", &topology(&[one.clone(), two.clone()]));
    api.settle(&mut memory);
    let before = api.all.links.clone();
    assert_eq!(before.len(), 2);
    assert!(before.values().all(|link| link.spec.vni.is_none()));
    two["mtu"] = json!(1400);
    let three = link("r3:eth3", "r1:eth3");
    api.topology("lab/t", &topology(&[three, two, one]));
    api.settle(&mut memory);
    assert_eq!(api.all.links.len(), 3);
    let same = before
        .iter()
        .filter(|(key, link)| api.all.links[*key] == **link);
    assert_eq!(same.count(), 1);
    api.topology("lab/t", &topology(&[]));
    api.settle(&mut memory);
    assert!(api.all.links.is_empty());
}

#[test]
fn a_link_is_written_once_although_its_pods_come_one_after_another() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.topology("lab/t", &topology(&[link("r1:eth1", "r2:eth1")]));
    api.settle(&mut memory);
    api.pass(60);
    api.settle(&mut memory);
    for (pod, node) in [("lab/r1", ""), ("lab/r1", "n1"), ("lab/r2", "")] {
        assert!(api.all.links.is_empty(), "before {pod}");
        api.pod(pod, node);
        api.settle(&mut memory);
    }
    assert!(api.all.links.is_empty());
    api.pod("lab/r2", "n2");
    api.settle(&mut memory);
    let made = api.link("lab/t-");
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.spec.vni, Some(11));

    // Both start again: the one that is back is not written before the other one, either.
    api.delete_pod("lab/r1");
    api.delete_pod("lab/r2");
    api.settle(&mut memory);
    let before = api.link("lab/t-").metadata.generation;
    api.pod("lab/r1", "n3");
    api.settle(&mut memory);
    assert_eq!(api.link("lab/t-").metadata.generation, before);
    api.pass(2);
    api.settle(&mut memory);
    let link = api.link("lab/t-");
    assert_eq!(link.spec.a.node.as_deref(), Some("n3"), "r2 does not come");
}

#[test]
fn a_link_outlives_its_pods_restart() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.annotated(
        "lab/r1",
        "n1",
        "[{interface: eth1, peer: r2/eth2, mtu: 1300}]",
    );
    api.pod("lab/r2", "n2");
    api.settle(&mut memory);
    let first = api.link("lab/r1-");
    assert_eq!((first.spec.vni, first.spec.mtu), (Some(11), Some(1300)));
    api.delete_pod("lab/r1");
    api.settle(&mut memory);
    let alone = api.link("lab/r1-");
    assert_eq!(alone.spec.a.node, None);
    assert_eq!(alone.spec.a.pod.as_deref(), Some("r1"));
    assert_eq!(alone.spec.b, first.spec.b);
    assert_eq!((alone.spec.vni, alone.spec.mtu), (Some(11), Some(1300)));
    api.pass(2);
    api.settle(&mut memory);
    assert_eq!(
        api.accepted("lab/r1-"),
        "PodNotFound: there is no pod lab/r1"
    );
    api.annotated(
        "lab/r1",
        "n3",
        "[{interface: eth1, peer: r2/eth2, mtu: 1300}]",
    );
    api.settle(&mut memory);
    let back = api.link("lab/r1-");
    assert_eq!(back.metadata.uid, first.metadata.uid);
    assert_eq!(back.spec.a.node.as_deref(), Some("n3"));
    assert_eq!(back.spec.vni, Some(11));
    assert!(api.accepted("lab/r1-").starts_with("Resolved"));
    // Without its declarer and its peer, nothing is left.
    api.delete_pod("lab/r1");
    api.delete_pod("lab/r2");
    api.settle(&mut memory);
    assert!(api.link("lab/r1-").metadata.deletion_timestamp.is_some());
}

#[test]
fn a_link_that_its_living_pod_no_longer_declares_ends() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.annotated("lab/r1", "n1", "[{interface: eth1, peer: r2/eth2}]");
    api.pod("lab/r2", "n1");
    api.settle(&mut memory);
    assert_eq!(api.all.links.len(), 1);
    api.annotated("lab/r1", "n1", "[]");
    api.settle(&mut memory);
    assert!(api.all.links.is_empty());
}

#[test]
fn a_link_names_the_pods_behind_the_labels_of_2017() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    let primary = json!({"labels": {
        "ratchet": "true", "ratchet.pod_name": "primary", "ratchet.primary": "true",
        "ratchet.local_ifname": "in1", "ratchet.local_ip": "192.168.2.100",
        "ratchet.pair_name": "pair", "ratchet.pair_ifname": "in2",
    }});
    let pair = json!({"labels": {
        "ratchet": "true", "ratchet.pod_name": "pair", "ratchet.primary": "false",
    }});
    api.pod_with("lab/primary-5d-x1", "n1", &primary);
    api.pod_with("lab/pair-7c-y1", "n1", &pair);
    api.settle(&mut memory);
    let first = api.link("lab/pair-");
    assert_eq!(first.spec.a.pod.as_deref(), Some("pair-7c-y1"));
    assert_eq!(first.spec.b.pod.as_deref(), Some("primary-5d-x1"));
    assert_eq!(first.spec.b.addresses, ["192.168.2.100/24"]);
    // A rolling update: the old pod has the name until it is being deleted.
    api.pass(60);
    api.pod_with("lab/primary-5d-x2", "n1", &primary);
    api.settle(&mut memory);
    assert_eq!(api.link("lab/pair-").spec, first.spec);
    api.change_pod("lab/primary-5d-x1", |pod| pod.leaving = true);
    api.settle(&mut memory);
    let then = api.link("lab/pair-");
    assert_eq!(then.spec.b.pod.as_deref(), Some("primary-5d-x2"));
    assert_eq!(then.metadata.uid, first.metadata.uid);
}

/// The warnings on pods that are posted now: reason, pod and text.
fn told(api: &Fake, memory: &mut Memory) -> Vec<(String, String, String)> {
    let warnings = plan(&api.all, &api.config, memory, api.now).warnings;
    let of_pods = warnings.into_iter().filter_map(|warning| {
        let is_pod = warning.object.kind.as_deref() == Some("Pod");
        let pod = warning.object.name.filter(|_| is_pod)?;
        Some((warning.reason, pod, warning.text))
    });
    of_pods.collect()
}

/// The metadata of a pod of a ReplicaSet.
fn of_set(set: &str) -> Value {
    json!({
        "labels": {"app": "core"},
        "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": set,
            "controller": true,
        }],
    })
}

/// A Topology with a slot that the pods of such ReplicaSets fit, and what it made.
fn with_a_slot() -> (Fake, Memory) {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.pod("lab/m-0", "n2");
    api.pod_with("lab/core-x1", "n1", &of_set("one"));
    api.topology(
        "lab/t",
        &json!({
            "pods": [{"name": "core", "selector": {"matchLabels": {"app": "core"}}}],
            "links": [link("core:eth1", "m-0:eth1")],
        }),
    );
    api.settle(&mut memory);
    (api, memory)
}

#[test]
fn a_slots_link_stays_while_its_pod_is_replaced() {
    // A rolling update: the second pod waits for the first one.
    let (mut api, mut memory) = with_a_slot();
    let first = api.link("lab/t-");
    assert_eq!(first.spec.a.slot.as_deref(), Some("core"));
    assert_eq!(first.spec.b.slot, None);
    assert_eq!(first.spec.vni, Some(11));
    api.pod_with("lab/core-x2", "n3", &of_set("two"));
    api.settle(&mut memory);
    assert_eq!(told(&api, &mut memory), [], "most updates take less");
    api.pass(5);
    let waits = (
        "SlotHeld".to_owned(),
        "core-x2".to_owned(),
        "pod core-x1 is core of Topology lab/t, and this pod's links wait: end that pod, or give \
         this one other labels"
            .to_owned(),
    );
    assert_eq!(told(&api, &mut memory), [waits]);
    assert_eq!(told(&api, &mut memory), [], "once");
    assert_eq!(api.link("lab/t-").spec, first.spec);
    api.change_pod("lab/core-x1", |pod| pod.leaving = true);
    api.settle(&mut memory);
    let then = api.link("lab/t-");
    assert_eq!(then.metadata.uid, first.metadata.uid);
    assert_eq!(then.spec.a.pod.as_deref(), Some("core-x2"));
    assert_eq!(then.spec.a.node.as_deref(), Some("n3"));
    assert_eq!(
        (&then.spec.b, then.spec.vni),
        (&first.spec.b, first.spec.vni)
    );
    assert_eq!(
        told(&api, &mut memory),
        [],
        "nobody waits for a pod that goes"
    );

    // The pod goes before there is another one: its name stays in its place.
    api.delete_pod("lab/core-x1");
    api.delete_pod("lab/core-x2");
    api.settle(&mut memory);
    let empty = api.link("lab/t-");
    assert_eq!(empty.spec.a.pod.as_deref(), Some("core-x2"));
    assert_eq!((&empty.spec.a.node, &empty.spec.a.pod_uid), (&None, &None));
    assert_eq!(
        (&empty.spec.b, empty.spec.vni),
        (&first.spec.b, first.spec.vni)
    );
    api.pass(2);
    api.settle(&mut memory);
    let missing = "PodNotFound: no pod has the labels of core";
    assert_eq!(api.accepted("lab/t-"), missing);
    api.pod_with("lab/core-x3", "n1", &of_set("two"));
    api.settle(&mut memory);
    let back = api.link("lab/t-");
    assert_eq!(back.metadata.uid, first.metadata.uid);
    assert_eq!(back.spec.a.pod.as_deref(), Some("core-x3"));
    assert_eq!(back.spec.vni, first.spec.vni);
}

#[test]
fn who_says_the_name_of_a_slot_gets_nothing_of_it() {
    let (mut api, mut memory) = with_a_slot();
    let before = api.all.links.clone();
    let says = |name: &str| {
        json!({
            "labels": {"ratchet": "true", "ratchet.pod_name": name},
            "annotations": {"ratchet.dev/links": "[{interface: eth1, peer: m-0/eth1}]"},
        })
    };
    // All names that the slot has anywhere.
    for (number, name) in ["core", "core_of_t", "core-x1", "t"]
        .into_iter()
        .enumerate()
    {
        api.pod_with(&format!("lab/thief-{number}"), "n3", &says(name));
        let foreign = json!({
            "labels": {"ratchet": "true", "ratchet.pod_name": name},
            "annotations": {"ratchet.dev/links": "[{interface: eth1, peer: lab/m-0/eth1}]"},
        });
        api.pod_with(&format!("other/thief-{number}"), "n3", &foreign);
    }
    api.settle(&mut memory);
    for (key, link) in &before {
        assert_eq!(api.all.links[key].spec, link.spec);
    }
    // Also while nobody has the slot.
    api.delete_pod("lab/core-x1");
    api.settle(&mut memory);
    for key in before.keys() {
        let spec = &api.all.links[key].spec;
        assert_eq!(spec.a.pod_uid, None);
        assert_eq!(spec.b.pod_uid, before[key].spec.b.pod_uid);
    }
    let others = api
        .all
        .links
        .iter()
        .filter(|(key, _)| !before.contains_key(key));
    for (key, link) in others {
        let ends = [&link.spec.a, &link.spec.b];
        let is_wired = ends.iter().all(|end| end.node.is_some());
        assert!(!is_wired, "{key}: {:?}", link.spec);
    }
}

#[test]
fn a_name_of_2017_is_a_slot_that_the_next_pod_waits_for() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    let named = json!({
        "labels": {"ratchet": "true", "ratchet.pod_name": "core"},
        "annotations": {"ratchet.dev/links": "[{interface: eth1, peer: m-0/eth1}]"},
    });
    api.pod("lab/m-0", "n2");
    api.pod_with("lab/core-x1", "n1", &named);
    api.settle(&mut memory);
    let first = api.link("lab/core-");
    assert_eq!(first.spec.a.slot.as_deref(), Some("core"));
    assert_eq!(first.spec.b.slot, None);
    api.pass(60);
    api.pod_with("lab/core-x2", "n1", &named);
    api.pass(5);
    let [(reason, pod, text)] = &told(&api, &mut memory)[..] else {
        panic!("one event")
    };
    assert_eq!((&**reason, &**pod), ("NameHeld", "core-x2"));
    assert!(text.contains("belongs to pod core-x1 on node n1"), "{text}");
    // Without any of them the other end still knows which link it has.
    api.delete_pod("lab/core-x1");
    api.delete_pod("lab/core-x2");
    api.settle(&mut memory);
    let alone = api.link("lab/core-");
    let last = (alone.spec.a.pod.as_deref(), alone.spec.a.slot.as_deref());
    assert_eq!(last.1, Some("core"));
    assert!(
        last.0.is_some_and(|pod| pod.starts_with("core-x")),
        "{last:?}"
    );
    assert_eq!(alone.spec.b, first.spec.b);
}

#[test]
fn a_declaration_that_is_wrong_is_told_to_its_author_once_and_makes_nothing() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.pod("lab/r2", "n2");
    api.annotated("lab/r1", "n1", "[{interface: eth1, pear: r2/eth1}]");
    let [(reason, pod, text)] = &told(&api, &mut memory)[..] else {
        panic!("one event")
    };
    assert_eq!((&**reason, &**pod), ("KeyMisspelled", "r1"));
    assert!(
        text.contains("ratchet.dev/links[0]") && text.contains("peer"),
        "{text}"
    );
    for _minute in 0..59 {
        api.pass(60);
        assert_eq!(told(&api, &mut memory), []);
    }
    api.settle(&mut memory);
    assert!(api.all.links.is_empty());
    // It is corrected, and then wrong again in another way.
    let good = "[{interface: eth1, peer: r2/eth1, mtu: 1300}]";
    api.annotated("lab/r1", "n1", good);
    api.settle(&mut memory);
    let made = api.link("lab/r1-");
    assert_eq!(told(&api, &mut memory), []);
    let uid = made.spec.a.pod_uid.clone().unwrap();
    let wrong = "[{interface: eth1, peer: /eth1}]";
    api.annotated("lab/r1", "n1", wrong);
    api.change_pod("lab/r1", |pod| pod.uid = uid);
    let told = told(&api, &mut memory);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, "NameInvalid");
    api.settle(&mut memory);
    // What a running pod declared before stays.
    assert_eq!(api.link("lab/r1-").spec, made.spec);
    // The next pod of that name has declared nothing yet.
    api.annotated("lab/r1", "n1", wrong);
    api.settle(&mut memory);
    assert!(api.link("lab/r1-").metadata.deletion_timestamp.is_some());
}

#[test]
fn a_slot_is_a_statefulsets_pod_or_the_one_that_a_selector_fits() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    let of = |set: &str| {
        json!({
            "labels": {"app": "fw"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": set,
                "controller": true,
            }],
        })
    };
    api.topology(
        "lab/t",
        &json!({
            "pods": [
                {"name": "web", "statefulSet": {"name": "web", "ordinal": 2}},
                {"name": "fw", "selector": {"matchLabels": {"app": "fw"}}},
            ],
            "links": [link("web:eth1", "fw:eth1")],
        }),
    );
    api.settle(&mut memory);
    api.pod("lab/web-2", "n1");
    api.settle(&mut memory);
    api.pass(2);
    api.settle(&mut memory);
    let link = api.link("lab/t-");
    assert_eq!(
        (link.spec.a.pod.as_deref(), link.spec.b.pod.as_deref()),
        (None, Some("web-2"))
    );
    api.pod_with("lab/fw-1", "n1", &of("one"));
    let end = |api: &Fake| api.link("lab/t-").spec.a.pod.unwrap();
    api.settle(&mut memory);
    assert_eq!(end(&api), "fw-1");
    // A rolling update: the new pod is not running yet, then both run, then the old one ends.
    api.pass(60);
    api.pod_with("lab/fw-2", "n2", &of("two"));
    api.change_pod("lab/fw-2", |pod| pod.running = false);
    api.settle(&mut memory);
    assert_eq!(end(&api), "fw-1");
    api.change_pod("lab/fw-2", |pod| pod.running = true);
    api.settle(&mut memory);
    assert_eq!(end(&api), "fw-1");
    api.change_pod("lab/fw-1", |pod| pod.leaving = true);
    api.settle(&mut memory);
    assert_eq!(end(&api), "fw-2");
    // Two replicas of one ReplicaSet: it is not clear which one is meant.
    api.delete_pod("lab/fw-1");
    api.pod_with("lab/fw-3", "n2", &of("two"));
    api.settle(&mut memory);
    api.pass(2);
    api.settle(&mut memory);
    assert_eq!(end(&api), "fw-2");
    assert_eq!(
        api.accepted("lab/t-"),
        "Ambiguous: 2 pods have the labels of fw, expected one: fw-2, fw-3; the link stays with \
         fw-2"
    );
}

#[test]
fn links_between_namespaces_need_a_grant_or_consent() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.pod("lab/r1", "n1");
    let labels = json!({"labels": {"app": "gw"}});
    api.pod_with("core/gw", "n2", &labels);
    let mut wanted = link("r1:eth1", "core/gw:eth1");
    wanted["addresses"] = json!([["10.0.0.1/24"], ["10.0.0.2/24"]]);
    api.topology("lab/t", &topology(&[wanted]));
    api.settle(&mut memory);
    api.pass(2);
    api.settle(&mut memory);
    let refused = api.link("lab/t-");
    assert_eq!((refused.spec.a.node, refused.spec.b.node), (None, None));
    assert!(refused.metadata.labels.is_none());
    let text = api.accepted("lab/t-");
    assert!(
        text.starts_with("NotPermitted: pod core/gw has not consented"),
        "{text}"
    );
    assert!(
        text.ends_with("create a LinkGrant in namespace core for namespace lab"),
        "{text}"
    );
    api.grant(
        "core/other",
        "lab",
        Some(json!({"matchLabels": {"app": "x"}})),
    );
    api.grant(
        "core/lab",
        "lab",
        Some(json!({"matchLabels": {"app": "gw"}})),
    );
    api.settle(&mut memory);
    let made = api.link("lab/t-");
    let gateway = if made.spec.a.namespace == "core" {
        &made.spec.a
    } else {
        &made.spec.b
    };
    assert_eq!(gateway.node.as_deref(), Some("n2"));
    assert!(
        gateway.addresses.is_empty(),
        "another namespace has no say in it"
    );
    // While the pod is away, its peer's end stays.
    api.delete_pod("core/gw");
    api.settle(&mut memory);
    api.pass(2);
    api.settle(&mut memory);
    assert!(
        api.accepted("lab/t-").starts_with("PodNotFound: "),
        "{}",
        api.accepted("lab/t-")
    );
    assert_eq!(api.link("lab/t-").metadata.labels.unwrap().len(), 1);
    api.pod_with("core/gw", "n2", &labels);
    api.settle(&mut memory);
    assert_eq!(api.link("lab/t-").metadata.labels.unwrap().len(), 2);
    // Revoked.
    api.all.grants.clear();
    api.settle(&mut memory);
    assert!(api.link("lab/t-").metadata.labels.is_none());
    // The pod's own word.
    let with = json!({"annotations": {"ratchet.dev/links": "", "ratchet.dev/accept": "lab/r1"}});
    api.pod_with("core/gw", "n2", &with);
    api.settle(&mut memory);
    assert_eq!(api.link("lab/t-").metadata.labels.unwrap().len(), 2);
}

#[test]
fn what_cannot_be_wired_says_why() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.pod("lab/r1", "n1");
    api.pod("lab/r2", "n9");
    api.pod("lab/r3", "");
    let state = PodState {
        node: Some("n1".to_owned()),
        host_network: true,
        phase: "Running".to_owned(),
    };
    api.pod_in("lab/r4", &json!({}), state);
    let mut declared = link("r1:eth5", "r3:eth5");
    declared["vni"] = json!(20);
    for (name, link) in [
        ("underlay", link("r1:eth1", "r2:eth1")),
        ("node", link("r1:eth2", "r3:eth2")),
        ("host", link("r1:eth3", "r4:eth3")),
        ("taken", link("r1:eth1", "r3:eth1")),
        ("range", declared),
        ("foreign", link("a/r1:eth1", "b/r1:eth1")),
    ] {
        api.pass(1);
        api.topology(&format!("lab/{name}"), &topology(&[link]));
    }
    api.settle(&mut memory);
    api.pass(2);
    api.settle(&mut memory);
    for (name, expected) in [
        ("underlay", "NoUnderlay: node n9 has no NodeUnderlay yet"),
        ("node", "NotScheduled: pod lab/r3 has no node yet"),
        ("host", "HostNetwork: pod lab/r4 has its node's network"),
        (
            "taken",
            "Conflict: interface eth1 of pod lab/r1 is that of the link lab/r1/eth1",
        ),
        (
            "range",
            "Unsupported: VNI 20 cannot be declared, expected one of 1000000-16777215",
        ),
    ] {
        let text = api.accepted(&format!("lab/{name}-"));
        assert!(text.starts_with(expected), "{name}: {text}");
    }
    let status = api.all.topologies[&key("lab/foreign")]
        .status
        .clone()
        .unwrap();
    assert_eq!(status.conditions[0].reason, "Unsupported");
    assert!(
        status.conditions[0]
            .message
            .contains("neither end is in namespace lab")
    );
    assert_eq!(api.link("lab/host-").spec.b.node, None);
    assert!(api.link("lab/host-").spec.a.node.is_some());
}

#[test]
fn a_cable_that_is_declared_twice_is_one() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.annotated(
        "lab/r1",
        "n1",
        "[{interface: eth1, peer: r2/eth1, addresses: [10.0.0.1/24]}]",
    );
    api.pod("lab/r2", "n1");
    api.topology("lab/t", &topology(&[link("r2:eth1", "r1:eth1")]));
    api.settle(&mut memory);
    assert_eq!(api.all.links.len(), 1);
    assert_eq!(api.link("lab/t-").spec.a.addresses, ["10.0.0.1/24"]);
    api.pass(1);
    api.topology("lab/u", &topology(&[link("r1:eth1", "r2:eth1")]));
    api.settle(&mut memory);
    assert_eq!(api.all.links.len(), 1);
    let status = api.all.topologies[&key("lab/u")].status.clone().unwrap();
    assert_eq!(status.conditions[0].reason, "Conflict");
}

#[test]
fn declarations_that_contradict_leave_a_link_as_it_is() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.annotated(
        "lab/r1",
        "n1",
        "[{interface: eth1, peer: r2/eth1, mtu: 1400}]",
    );
    api.annotated(
        "lab/r2",
        "n1",
        "[{interface: eth1, peer: r1/eth1, mtu: 1400}]",
    );
    api.settle(&mut memory);
    let before = api.link("lab/r1-");
    api.annotated(
        "lab/r2",
        "n1",
        "[{interface: eth1, peer: r1/eth1, mtu: 1300}]",
    );
    let uid = api.all.pods[&PodKey::new("lab", "r2").unwrap()].uid.clone();
    api.settle(&mut memory);
    api.pass(2);
    api.settle(&mut memory);
    let after = api.link("lab/r1-");
    assert_eq!(after.spec.mtu, before.spec.mtu);
    assert_eq!(after.spec.b.pod_uid, Some(uid));
    assert!(
        api.accepted("lab/r1-")
            .starts_with("Conflict: pods lab/r1 and lab/r2 both declare")
    );
}

#[test]
fn tunnels_end_at_addresses_of_their_node() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    api.pod("lab/r1", "n1");
    api.pod("lab/r2", "n2");
    api.all
        .nodes
        .insert("n2".to_owned(), std::sync::Arc::default());
    api.topology("lab/t", &topology(&[link("r1:eth1", "r2:eth1")]));
    api.settle(&mut memory);
    api.pass(2);
    api.settle(&mut memory);
    assert_eq!(api.link("lab/t-").spec.b.vtep, None);
    let text = api.accepted("lab/t-");
    assert!(
        text.starts_with("NoUnderlay: the NodeUnderlay n2 has the address 10.0.0.2"),
        "{text}"
    );
    api.config.any_vtep = true;
    api.settle(&mut memory);
    assert_eq!(api.link("lab/t-").spec.b.vtep.as_deref(), Some("10.0.0.2"));
}

#[test]
fn vnis_that_contradict_do_not_end_a_link() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    let links = |peer, vni| format!("[{{interface: eth1, peer: {peer}/eth1, vni: {vni}}}]");
    api.annotated("lab/r1", "n1", &links("r2", 2_000_000));
    api.annotated("lab/r2", "n2", &links("r1", 2_000_000));
    api.settle(&mut memory);
    let before = api.link("lab/r1-");
    api.annotated("lab/r1", "n1", &links("r2", 2_000_001));
    api.settle(&mut memory);
    let after = api.link("lab/r1-");
    assert_eq!(after.metadata.deletion_timestamp, None);
    assert_eq!(after.spec.vni, before.spec.vni);
    // When they agree again, it is made again.
    api.annotated("lab/r2", "n2", &links("r1", 2_000_001));
    api.settle(&mut memory);
    api.agents();
    api.settle(&mut memory);
    assert_eq!(api.link("lab/r1-").spec.vni, Some(2_000_001));
}

#[test]
fn a_peer_that_kubernetes_cannot_have_is_a_link_that_waits() {
    let (mut api, mut memory) = (Fake::new(), Memory::default());
    let links = "[{interface: eth1, peer: Router_2/eth2}, {interface: eth2, peer: A/b/c}]";
    api.annotated("lab/r1", "n1", links);
    api.settle(&mut memory);
    api.pass(2);
    api.settle(&mut memory);
    let link = api.link("lab/router-2-");
    assert_eq!(
        (link.spec.a.pod, link.spec.b.pod.as_deref()),
        (None, Some("r1"))
    );
}
