//! Underlays, blocks of VNIs, grants.

use kube::Client;
use serde_json::{Value, json};

use crate::{Kind, with};

pub async fn run(client: &Client) {
    underlays(&Kind::new(client, "NodeUnderlay", "nodeunderlays", false)).await;
    blocks(&Kind::new(client, "VNIBlock", "vniblocks", false)).await;
    grants(&Kind::new(client, "LinkGrant", "linkgrants", true)).await;
}

async fn underlays(underlays: &Kind) {
    let good = json!({"vtep": "192.0.2.1", "mtu": 1450, "port": 4789, "version": "0.1.0"});
    underlays.accepts(good.clone()).await;
    for (pointer, value, part) in [
        ("/vtep", json!("192.0.2.1/24"), "without a prefix length"),
        ("/mtu", json!(0), "should be greater than or equal to 68"),
        ("/port", json!(0), "should be greater than or equal to 1"),
        (
            "/port",
            json!(65_536),
            "should be less than or equal to 65535",
        ),
        ("/version", json!(""), "should be at least 1 chars long"),
    ] {
        underlays.refuses(part, with(&good, pointer, value)).await;
    }
}

async fn blocks(blocks: &Kind) {
    let entry = |key: &str| -> Value {
        json!({"entries": {key: {
            "link": "default/lab-0123456789", "uid": "7a",
            "freed": "2026-11-30T00:00:00Z", "former": ["n1", "n2"],
        }}})
    };
    for key in ["0", "9", "511"] {
        blocks.accepts(entry(key)).await;
    }
    for key in ["512", "01", "x", "-1"] {
        blocks
            .refuses("the keys of entries are offsets in the block", entry(key))
            .await;
    }
    blocks.accepts(json!({})).await;
    let full: serde_json::Map<_, _> = (0..512)
        .map(|offset| (offset.to_string(), entry("0")["entries"]["0"].clone()))
        .collect();
    blocks.accepts(json!({"entries": full})).await;
}

async fn grants(grants: &Kind) {
    let labels = json!({"podSelector": {"matchLabels": {"app": "edge"}}});
    let good = json!({"from": [{"namespace": "tenant"}], "to": [labels]});
    grants.accepts(good.clone()).await;
    grants.accepts(with(&good, "/to/0", json!({}))).await;
    for (pointer, value, part) in [
        ("/from", json!([]), "should have at least 1 items"),
        ("/to", json!([]), "should have at least 1 items"),
        (
            "/from/0/namespace",
            json!("*"),
            "\"*\": a namespace's name has",
        ),
        (
            "/to/0/podSelector",
            json!({}),
            "matchLabels: Required value",
        ),
        (
            "/to/0/podSelector/matchLabels",
            json!({}),
            "should have at least 1 properties",
        ),
    ] {
        grants.refuses(part, with(&good, pointer, value)).await;
    }
}
