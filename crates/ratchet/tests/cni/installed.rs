//! An agent that installs itself: a runtime takes the config that it writes.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::{
    bench::{Bench, annotated, link, names, sandbox_of},
    runtime_fit::{Cnitool, newest_cnitool},
    support::{RATCHET, eventually},
};

/// Waits until the plugins of our config are these.
fn becomes(configs: &Path, expected: &[&str]) {
    eventually("our config", || {
        let config = fs::read(configs.join("00-ratchet.conflist")).unwrap_or_else(|_| b"{}".into());
        let config: Value = serde_json::from_slice(&config).unwrap();
        let plugins = config["plugins"].as_array().into_iter().flatten();
        let types: Vec<&str> = plugins
            .map(|plugin| plugin["type"].as_str().unwrap())
            .collect();
        match types == expected {
            true => Ok(()),
            false => Err(format!("{types:?}, not {expected:?}")),
        }
    });
}

/// A runtime on a node whose network is a bridge and more plugins. It takes the first config.
fn runtime<'a>(bench: &'a Bench, cnitool: &'a Path, more: &[Value]) -> Cnitool<'a> {
    let mut bridge = bench.bridge();
    bridge.as_object_mut().unwrap().remove("cniVersion");
    let plugins = [&[bridge], more].concat();
    let network = json!({"cniVersion": "1.0.0", "name": "chain", "plugins": plugins});
    Cnitool::new(bench, cnitool, &network)
        .runtime_config(&annotated(&link("eth1", "b")))
        .args("IgnoreUnknown=1;K8S_POD_NAME=a")
}

fn uninstall(configs: &Path) -> Output {
    let mut command = Command::new(RATCHET);
    command.arg("uninstall").arg("--cni-dir").arg(configs);
    command.output().unwrap()
}

#[test]
fn an_agent_that_installs_itself_wires_the_pods_of_the_present_network() {
    let Some(cnitool) = newest_cnitool() else {
        return;
    };
    let mut bench = Bench::new();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    let [configs, programs] = ["net.d", "bin"].map(|name| bench.dir().join(name));
    let arguments = ["--install", "--cni-bin-dir", "BIN", "--cni-dir", "CONFIGS"];
    let arguments = arguments.map(|argument| match argument {
        "BIN" => programs.to_str().unwrap(),
        "CONFIGS" => configs.to_str().unwrap(),
        other => other,
    });
    bench.cluster.nodes[0].start_agent_with(&arguments);
    let chain = runtime(&bench, &cnitool, &[]);
    becomes(&configs, &["bridge", "ratchet"]);
    assert!(fs::read(programs.join("ratchet")).unwrap() == fs::read(RATCHET).unwrap());

    // The config agrees with the agent, which answers.
    bench
        .run("ADD", &b, &bench.ours("[]", json!({"name": "peers"})))
        .json();
    let result = chain.run("add", &a).json();
    assert_eq!(names(&result)[2..], ["eth0", "eth1"], "{result}");
    assert!(a.netns.ping("192.168.7.2") && a.netns.ping("10.77.0.1"));
    // The network gets another plugin while the pod runs.
    let tuning = json!({"type": "tuning", "dataDir": bench.dir().join("tuning")});
    let more = [tuning];
    let chain = runtime(&bench, &cnitool, &more);
    becomes(&configs, &["bridge", "tuning", "ratchet"]);
    chain.run("check", &a).silent();

    // An agent that stops leaves its files, and a pod ends with them.
    bench.cluster.nodes[0].stop_agent();
    becomes(&configs, &["bridge", "tuning", "ratchet"]);
    bench.cluster.nodes[0].start_agent_with(&arguments);
    runtime(&bench, &cnitool, &more).run("del", &a).silent();
    assert!(a.netns.links().is_empty() && bench.leases().is_empty());

    bench
        .run("DEL", &b, &bench.ours("[]", json!({"name": "peers"})))
        .silent();
    bench.cluster.nodes[0].stop_agent();
    for said in ["removed", "was not there"] {
        let output = uninstall(&configs);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(said), "{output:?}");
    }
    becomes(&configs, &[]);
    assert!(programs.join("ratchet").exists() && configs.join("10.conflist").exists());
    bench.node().netns.sh("ip link del cni0");
}
