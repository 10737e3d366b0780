//! The functions that every ADD, DEL and look at everything goes through, by themselves: `cargo
//! bench -p ratchet-bench`.
//!
//! Each is run over ever more links of two pods, and its throughput in links a second is shown:
//! where that falls with their number, something is not linear.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark that cannot begin has nothing else to say"
)]

use std::collections::{BTreeMap, BTreeSet};

use divan::{Bencher, black_box, counter::ItemsCount};
use ratchet_cni::{CniResult, Version};
use ratchet_model::{
    Location, NodeName, PodKey, PodRecord, Quotas, SandboxId, WiringKind,
    declaration::{Texts, declare_within},
    device::{GROUP_OURS, Kind, Netns, Observed, Peer, Wanted, WantedEnd},
    leftover::Leftovers,
    planner::{PlanScope, plan},
    resolve::resolve,
    wiring::{self, Node, Place, VniState, Vtep},
};
use serde_json::json;

const LINKS: [usize; 4] = [10, 100, 1000, 10_000];

fn main() {
    divan::main();
}

/// As many links as these benchmarks declare; the default is fewer.
fn quotas() -> Quotas {
    Quotas {
        links: LINKS[3],
        ..Quotas::default()
    }
}

fn key(name: &str) -> PodKey {
    PodKey::new("default", name).unwrap()
}

fn sandbox(name: &str) -> SandboxId {
    name.parse().unwrap()
}

/// The annotation of a pod with so many links to another one, an address an end.
fn annotations(count: usize) -> Texts {
    let link = |number: usize| {
        let address = |end| format!("10.{}.{}.{end}/30", number / 250, number % 250);
        json!({
            "interface": format!("l{number}"), "peer": format!("b/l{number}"),
            "addresses": [address(1)], "peerAddresses": [address(2)],
        })
    };
    let links: serde_json::Value = (0..count).map(link).collect();
    [("ratchet.dev/links".to_owned(), links.to_string())].into()
}

fn node() -> Node {
    Node {
        name: "n".parse().unwrap(),
        vtep: Some(Vtep {
            address: "10.0.0.1".parse().unwrap(),
            parent: 2,
        }),
        mtu: 1450.try_into().unwrap(),
        default_mtu: None,
        default_wiring: WiringKind::Direct,
        full: None,
    }
}

/// The records of both pods, on one node.
fn records(count: usize) -> BTreeMap<PodKey, PodRecord> {
    let declared = declare_within(&quotas(), &key("a"), &Texts::new(), &annotations(count))
        .unwrap()
        .unwrap();
    let record = |name: &str, links| {
        let Node { vtep, mtu, .. } = node();
        let location = Location {
            node: NodeName::clone(&node().name),
            vtep: vtep.expect("the node of these benchmarks has one").address,
            sandbox: sandbox(name),
            mtu,
            leaving: false,
        };
        (
            key(name),
            PodRecord::new(key(name), Some(location), 1, links),
        )
    };
    [record("a", declared.links), record("b", Vec::new())].into()
}

/// What the node wants for them.
fn wanted(count: usize) -> Vec<Wanted> {
    let places = [Place::Here(sandbox("a")), Place::Here(sandbox("b"))];
    let links = resolve(&records(count));
    links
        .iter()
        .flat_map(|link| {
            wiring::wire(link, &places, VniState::None, &node(), WiringKind::Direct).wanted
        })
        .collect()
}

/// The two pods' sandboxes.
fn both() -> BTreeSet<Netns> {
    ["a", "b"].map(|pod| Netns::Sandbox(sandbox(pod))).into()
}

/// The kernel once all that is made.
fn made(wanted: &[Wanted]) -> Vec<Observed> {
    let device = |end: &WantedEnd, index: u32, peer: Peer| Observed {
        netns: end.netns.clone(),
        name: end.name.clone(),
        index,
        kind: Kind::Veth { peer: Some(peer) },
        source: None,
        alias: Some(end.alias.clone()),
        unproven: None,
        group: GROUP_OURS,
        mac: Some(end.mac),
        mtu: end.mtu.bytes(),
        up: true,
        carrier: true,
        joined: None,
        addresses: Vec::new(),
        routes: Vec::new(),
    };
    let place = |end: &WantedEnd, index| Peer {
        netns: end.netns.clone(),
        index,
    };
    let pair = |(number, wanted): (u32, &Wanted)| match wanted {
        Wanted::Veth { a, z } => vec![
            device(a, 2 * number, place(z, 2 * number + 1)),
            device(z, 2 * number + 1, place(a, 2 * number)),
        ],
        _ => Vec::new(),
    };
    (1..).zip(wanted).flat_map(pair).collect()
}

