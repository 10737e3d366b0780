//! Links.

use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
    core::Request,
};
use ratchet_api::{EndState, Link, LinkStatus, MANAGER_OF_A, MANAGER_OF_B};
use serde_json::{Value, json};

use crate::{Kind, with};

fn good() -> Value {
    json!({
        "declaredBy": "Annotation",
        "mtu": 1400,
        "vni": 11,
        "a": {
            "namespace": "default", "pod": "r1", "interface": "eth1",
            "addresses": ["10.0.0.1/24", "fd00::1/64", "fe80::1/64"],
            "mac": "02:00:00:00:00:01",
            "routes": [{"dst": "10.1.0.0/16", "via": "10.0.0.2"},
                {"dst": "::/0", "via": "fd00::2"}],
            "podUID": "7a", "node": "n1", "vtep": "192.0.2.1", "tunnelMTU": 1450,
        },
        "b": {
            "namespace": "default", "pod": "r2", "interface": "eth1",
            "podUID": "7b", "node": "n2", "vtep": "192.0.2.2",
        },
    })
}

pub async fn run(client: &Client) {
    let links = Kind::new(client, "Link", "links", true);
    of_ends(&links).await;
    of_the_whole(&links).await;
    changes(&links).await;
    late_vni(&links).await;
    status_and_columns(client).await;
}

async fn of_ends(links: &Kind) {
    links.accepts(good()).await;
    let interface = "an interface's name has 1 to 15 bytes, and no '/', ':', '%' or white space";
    let taken = "this interface name is taken by the system";
    let address = "expected an address with a prefix length, such as 10.0.0.1/24";
    let unusable = "an interface cannot have this address";
    let network = "dst must be a network, such as 10.1.0.0/16";
    let mac = "expected the MAC address of one interface";
    for (pointer, value, part) in [
        ("interface", json!("eth 1"), interface),
        ("interface", json!("a/b"), interface),
        ("interface", json!("a:b"), interface),
        ("interface", json!("eth%d"), interface),
        ("interface", json!("a\u{a0}b"), interface),
        ("interface", json!("ääääääää"), interface),
        (
            "interface",
            json!("sixteen_byteslong"),
            "may not be more than 15",
        ),
        ("interface", json!(""), interface),
        ("interface", json!("lo"), taken),
        ("interface", json!(".."), taken),
        ("interface", json!("all"), taken),
        ("interface", json!("default"), taken),
        ("addresses/0", json!("10.0.0.1"), address),
        ("addresses/0", json!("10.0.0.256/24"), address),
        ("addresses/0", json!("10.0.0.1/33"), address),
        ("addresses/0", json!("127.0.0.1/8"), unusable),
        ("addresses/0", json!("224.0.0.1/4"), unusable),
        ("addresses/0", json!("::/0"), unusable),
        (
            "addresses",
            json!(vec!["10.0.0.1/24"; 65]),
            "must have at most 64 items",
        ),
        ("routes/0/dst", json!("10.1.0.1"), network),
        (
            "routes/0/dst",
            json!("10.1.0.1/16"),
            "bits of dst are set after the prefix length",
        ),
        (
            "routes/0/via",
            json!("10.0.0.2/24"),
            "via must be an IPv4 or IPv6 address without a prefix length",
        ),
        (
            "routes/0/via",
            json!("fd00::2"),
            "dst and via must both be IPv4 or both IPv6",
        ),
        ("mac", json!("02:00:00:00:00"), mac),
        ("mac", json!("01:00:00:00:00:01"), mac),
        ("mac", json!("00:00:00:00:00:00"), mac),
        ("vtep", json!("host"), "without a prefix length"),
        (
            "namespace",
            json!("Default"),
            "spec.a.namespace in body should match",
        ),
        ("pod", json!("r 1"), "spec.a.pod in body should match"),
        (
            "tunnelMTU",
            json!(67),
            "should be greater than or equal to 68",
        ),
    ] {
        links
            .refuses(part, with(&good(), &format!("/a/{pointer}"), value))
            .await;
    }
    for (pointer, value) in [
        ("interface", json!("eth0.100")),
        ("interface", json!("ä")),
        ("interface", json!("fifteen_bytes_1")),
        ("addresses", json!([])),
        ("routes/0/dst", json!("0.0.0.0/0")),
        (
            "routes/0",
            json!({"dst": "10.2.0.0/16", "metric": 4_294_967_295_u32}),
        ),
        ("vtep", json!("2001:db8::1")),
    ] {
        links
            .accepts(with(&good(), &format!("/a/{pointer}"), value))
            .await;
    }
}

