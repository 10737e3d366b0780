//! Topologies.

use kube::Client;
use ratchet_api::max_links;
use serde_json::{Value, json};

use crate::{Kind, with};

fn good() -> Value {
    json!({
        "pods": [
            {"name": "r2", "statefulSet": {"name": "router", "ordinal": 1}},
            {"name": "edge", "selector": {"matchLabels": {"app": "edge"}}},
        ],
        "links": [
            {"endpoints": ["r1:eth1", "r2:eth1"]},
            {
                "name": "uplink",
                "endpoints": ["r1:eth2", "other/edge:eth0.100"],
                "addresses": [["10.0.0.1/24", "fd00::1/64"], []],
                "macs": ["", "02:00:00:00:00:02"],
                "routes": [[{"dst": "10.1.0.0/16", "via": "10.0.0.2"}], []],
                "mtu": 1400,
                "vni": 1_000_001,
            },
        ],
    })
}

pub async fn run(client: &Client) {
    let topologies = Kind::new(client, "Topology", "topologies", true);
    topologies.accepts(good()).await;
    topologies.accepts(json!({})).await;
    of_links(&topologies).await;
    of_the_whole(&topologies).await;
    large(&topologies).await;
}

async fn of_links(topologies: &Kind) {
    let form = "expected pod:interface or namespace/pod:interface, such as r1:eth1, without \
         '%' and white space";
    let pod = "names of pods and namespaces have lower case letters";
    let interface = "an interface's name has at most 15 bytes";
    for (pointer, value, part) in [
        ("endpoints/0", json!("r1"), form),
        ("endpoints/0", json!("r1/eth1"), form),
        ("endpoints/0", json!(":eth1"), form),
        ("endpoints/0", json!("a/b/c:eth1"), form),
        ("endpoints/0", json!("r1:eth1:2"), form),
        ("endpoints/0", json!("R1:eth1"), pod),
        ("endpoints/0", json!("a_b/r1:eth1"), pod),
        ("endpoints/0", json!("r1:eth 1"), form),
        ("endpoints/0", json!("r1:eth%d"), form),
        ("endpoints/0", json!("r1:sixteen_bytes_xy"), interface),
        ("endpoints/0", json!("r1:ääääääää"), interface),
        (
            "endpoints/0",
            json!("r1:lo"),
            "this interface name is taken by the system",
        ),
        (
            "endpoints/0",
            json!("r1:all"),
            "this interface name is taken by the system",
        ),
        (
            "endpoints",
            json!(["r1:eth2", "r1:eth2"]),
            "an endpoint is there twice",
        ),
        (
            "endpoints",
            json!(["r1:eth2"]),
            "should have at least 2 items",
        ),
        (
            "endpoints",
            json!(["r1:a", "r1:b", "r1:c"]),
            "must have at most 2 items",
        ),
        (
            "addresses",
            json!([["10.0.0.1/24"]]),
            "should have at least 2 items",
        ),
        (
            "addresses/0/0",
            json!("10.0.0.1"),
            "expected an address with a prefix length",
        ),
        (
            "addresses/0/0",
            json!("0.0.0.0/8"),
            "an interface cannot have this address",
        ),
        (
            "macs/0",
            json!("02"),
            "expected the MAC address of one interface",
        ),
        (
            "macs/0",
            json!("01:00:00:00:00:01"),
            "expected the MAC address of one interface",
        ),
        (
            "routes/0/0/dst",
            json!("10.1.0.1/16"),
            "bits of dst are set after the prefix length",
        ),
        (
            "routes/0/0/via",
            json!("fd00::2"),
            "dst and via must both be IPv4 or both IPv6",
        ),
        ("mtu", json!(67), "should be greater than or equal to 68"),
        (
            "vni",
            json!(1 << 24),
            "should be less than or equal to 16777215",
        ),
        ("name", json!("Up"), "\"Up\": a name has lower case letters"),
    ] {
        let spec = with(&good(), &format!("/links/1/{pointer}"), value);
        topologies.refuses(part, spec).await;
    }
    // One problem has one message.
    for endpoint in ["r1", "a/b/c:eth1", ":eth1"] {
        let spec = with(&good(), "/links/1/endpoints/0", json!(endpoint));
        let refusal = topologies.refusal(&spec).await.unwrap();
        let expected = format!(
            "Topology.ratchet.dev \"tried\" is invalid: spec.links[1].endpoints[0]: Invalid value: \
             \"string\": \"{endpoint}\": {form}"
        );
        assert_eq!(refusal, expected);
    }
    for endpoint in ["r1:ä", "web-0.x:fifteen_bytes_1", "tenant/r1:eth1"] {
        let spec = with(&good(), "/links/1/endpoints/0", json!(endpoint));
        topologies.accepts(spec).await;
    }
}

async fn of_the_whole(topologies: &Kind) {
    for endpoints in [
        ["r1:eth1", "x:eth9"],
        ["x:eth9", "r1:eth1"],
        ["x:eth9", "r2:eth1"],
    ] {
        let spec = with(&good(), "/links/1/endpoints", json!(endpoints));
        let part = "an endpoint is there twice: each end of a link needs an interface of its own";
        topologies.refuses(part, spec.clone()).await;
        // The key is the endpoint.
        let refusal = topologies.refusal(&spec).await.unwrap();
        assert!(refusal.contains(":eth1 already exists"), "{refusal}");
    }
    for (slot, part) in [
        (
            json!({"name": "r2"}),
            "a slot needs either statefulSet or selector",
        ),
        (
            json!({
                "name": "r2",
                "statefulSet": {"name": "r", "ordinal": 0},
                "selector": {"matchLabels": {"a": "b"}},
            }),
            "a slot needs either statefulSet or selector",
        ),
        (
            json!({"name": "r2", "selector": {"matchLabels": {}}}),
            "should have at least 1 properties",
        ),
        (
            json!({"name": "edge", "selector": {"matchLabels": {"a": "b"}}}),
            "Duplicate value",
        ),
        (
            json!({"name": "r2", "statefulSet": {"name": "r", "ordinal": -1}}),
            "should be greater than or equal to 0",
        ),
    ] {
        topologies
            .refuses(part, with(&good(), "/pods/0", slot))
            .await;
    }
}

/// As many links as there may be, all between two pods, each with an address at both ends.
async fn large(topologies: &Kind) {
    let link = |number: usize| {
        let net = format!("10.{}.{}", number / 256, number % 256);
        json!({
            "endpoints": [format!("r1:eth{number}"), format!("r2:eth{number}")],
            "addresses": [[format!("{net}.1/24")], [format!("{net}.2/24")]],
            "macs": ["02:00:00:00:00:01", "02:00:00:00:00:02"],
            "routes": [[{"dst": "10.200.0.0/16", "via": format!("{net}.2")}], []],
        })
    };
    let spec = |count: usize| json!({"links": (1..=count).map(link).collect::<Vec<_>>()});
    topologies.accepts(spec(max_links())).await;
    topologies
        .refuses("must have at most", spec(max_links() + 1))
        .await;
    let mut twice = spec(max_links());
    twice["links"][7]["endpoints"][1] = json!("r1:eth1500");
    topologies
        .refuses("an endpoint is there twice", twice)
        .await;
}
