//! Points 37 to 39: CHECK.

use serde_json::{Value, json};

use crate::{
    bench::{Bench, failing, link, names, sandbox, sandbox_of},
    support::{Netns, Sandbox},
};

/// The config of an ADD with its result, as CHECK gets it.
fn with_result(config: &Value, result: &Value) -> Value {
    let mut config = config.clone();
    config["prevResult"] = result.clone();
    config
}

fn del(bench: &Bench, pods: &[&Sandbox], config: &Value) {
    for pod in pods {
        bench.run("DEL", pod, config).silent();
    }
}

#[test]
fn p37_check_at_once() {
    let bench = Bench::with_agent();
    let a = sandbox_of("a");
    let chained = json!({"delegate": null, "prevResult": {"cniVersion": "1.0.0",
        "ips": [{"address": "10.1.0.2/24"}]}});
    for (config, prev) in [
        (bench.config(json!({})), None),
        // The peer is absent. It may stay absent.
        (bench.ours(&link("eth1", "b"), json!({})), None),
        (
            bench.ours(
                &link("eth1", "b"),
                json!({"boot_network": {"type": "loopback", "cniVersion": "1.0.0"}}),
            ),
            None,
        ),
        (
            bench.ours(&link("eth1", "b"), chained),
            Some(json!({"prevResult": null})),
        ),
    ] {
        let result = bench.run("ADD", &a, &config).json();
        bench
            .run("CHECK", &a, &with_result(&config, &result))
            .silent();
        let mut without = config.clone();
        crate::bench::merge(&mut without, prev.unwrap_or(json!({})));
        let text = bench.run("CHECK", &a, &without).failed(7);
        assert!(text.contains("prevResult"), "{text}");
        without["prevResult"] = Value::Null;
        bench.run("CHECK", &a, &without).failed(7);
        bench.run("DEL", &a, &config).silent();
    }
    // Without an ADD, CHECK fails and makes nothing.
    let config = bench.ours("[]", json!({}));
    bench
        .run(
            "CHECK",
            &a,
            &with_result(&config, &json!({"cniVersion": "1.0.0"})),
        )
        .failed(111);
    bench.assert_clean();
}

#[test]
fn p38_check_finds_it() {
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    let config = bench.ours(&link("eth1", "b"), json!({}));
    let peer = bench.ours("[]", json!({}));
    let elsewhere = Netns::new("elsewhere");
    for (spoil, restore) in [
        ("ip link del eth1".to_owned(), ""),
        (format!("ip link set eth1 netns {}", elsewhere.name), ""),
        (
            "ip link set eth1 down && ip link set eth1 name other".to_owned(),
            "",
        ),
        ("ip link set eth1 address 02:00:00:00:00:99".to_owned(), ""),
        (
            "ip link set eth1 down && ip link set eth1 name other && ip link add eth1 type bridge"
                .to_owned(),
            "ip link del eth1",
        ),
    ] {
        bench.run("ADD", &b, &peer).json();
        let result = bench.run("ADD", &a, &config).json();
        bench
            .run("CHECK", &a, &with_result(&config, &result))
            .silent();
        a.netns.sh(&spoil);
        let text = bench
            .run("CHECK", &a, &with_result(&config, &result))
            .failed(111);
        assert!(text.contains("eth1"), "{text}");
        if !restore.is_empty() {
            a.netns.sh(restore);
        }
        del(&bench, &[&a, &b], &peer);
        // DEL also removes devices that were moved or renamed.
        assert!(
            a.netns.links().is_empty(),
            "{spoil}: {:?}",
            a.netns.links().keys()
        );
    }
    // Changes that a pod may make to its interface are not errors.
    bench.run("ADD", &b, &peer).json();
    let result = bench.run("ADD", &a, &config).json();
    a.netns
        .sh("ip link set eth1 mtu 1300 && ip addr flush dev eth1 && ip link set eth1 down");
    bench
        .run("CHECK", &a, &with_result(&config, &result))
        .silent();
    // CHECK with another namespace than ADD's fails.
    let call = bench
        .call("CHECK", &a, &with_result(&config, &result))
        .env("CNI_NETNS", elsewhere.path());
    call.run().failed(111);
    del(&bench, &[&a, &b], &peer);
    drop(elsewhere);

    // An embedded plugin's error is reported with its code. CHECK is not called for a plugin of a
    // version before 0.4.0.
    bench.fake("checks", &failing("CHECK", 77));
    for ours in [false, true] {
        for (version, code) in [("1.0.0", Some(77)), ("0.4.0", Some(77)), ("0.3.1", None)] {
            let embedded = json!({"delegate": {"type": "checks", "cniVersion": version}});
            let config = if ours {
                bench.ours("[]", embedded)
            } else {
                bench.config(embedded)
            };
            let result = bench.run("ADD", &a, &config).json();
            bench.calls();
            let seen = bench.run("CHECK", &a, &with_result(&config, &result));
            match code {
                Some(code) => assert!(seen.failed(code).contains("because")),
                None => seen.silent(),
            }
            assert_eq!(
                bench.calls().len(),
                usize::from(code.is_some()),
                "{version}"
            );
            bench.run("DEL", &a, &config).silent();
        }
    }
    bench.assert_clean();
}