async fn of_the_whole(links: &Kind) {
    let mut same = with(&good(), "/b/pod", json!("r1"));
    links
        .refuses("both ends are the same interface", same.clone())
        .await;
    same["b"]["namespace"] = json!("other");
    links.accepts(same).await;
    // The ends of one pod.
    let both = with(&good(), "/b/pod", json!("r1"));
    links
        .accepts(with(&both, "/b/interface", json!("eth2")))
        .await;

    let no_vni = {
        let mut spec = good();
        spec.as_object_mut().unwrap().remove("vni");
        spec
    };
    links
        .refuses("so the link needs a vni", no_vni.clone())
        .await;
    links.accepts(with(&no_vni, "/b/node", json!("n1"))).await;

    let mut unresolved = no_vni;
    for field in ["podUID", "node", "vtep", "tunnelMTU"] {
        unresolved["b"].as_object_mut().unwrap().remove(field);
    }
    links.accepts(unresolved.clone()).await;
    let of_slot = {
        let mut spec = unresolved.clone();
        spec["b"].as_object_mut().unwrap().remove("pod");
        spec
    };
    links.accepts(of_slot.clone()).await;
    for (field, value, part) in [
        ("node", "n2", "node and podUID are set together"),
        ("podUID", "7b", "node and podUID are set together"),
        ("vtep", "192.0.2.2", "vtep is set, so node must be, too"),
    ] {
        let spec = with(&unresolved, &format!("/b/{field}"), json!(value));
        links.refuses(part, spec).await;
    }
    let mut nobody = with(&of_slot, "/b/podUID", json!("7b"));
    nobody["b"]["node"] = json!("n1");
    links
        .refuses("podUID is set, so pod must be, too", nobody)
        .await;

    for (pointer, value, part) in [
        ("/mtu", json!(67), "should be greater than or equal to 68"),
        (
            "/mtu",
            json!(65_536),
            "should be less than or equal to 65535",
        ),
        ("/vni", json!(0), "should be greater than or equal to 1"),
        (
            "/vni",
            json!(1 << 24),
            "should be less than or equal to 16777215",
        ),
        (
            "/declaredBy",
            json!("Somebody"),
            "supported values: \"Topology\", \"Annotation\"",
        ),
        ("/declaredBy", json!("Topology"), "topology must name it"),
    ] {
        links.refuses(part, with(&good(), pointer, value)).await;
    }
    let topology = with(&good(), "/declaredBy", json!("Topology"));
    links
        .accepts(with(&topology, "/topology", json!("lab")))
        .await;
}

async fn changes(links: &Kind) {
    links.create("changed", &good()).await;
    for (pointer, value, part) in [
        (
            "/a/namespace",
            json!("other"),
            "namespace and interface of end a cannot be changed",
        ),
        (
            "/b/interface",
            json!("eth2"),
            "namespace and interface of end b cannot be changed",
        ),
        (
            "/vni",
            json!(12),
            "a VNI stays for as long as the Link exists",
        ),
    ] {
        let spec = with(&good(), pointer, value);
        let refusal = links.refusal_of_change("changed", &spec).await;
        assert!(
            refusal.as_ref().is_some_and(|text| text.contains(part)),
            "{part}: {refusal:?}"
        );
    }
    let mut spec = good();
    spec.as_object_mut().unwrap().remove("vni");
    spec["b"]["node"] = json!("n1");
    let refusal = links.refusal_of_change("changed", &spec).await;
    assert!(refusal.unwrap().contains("a VNI stays"));
    for (pointer, value) in [
        ("/a/pod", json!("r1-next")),
        ("/b/node", json!("n3")),
        ("/a/addresses", json!(["10.0.0.9/24"])),
        ("/mtu", json!(1300)),
    ] {
        let refusal = links
            .refusal_of_change("changed", &with(&good(), pointer, value))
            .await;
        assert_eq!(refusal, None, "{pointer}");
    }
}

/// A link that gets its VNI when its pods are on two nodes.
async fn late_vni(links: &Kind) {
    let mut spec = good();
    spec.as_object_mut().unwrap().remove("vni");
    spec["b"]["node"] = json!("n1");
    links.create("late", &spec).await;
    let refusal = links.refusal_of_change("late", &good()).await;
    assert_eq!(refusal, None);
    links.delete("late").await;
}

