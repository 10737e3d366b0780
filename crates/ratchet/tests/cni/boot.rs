//! Points 22 to 25, 28, 30 and 31: pods of Ratchet, and the results of their ADDs.

use serde_json::{Value, json};

use crate::{
    bench::{Bench, annotated, answering, link, names, sandbox_of},
    support::{Sandbox, eventually},
};

/// The real bridge, called by a script that keeps its output.
fn recorded_bridge(bench: &Bench) -> Value {
    bench.fake(
        "recorded-bridge",
        "[ $CNI_COMMAND = ADD ] || exec /usr/lib/cni/bridge <$S/$N.$CNI_COMMAND.stdin\n\
         /usr/lib/cni/bridge <$S/$N.ADD.stdin >$S/out; status=$?; cat $S/out; exit $status",
    );
    let mut bridge = bench.bridge();
    bridge["type"] = json!("recorded-bridge");
    bridge
}

fn printed(bench: &Bench) -> Value {
    serde_json::from_str(&std::fs::read_to_string(bench.dir().join("seen/out")).unwrap()).unwrap()
}

/// Adds two linked pods with a real bridge as boot network. Returns the result of the second ADD,
/// which makes the link, and the bridge's own result.
fn linked(bench: &Bench, version: &str) -> ([Sandbox; 2], [Value; 2]) {
    let bridge = recorded_bridge(bench);
    let pods = [sandbox_of("a"), sandbox_of("b")];
    let config = |links: &str| {
        bench.ours(
            links,
            json!({"cniVersion": version, "boot_network": bridge}),
        )
    };
    bench
        .run("ADD", &pods[0], &config(&link("eth1", "b")))
        .json();
    let result = bench.run("ADD", &pods[1], &config("[]")).json();
    (pods, [result, printed(bench)])
}

fn unlink(bench: &Bench, pods: &[Sandbox]) {
    for pod in pods {
        bench.run("DEL", pod, &bench.ours("[]", json!({}))).silent();
    }
    assert_eq!(
        (bench.leases(), bench.state(), bench.sandboxes()),
        (vec![], vec![], vec![])
    );
}

#[test]
fn p22_result_of_boot_mode() {
    let bench = Bench::with_agent();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let (pods, [result, boot]) = linked(&bench, version);
        assert_eq!(result["cniVersion"], version);
        let interfaces = result["interfaces"].as_array().unwrap();
        let before = boot["interfaces"].as_array().unwrap();
        assert_eq!(interfaces[..before.len()], before[..]);
        assert_eq!(
            (&result["routes"], names(&result)[before.len()..].to_vec()),
            (&boot["routes"], vec!["eth1"])
        );
        let own = &interfaces[before.len()];
        let netns = pods[1].netns.path().display().to_string();
        assert_eq!(
            (own["sandbox"].as_str(), &own["mac"]),
            (
                Some(netns.as_str()),
                &pods[1].netns.links()["eth1"]["address"]
            )
        );
        assert_eq!(
            own["mtu"].as_u64(),
            (version == "1.1.0").then_some(1450),
            "{own}"
        );
        let ips = result["ips"].as_array().unwrap();
        assert_eq!(ips.len(), boot["ips"].as_array().unwrap().len());
        for ip in ips {
            assert!(
                ip["interface"].as_u64().unwrap() < interfaces.len() as u64,
                "{result}"
            );
        }
        unlink(&bench, &pods);
    }
}

/// The addresses that go-cni (containerd) uses for eth0.
fn containerd_ips(result: &Value) -> Vec<String> {
    let interfaces = result["interfaces"].as_array().cloned().unwrap_or_default();
    let is_on_eth0 = |ip: &&Value| match ip["interface"].as_u64() {
        None => true,
        Some(index) => interfaces[usize::try_from(index).unwrap()]["name"] == "eth0",
    };
    let ips = result["ips"].as_array().unwrap().iter().filter(is_on_eth0);
    ips.map(|ip| ip["address"].as_str().unwrap().to_owned())
        .collect()
}