#[test]
fn p39_check_of_embedded_plugins() {
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    let peer = bench.ours("[]", json!({"name": "peers"}));
    bench.run("ADD", &b, &peer).json();
    // An embedded plugin gets its own result, with later changes by others and without Ratchet's
    // links.
    let config = bench.ours(&link("eth1", "b"), json!({}));
    let result = bench.run("ADD", &a, &config).json();
    assert_eq!(names(&result), ["veth0", "eth0", "eth1"]);
    let mut later = result.clone();
    later["interfaces"][1]["mac"] = json!("02:00:00:00:00:77");
    later["interfaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "net9", "sandbox": "/elsewhere"}));
    later["ips"]
        .as_array_mut()
        .unwrap()
        .push(json!({"address": "10.9.0.1/24", "interface": 3}));
    bench
        .run("CHECK", &a, &with_result(&config, &later))
        .silent();
    let mut expected = later.clone();
    expected["interfaces"].as_array_mut().unwrap().remove(2);
    expected["ips"][1]["interface"] = json!(2);
    let seen = bench.seen_json("main", "CHECK");
    assert_eq!(seen["prevResult"], expected);
    assert_eq!(seen["name"], "test-net");
    bench.run("DEL", &a, &config).silent();
    // The link's address that Ratchet adds so that the pod starts is left out, too.
    let layer2 = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"$CNI_NETNS"}]}"#;
    bench.fake("l2", &crate::bench::answering(layer2));
    let config = bench.ours(&link("eth1", "b"), json!({"boot_network": {"type": "l2"}}));
    let result = bench.run("ADD", &a, &config).json();
    assert_eq!(result["ips"], json!([{"address": "192.168.7.1/24"}]));
    bench
        .run("CHECK", &a, &with_result(&config, &result))
        .silent();
    let prev = &bench.seen_json("l2", "CHECK")["prevResult"];
    assert_eq!((names(prev), prev.get("ips")), (vec!["eth0"], None));
    bench.run("DEL", &a, &config).silent();
    // Real plugins.
    for kind in ["bridge", "ptp"] {
        for version in ["0.4.0", "1.0.0"] {
            let mut boot = bench.bridge();
            boot["type"] = json!(kind);
            boot["cniVersion"] = json!(version);
            let config = bench.ours(&link("eth1", "b"), json!({"boot_network": boot}));
            let result = bench.run("ADD", &a, &config).json();
            assert_eq!(names(&result).last(), Some(&"eth1"));
            bench
                .run("CHECK", &a, &with_result(&config, &result))
                .silent();
            a.netns.sh("ip addr flush dev eth0");
            bench
                .run("CHECK", &a, &with_result(&config, &result))
                .error();
            bench.run("DEL", &a, &config).silent();
        }
    }
    bench.run("DEL", &b, &peer).silent();
    // CHECK is called for all plugins of a list, in order; with `disableCheck` for none.
    for (disabled, calls) in [
        (json!(false), vec!["CHECK main", "CHECK l2"]),
        (json!(true), vec![]),
        (json!("true"), vec![]),
    ] {
        let list = json!({"cniVersion": "1.0.0", "disableCheck": disabled,
            "plugins": [{"type": "main"}, {"type": "l2"}]});
        let config = bench.config(json!({"delegate": list}));
        let pod = sandbox();
        let result = bench.run("ADD", &pod, &config).json();
        bench.calls();
        bench
            .run("CHECK", &pod, &with_result(&config, &result))
            .silent();
        assert_eq!(bench.calls(), calls);
        bench.run("DEL", &pod, &config).silent();
    }
    bench.node().netns.sh("ip link del cni0");
    bench.assert_clean();
}