/// The status that an agent applies for an end, and what `kubectl get links` shows of it.
async fn status_and_columns(client: &Client) {
    let api: Api<Link> = Api::default_namespaced(client.clone());
    let end = |end: &str, state: &str, message: &str| {
        json!({
            "apiVersion": "ratchet.dev/v1alpha1", "kind": "Link", "status": {
                end: {
                    "node": "n1", "podUID": "7a", "observedGeneration": 1, "state": state,
                    "kind": "Vxlan", "mtu": 1400, "reason": "Wired", "message": message,
                },
            },
        })
    };
    for (manager, status) in [
        (MANAGER_OF_A, end("a", "Up", "up")),
        (MANAGER_OF_B, end("b", "Waiting", "waiting for n2")),
    ] {
        let parameters = PatchParams::apply(manager);
        let applied = api
            .patch_status("changed", &parameters, &Patch::Apply(status))
            .await;
        applied.unwrap();
    }
    let conditions = json!({"status": {"conditions": [{
        "type": "Accepted", "status": "True", "reason": "Resolved", "message": "",
        "lastTransitionTime": "2026-11-30T00:00:00Z", "observedGeneration": 1,
    }]}});
    let merge = Patch::Merge(conditions);
    api.patch_status("changed", &PatchParams::default(), &merge)
        .await
        .unwrap();

    let link = api.get("changed").await.unwrap();
    let LinkStatus { a, b, conditions } = link.status.unwrap();
    assert_eq!(a.unwrap().state, EndState::Up);
    assert_eq!(b.unwrap().state, EndState::Waiting);
    assert_eq!(conditions[0].reason, "Resolved");

    let bad = end("a", "Up", &"x".repeat(1025));
    let parameters = PatchParams::apply(MANAGER_OF_A);
    let refused = api
        .patch_status("changed", &parameters, &Patch::Apply(bad))
        .await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("may not be more than 1024")
    );

    let of_n1 = ListParams::default().fields("spec.a.node=n1,spec.b.node=n2");
    assert_eq!(api.list(&of_n1).await.unwrap().items.len(), 1);
    let (narrow, wide) = columns(client).await;
    let expected = [
        ("Name", json!("changed")),
        ("A", json!("r1")),
        ("A-Interface", json!("eth1")),
        ("A-State", json!("Up")),
        ("B", json!("r2")),
        ("B-Interface", json!("eth1")),
        ("B-State", json!("Waiting")),
        ("VNI", json!(11)),
        ("Accepted", json!("Resolved")),
    ];
    let expected = expected.map(|(name, cell)| (name.to_owned(), cell));
    assert_eq!(narrow[..expected.len()], expected);
    assert_eq!(narrow[expected.len()].0, "Age");
    let expected = [
        ("A-Node", json!("n1")),
        ("B-Node", json!("n2")),
        ("Kind", json!("Vxlan")),
        ("A-MTU", json!(1400)),
        ("B-MTU", json!(1400)),
        ("A-Message", json!("up")),
        ("B-Message", json!("waiting for n2")),
    ];
    assert_eq!(wide, expected.map(|(name, cell)| (name.to_owned(), cell)));
}

/// The columns of `kubectl get links` for the only Link, and those that `-o wide` adds.
async fn columns(client: &Client) -> (Vec<(String, Value)>, Vec<(String, Value)>) {
    let path = "/apis/ratchet.dev/v1alpha1/namespaces/default/links";
    let mut request = Request::new(path).list(&ListParams::default()).unwrap();
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    request
        .headers_mut()
        .insert("accept", table.parse().unwrap());
    let table: Value = client.request(request).await.unwrap();
    let cells = table["rows"][0]["cells"]
        .as_array()
        .unwrap()
        .iter()
        .cloned();
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let all = columns.zip(cells).map(|(column, cell)| {
        let name = column["name"].as_str().unwrap().to_owned();
        (column["priority"].as_i64().unwrap_or(0), (name, cell))
    });
    let (narrow, wide): (Vec<_>, Vec<_>) = all.partition(|(priority, _)| *priority == 0);
    let cells = |columns: Vec<(i64, (String, Value))>| columns.into_iter().map(|(_, cell)| cell);
    (cells(narrow).collect(), cells(wide).collect())
}