#[divan::bench(args = LINKS)]
fn read_a_declaration(bencher: Bencher, count: usize) {
    let (pod, labels, annotations) = (key("a"), Texts::new(), annotations(count));
    bencher
        .counter(ItemsCount::new(count))
        .bench(|| declare_within(&quotas(), &pod, &labels, black_box(&annotations)).unwrap());
}

/// What a pod's author may write to keep a node busy: up to 249 KB, nearly all that Kubernetes
/// allows. Each must take less than 100 ms; how much memory is a test of the model (`bounds`).
#[divan::bench(args = ["[", "- ", "x", "#x\n", "\n", "1,", "{a},", "{a: {b: 1}},", "\\u0001"])]
fn refuse_a_declaration(bencher: Bencher, filling: &str) {
    let text = filling.repeat(124_000 / filling.len());
    let text = format!("[{{interface: e1, peer: [\"{text}\",\n{text}");
    let (pod, labels) = (key("a"), Texts::new());
    let annotations = [("ratchet.dev/links".to_owned(), text)].into();
    bencher.bench(|| declare_within(&Quotas::default(), &pod, &labels, black_box(&annotations)));
}

#[divan::bench(args = LINKS)]
fn resolve_declarations(bencher: Bencher, count: usize) {
    let records = records(count);
    bencher
        .counter(ItemsCount::new(count))
        .bench(|| resolve(black_box(&records)));
}

#[divan::bench(args = LINKS)]
fn plan_what_is_missing(bencher: Bencher, count: usize) {
    let wanted = wanted(count);
    assert_eq!(wanted.len(), count);
    let scope = PlanScope {
        links: &BTreeSet::new(),
        namespaces: &both(),
    };
    bencher
        .counter(ItemsCount::new(count))
        .bench(|| plan(black_box(&wanted), &[], &Leftovers::default(), scope));
}

#[divan::bench(args = LINKS)]
fn plan_where_all_is_as_wanted(bencher: Bencher, count: usize) {
    let wanted = wanted(count);
    let made = made(&wanted);
    let scope = PlanScope {
        links: &BTreeSet::new(),
        namespaces: &both(),
    };
    assert_eq!(plan(&wanted, &made, &Leftovers::default(), scope).steps, []);
    bencher.counter(ItemsCount::new(count)).bench(|| {
        plan(
            black_box(&wanted),
            black_box(&made),
            &Leftovers::default(),
            scope,
        )
    });
}

#[divan::bench(args = LINKS)]
fn plan_the_end_of_both_pods(bencher: Bencher, count: usize) {
    let made = made(&wanted(count));
    let ids: BTreeSet<_> = made
        .iter()
        .filter_map(|device| Some(device.alias.as_ref()?.link))
        .collect();
    assert!(made.iter().all(|device| device.netns != Netns::Node));
    let scope = PlanScope {
        links: &ids,
        namespaces: &BTreeSet::new(),
    };
    bencher
        .counter(ItemsCount::new(count))
        .bench(|| plan(&[], black_box(&made), &Leftovers::default(), scope));
}

#[divan::bench(args = LINKS)]
fn write_a_record(bencher: Bencher, count: usize) {
    let record = records(count).remove(&key("a")).unwrap();
    bencher
        .counter(ItemsCount::new(count))
        .bench(|| serde_json::to_string(black_box(&record)).unwrap());
}

#[divan::bench(args = LINKS)]
fn read_a_record(bencher: Bencher, count: usize) {
    let text = serde_json::to_string(&records(count)[&key("a")]).unwrap();
    bencher
        .counter(ItemsCount::new(count))
        .bench(|| serde_json::from_str::<PodRecord>(black_box(&text)).unwrap());
}

#[divan::bench]
fn convert_a_cni_result() -> Vec<u8> {
    let text = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"cni0"},{"name":"eth0",
        "mac":"02:00:00:00:00:01","sandbox":"/run/netns/p"}],
        "ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1","interface":1}],
        "routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.1.0.1"]}}"#;
    let result = CniResult::parse(black_box(text), Version::V1_0_0).unwrap();
    result.convert(Version::V0_3_1).unwrap().to_json()
}