/// The addresses that ocicni (CRI-O) uses for the pod: all of them.
fn crio_ips(result: &Value) -> Vec<String> {
    result["ips"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ip| ip["address"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn p23_addresses_of_the_pod() {
    let bench = Bench::with_agent();
    let (pods, [result, boot]) = linked(&bench, "1.0.0");
    assert_eq!(result["ips"], boot["ips"]);
    for ips in [containerd_ips, crio_ips] {
        assert_eq!(ips(&result), crio_ips(&boot));
    }
    unlink(&bench, &pods);
    // Addresses of both families on eth0 keep their order.
    bench.fake(
        "dual",
        &answering(
            r#"{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"$CNI_NETNS"}],
            "ips":[{"address":"fd00::2/64","interface":0},{"address":"10.1.0.2/24",
            "interface":0}]}"#,
        ),
    );
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    bench.run("ADD", &b, &bench.ours("[]", json!({}))).json();
    let config = bench.ours(
        &link("eth1", "b"),
        json!({"boot_network": {"type": "dual"}}),
    );
    let result = bench.run("ADD", &a, &config).json();
    assert_eq!(names(&result), ["eth0", "eth1"]);
    assert_eq!(
        (containerd_ips(&result), crio_ips(&result)),
        (
            vec!["fd00::2/64".into(), "10.1.0.2/24".into()],
            vec!["fd00::2/64".into(), "10.1.0.2/24".into()]
        )
    );
    unlink(&bench, &[a, b]);
    // For a boot network without addresses, the result has the pod's first link address, without an
    // interface. A runtime starts no pod without an address.
    let a = sandbox_of("a");
    for (links, address) in [
        (link("eth1", "b"), "192.168.7.1/24"),
        ("[]".to_owned(), "127.0.0.1/8"),
    ] {
        let config = bench.ours(
            &links,
            json!({"boot_network": {"type": "loopback", "cniVersion": "1.0.0"}}),
        );
        let result = bench.run("ADD", &a, &config).json();
        assert_eq!(containerd_ips(&result), [address]);
        unlink(&bench, std::slice::from_ref(&a));
    }
}

#[test]
fn p24_names_of_links() {
    let bench = Bench::with_agent();
    let pod = sandbox_of("a");
    let one = |name: &str| format!("[{{interface: \"{name}\", peer: b/x}}]");
    let twice = "[{interface: x, peer: b/x}, {interface: x, peer: c/x}]".to_owned();
    let bad = [
        "eth0",
        "lo",
        "abcdefghijklmnop",
        "a%d",
        "%s",
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "a:b",
    ];
    for links in bad.map(one).into_iter().chain([twice]) {
        for config in [
            bench.ours(&links, json!({})),
            bench.ours(&links, json!({"boot_network": {"type": "main"}})),
        ] {
            bench.run("ADD", &pod, &config).failed(7);
            assert_eq!((bench.calls(), bench.state()), (vec![], vec![]), "{links}");
        }
    }
    // CNI_IFNAME is reserved, not eth0.
    let config = bench.ours(&one("net1"), json!({}));
    let call = bench.call("ADD", &pod, &config).env("CNI_IFNAME", "net1");
    call.run().failed(7);
    assert_eq!(bench.calls(), Vec::<String>::new());
    bench.assert_clean();
}

#[test]
fn p25_foreign_interface() {
    let bench = Bench::with_agent();
    let bridge = bench.bridge();
    let config = |links: &str| bench.ours(links, json!({"boot_network": bridge}));
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    bench.run("ADD", &a, &config(&link("eth1", "b"))).json();
    b.netns
        .sh("ip link add eth1 type bridge && ip addr add 10.5.5.5/24 dev eth1");
    let before = b.netns.links();
    // The pod declares the link as well: what only another pod declares fails no ADD.
    let own = "[{interface: eth1, peer: a, addresses: [192.168.7.2/24]}]";
    let text = bench.run("ADD", &b, &config(own)).failed(7);
    assert!(text.contains("eth1"), "{text}");
    assert_eq!(b.netns.links(), before);
    assert_eq!((bench.leases().len(), bench.sandboxes().len()), (1, 1));
    assert!(!bench.state_file(&b).exists());
    // Without the device, the same ADD succeeds.
    bench.run("DEL", &b, &config(own)).silent();
    assert_eq!(b.netns.links(), before);
    b.netns.sh("ip link del eth1");
    bench.run("ADD", &b, &config(own)).json();
    assert!(b.netns.ping("192.168.7.1"));
    unlink(&bench, &[a, b]);
}

#[test]
fn p28_order_of_the_two_ends() {
    let bench = Bench::with_agent();
    for order in ["ab", "ba", "at once"] {
        let [a, b] = [sandbox_of("a"), sandbox_of("b")];
        let add = |pod: &Sandbox, links: &str| {
            let result = bench.run("ADD", pod, &bench.ours(links, json!({}))).json();
            names(&result).contains(&"eth1")
        };
        let declared = link("eth1", "b");
        match order {
            // The first ADD does not wait for the second pod and makes no interface.
            "ab" => assert_eq!((add(&a, &declared), add(&b, "[]")), (false, true)),
            "ba" => assert_eq!((add(&b, "[]"), add(&a, &declared)), (false, true)),
            _ => std::thread::scope(|scope| {
                let other = scope.spawn(|| add(&b, "[]"));
                let one = add(&a, &declared);
                assert!(one | other.join().unwrap());
            }),
        }
        bench.node().wait_for_links(1);
        assert_eq!(a.netns.links().keys().collect::<Vec<_>>(), ["eth1"]);
        assert_eq!(b.netns.links().keys().collect::<Vec<_>>(), ["eth1"]);
        assert!(a.netns.ping("192.168.7.2"));
        for pod in [&a, &b] {
            bench.run("DEL", pod, &bench.ours("[]", json!({}))).silent();
        }
        bench.assert_clean();
    }
}

#[test]
fn p30_many_at_once() {
    const PODS: usize = 50;
    let bench = Bench::with_agent();
    let boot = json!({"boot_network": bench.bridge()});
    let pods: Vec<Sandbox> = (0..PODS).map(|n| sandbox_of(&format!("p{n}"))).collect();
    let ring = |n: usize| {
        let peer = (n + 1) % PODS;
        format!(
            "[{{interface: right, peer: p{peer}/left, addresses: [10.1.{n}.1/24], peerAddresses: \
             [10.1.{n}.2/24]}}]"
        )
    };
    let each = |verb: &str| {
        std::thread::scope(|scope| {
            for chunk in pods.chunks(PODS / 5).enumerate() {
                let (bench, boot) = (&bench, &boot);
                scope.spawn(move || {
                    for (at, pod) in chunk.1.iter().enumerate() {
                        let n = chunk.0 * (PODS / 5) + at;
                        let seen = bench.run(verb, pod, &bench.ours(&ring(n), boot.clone()));
                        assert_eq!(seen.status, Some(0), "{verb} of p{n}: {seen:?}");
                    }
                });
            }
        });
    };
    each("ADD");
    bench.node().wait_for_links(PODS);
    assert_eq!(bench.leases().len(), PODS);
    for (n, pod) in pods.iter().enumerate() {
        assert_eq!(
            pod.netns.links().keys().collect::<Vec<_>>(),
            ["eth0", "left", "right"],
            "p{n}"
        );
    }
    assert!(pods[7].netns.ping("10.1.7.2"));
    each("DEL");
    assert_eq!(
        (bench.leases(), bench.state(), bench.sandboxes()),
        (vec![], vec![], vec![])
    );
    for pod in &pods {
        assert!(pod.netns.links().is_empty());
    }

    // One container, two attachments at once: the links belong to the pod and are made once.
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    bench.run("ADD", &b, &bench.ours("[]", json!({}))).json();
    let config = bench.ours(&link("x1", "b"), boot.clone());
    let results: Vec<Value> = std::thread::scope(|scope| {
        let add = |name| {
            bench
                .call("ADD", &a, &config)
                .env("CNI_IFNAME", name)
                .run()
                .json()
        };
        let other = scope.spawn(move || add("net1"));
        [add("eth0"), other.join().unwrap()].into()
    });
    assert!(
        results.iter().all(|result| names(result).contains(&"x1")),
        "{results:?}"
    );
    assert_eq!(
        a.netns.links().keys().collect::<Vec<_>>(),
        ["eth0", "net1", "x1"]
    );
    bench
        .call("DEL", &a, &config)
        .env("CNI_IFNAME", "eth0")
        .run()
        .silent();
    assert_eq!(a.netns.links().keys().collect::<Vec<_>>(), ["net1", "x1"]);
    assert!(a.netns.ping("192.168.7.2"));
    bench
        .call("DEL", &a, &config)
        .env("CNI_IFNAME", "net1")
        .run()
        .silent();
    assert!(a.netns.links().is_empty());
    bench.run("DEL", &b, &bench.ours("[]", json!({}))).silent();
    assert_eq!(
        (bench.leases(), bench.state(), bench.sandboxes()),
        (vec![], vec![], vec![])
    );
}

#[test]
fn p31_add_twice() {
    let bench = Bench::with_agent();
    let boot = json!({"boot_network": bench.bridge()});
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    bench.run("ADD", &b, &bench.ours("[]", boot.clone())).json();
    let config = bench.ours(&link("eth1", "b"), boot);
    let first = bench.run("ADD", &a, &config).json();
    let (state, links) = (
        std::fs::read(bench.state_file(&a)).unwrap(),
        a.netns.links(),
    );
    let text = bench.run("ADD", &a, &config).failed(110);
    assert!(text.contains(&a.id) && text.contains("eth0"), "{text}");
    assert_eq!(
        (
            std::fs::read(bench.state_file(&a)).unwrap(),
            a.netns.links().keys().collect::<Vec<_>>()
        ),
        (state, links.keys().collect())
    );
    assert!(a.netns.ping("192.168.7.2") && a.netns.ping("10.77.0.1"));
    let mut check = config.clone();
    check["prevResult"] = first;
    bench.run("CHECK", &a, &check).silent();
    bench.run("DEL", &a, &config).silent();
    bench.run("ADD", &a, &config).json();
    eventually("an answer", || {
        if a.netns.ping("192.168.7.2") {
            Ok(())
        } else {
            Err("none".into())
        }
    });
    unlink(&bench, &[a, b]);
    // The delegate of a pod that is not Ratchet's does not run twice either.
    let config = bench.config(json!({"runtimeConfig": annotated("[]"), "use_labels": false}));
    let plain = bench.config(json!({}));
    let c = sandbox_of("c");
    bench.run("ADD", &c, &plain).json();
    bench.run("ADD", &c, &plain).failed(110);
    bench.run("ADD", &c, &config).failed(110);
    assert_eq!(
        bench
            .calls()
            .iter()
            .filter(|call| *call == "ADD main")
            .count(),
        1
    );
    bench.run("DEL", &c, &plain).silent();
}
