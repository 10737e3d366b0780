//! Points 32 to 36: after other plugins in a list, and before them.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::{
    bench::{Bench, annotated, link, names, sandbox, sandbox_of},
    runtime_fit::{Cnitool, newest_cnitool},
};

/// A config after another plugin of a list.
fn behind(bench: &Bench, version: &str, prev: Value, runtime: Value) -> Value {
    let more = json!({"cniVersion": version, "delegate": null, "prevResult": prev,
        "runtimeConfig": runtime});
    bench.config(more)
}

/// A result with all fields of its version, and an unknown one.
fn rich(version: &str) -> Value {
    let mut result = json!({
        "cniVersion": version,
        "interfaces": [{"name": "veth0", "mac": "02:00:00:00:00:01"}, {"name": "eth0",
        "sandbox": "/n"}],
        "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "priority": 7, "mtu": 1400,
        "vendor": [1]}],
        "dns": {"nameservers": ["10.0.0.53"], "search": ["a.b"]},
        "vendor": {"x": 1.5},
    });
    if version < "1.0.0" {
        result["ips"][0]["version"] = json!("4");
    }
    if version == "1.1.0" {
        result["interfaces"][1]["mtu"] = json!(1400);
        result["interfaces"][1]["socketPath"] = json!("/s");
        result["interfaces"][1]["pciID"] = json!("0000:00:00.1");
    }
    result
}

#[test]
fn p32_pass_through() {
    // No agent answers and none is started: a pod that is not Ratchet's needs none.
    let bench = Bench::new();
    let sandbox = sandbox();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let prev = rich(version);
        let config = behind(&bench, version, prev.clone(), Value::Null);
        let seen = bench.run("ADD", &sandbox, &config);
        assert_eq!(seen.json(), prev);
        // The result stays the same byte for byte.
        let spaced = prev.to_string().replace(",\"vendor\"", ",\n  \"vendor\"");
        let stdin = config.to_string().replace(&prev.to_string(), &spaced);
        assert_eq!(
            bench
                .call("ADD", &sandbox, &json!({}))
                .stdin(stdin)
                .run()
                .stdout
                .trim_end(),
            spaced
        );
        if version >= "0.4.0" {
            bench.run("CHECK", &sandbox, &config).silent();
        }
        bench.run("DEL", &sandbox, &config).silent();
    }
    // A result of another version than the config's is converted.
    let result = bench
        .run(
            "ADD",
            &sandbox,
            &behind(&bench, "0.4.0", rich("1.0.0"), Value::Null),
        )
        .json();
    assert_eq!(
        (&result["cniVersion"], &result["ips"][0]["version"]),
        (&json!("0.4.0"), &json!("4"))
    );
    assert_eq!(result["routes"], rich("1.0.0")["routes"]);
    assert_eq!((bench.state(), bench.node().agent_pid()), (vec![], None));
}

#[test]
fn p33_lenient_prev_results() {
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    bench
        .run("ADD", &b, &bench.ours("[]", json!({"name": "peers"})))
        .json();
    for prev in [
        r#"{"cniVersion":"1.0.0","interfaces":null,"ips":null,"routes":null,"dns":null}"#,
        r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24","gateway":""}],
            "routes":[{"dst":"0.0.0.0/0","gw":""}]}"#,
        r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24"}],"dns":{"nameservers":null}}"#,
        r#"{"CNIVersion":"1.0.0","IPs":[{"Address":"10.1.0.2/24","interface":-1}]}"#,
        r#"{"ips":[{"address":"10.9.9.9/24"}],"ips":[{"address":"10.1.0.2/24","interface":null}]}"#,
        "{}",
    ] {
        let of = |links: &str| {
            let runtime = if links.is_empty() {
                Value::Null
            } else {
                annotated(links)
            };
            behind(&bench, "1.0.0", json!("PREV"), runtime)
                .to_string()
                .replace("\"PREV\"", prev)
        };
        for links in [String::new(), link("eth1", "b")] {
            let stdin = of(&links);
            let result = bench
                .call("ADD", &a, &json!({}))
                .stdin(stdin.as_str())
                .run()
                .json();
            if !links.is_empty() {
                // The earlier content is unchanged, and the link's interface follows it.
                assert_eq!(names(&result), ["eth1"], "{prev}");
                let own = if prev.contains("10.1.0.2") {
                    "10.1.0.2/24"
                } else {
                    "192.168.7.1/24"
                };
                assert_eq!(result["ips"][0]["address"], own, "{prev}");
                assert_eq!(
                    result["ips"].as_array().unwrap().len(),
                    if prev.contains("-1") { 2 } else { 1 },
                    "{result}"
                );
            }
            bench
                .call("DEL", &a, &json!({}))
                .stdin(stdin)
                .run()
                .silent();
        }
    }
    for prev in [
        "[]",
        "7",
        r#"{"ips":[{"address":"x"}]}"#,
        r#"{"cniVersion":"3.0.0"}"#,
    ] {
        let stdin = behind(&bench, "1.0.0", json!("PREV"), Value::Null)
            .to_string()
            .replace("\"PREV\"", prev);
        bench.call("ADD", &a, &json!({})).stdin(stdin).run().error();
    }
    bench
        .run("DEL", &b, &bench.ours("[]", json!({"name": "peers"})))
        .silent();
    bench.assert_clean();
}

#[test]
fn p34_where_the_plugin_stands() {
    let bench = Bench::with_agent();
    let sandbox = sandbox();
    for runtime in [Value::Null, annotated("[]")] {
        // Neither a delegate nor a prevResult.
        let nowhere = behind(&bench, "1.0.0", Value::Null, runtime.clone());
        let text = bench.run("ADD", &sandbox, &nowhere).failed(7);
        assert!(
            text.contains("prevResult") && text.contains("delegate"),
            "{text}"
        );
        // Both: another plugin has made the network, and the config says to make one.
        for key in ["delegate", "boot_network"] {
            let mut both = behind(&bench, "1.0.0", rich("1.0.0"), runtime.clone());
            both[key] = json!({"type": "main"});
            let text = bench.run("ADD", &sandbox, &both).failed(7);
            assert!(text.contains("another plugin"), "{text}");
            // A DEL may get a prevResult in any position, so it does what it can.
            bench.run("DEL", &sandbox, &both).silent();
            assert_eq!(bench.calls(), ["DEL main"]);
        }
    }
    bench.assert_clean();
}

#[test]
fn p35_real_chain() {
    let Some(cnitool) = newest_cnitool() else {
        return;
    };
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    bench
        .run("ADD", &b, &bench.ours("[]", json!({"name": "peers"})))
        .json();
    for version in ["0.4.0", "1.0.0"] {
        let mut bridge = bench.bridge();
        bridge["cniVersion"] = Value::Null;
        let mut own = bench.config(json!({"delegate": null, "cniVersion": null, "name": null}));
        own["capabilities"] = json!({"io.kubernetes.cri.pod-annotations": true});
        let list = json!({"cniVersion": version, "name": "chain", "plugins": [
            bridge, own,
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "tuning", "mac": "02:00:00:00:00:77",
            "sysctl": {"net.ipv4.conf.all.log_martians": "1"},
            "dataDir": bench.dir().join("tuning")},
        ]});
        let ports = json!([{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}]);
        let mut runtime = annotated(&link("eth1", "b"));
        runtime["portMappings"] = ports;
        let tool = Cnitool::new(&bench, &cnitool, &list)
            .without_ip6tables()
            .runtime_config(&runtime)
            .args("IgnoreUnknown=1;K8S_POD_NAME=a");
        let result = tool.run("add", &a).json();
        assert_eq!(names(&result)[2..], ["eth0", "eth1"], "{result}");
        // The MAC that tuning has set is in the result, and both bridge's CHECK and Ratchet's
        // accept it.
        assert_eq!(a.netns.links()["eth0"]["address"], "02:00:00:00:00:77");
        assert!(a.netns.ping("192.168.7.2") && a.netns.ping("10.77.0.1"));
        tool.run("check", &a).silent();
        tool.run("del", &a).silent();
        tool.run("del", &a).silent();
        assert!(a.netns.links().is_empty() && bench.leases().is_empty());
        let rules = bench.node().netns.sh("iptables-save -t nat");
        assert!(!rules.contains("18080"), "{rules}");
    }
    bench
        .run("DEL", &b, &bench.ours("[]", json!({"name": "peers"})))
        .silent();
    bench.node().netns.sh("ip link del cni0");
    bench.assert_clean();
}

#[test]
fn p36_first_in_a_list() {
    let Some(cnitool) = newest_cnitool() else {
        return;
    };
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    bench
        .run("ADD", &b, &bench.ours("[]", json!({"name": "peers"})))
        .json();
    let capabilities = json!({"io.kubernetes.cri.pod-annotations": true});
    let own = bench.config(
        json!({"cniVersion": null, "name": null, "boot_network": bench.bridge(),
            "capabilities": capabilities}),
    );
    let portmap = json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}});
    let list = json!({"cniVersion": "1.0.0", "name": "first", "plugins": [own, portmap]});
    let mut runtime = annotated(&link("eth1", "b"));
    runtime["portMappings"] =
        json!([{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}]);
    let tool = Cnitool::new(&bench, &cnitool, &list)
        .without_ip6tables()
        .runtime_config(&runtime)
        .args("IgnoreUnknown=1;K8S_POD_NAME=a");
    let result = tool.run("add", &a).json();
    let ip = result["ips"][0]["address"]
        .as_str()
        .unwrap()
        .split_once('/')
        .unwrap()
        .0;
    let rules = bench.node().netns.sh("iptables-save -t nat");
    assert!(
        rules.contains(&format!("{ip}:8080")) && !rules.contains("192.168.7"),
        "{rules}"
    );
    // A connection from the node's own address to the pod.
    let server = "import socket; s = socket.create_server(('0.0.0.0', 8080)); print('up', \
                  flush=True); c, _ = s.accept(); c.sendall(b'hello'); c.close()";
    let mut server = a
        .netns
        .command("python3")
        .args(["-c", server])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut String::new())
        .unwrap();
    let client = "import socket,sys; print(socket.create_connection((sys.argv[1], 18080), \
                  10).recv(9).decode())";
    let output = bench
        .node()
        .netns
        .command("python3")
        .args(["-c", client, &bench.node().address])
        .output()
        .unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "hello",
        "{output:?}"
    );
    tool.run("check", &a).silent();
    tool.run("del", &a).silent();
    bench
        .run("DEL", &b, &bench.ours("[]", json!({"name": "peers"})))
        .silent();
    bench.node().netns.sh("ip link del cni0");
    assert!(bench.leases().is_empty());
    bench.assert_clean();
}
