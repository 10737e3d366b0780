//! Points 50 to 54: GC and STATUS.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    bench::{ANSWER, Bench, answering, failing, hold, link, release, sandbox, sandbox_of},
    support::{Sandbox, eventually},
};

/// The config of a GC with these valid attachments.
fn valid(config: &Value, attachments: &[(&Sandbox, &str)]) -> Value {
    let list: Vec<Value> = attachments
        .iter()
        .map(|(pod, ifname)| json!({"containerID": pod.id, "ifname": ifname}))
        .collect();
    let mut config = config.clone();
    config["cniVersion"] = json!("1.1.0");
    config["cni.dev/valid-attachments"] = json!(list);
    config["cni.dev/attachments"] = json!(list);
    config
}

/// Calls GC or STATUS as libcni does.
fn run(bench: &Bench, verb: &str, config: &Value) -> crate::bench::Seen {
    let call = bench.call(verb, &sandbox(), config);
    let names = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
    names
        .iter()
        .fold(call, |call, name| call.env(name, ""))
        .run()
}

#[test]
fn p50_what_gc_removes() {
    let bench = Bench::with_agent();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(sandbox_of);
    bench.fake("boot", &answering(ANSWER));
    let ours = |links: &str, network: &str| {
        bench.ours(
            links,
            json!({"name": network, "boot_network": {"type": "boot"}}),
        )
    };
    let config = ours(&link("eth1", "b"), "test-net");
    bench.run("ADD", &b, &ours("[]", "test-net")).json();
    bench.run("ADD", &a, &config).json();
    bench
        .call("ADD", &a, &config)
        .env("CNI_IFNAME", "net1")
        .run()
        .json();
    let other = link("eth2", "b").replace("192.168.7", "192.168.8");
    bench.run("ADD", &c, &ours(&other, "another")).json();
    bench.run("ADD", &d, &bench.config(json!({}))).json();
    assert_eq!(b.netns.links().keys().collect::<Vec<_>>(), ["eth1", "eth2"]);
    bench.calls();

    run(
        &bench,
        "GC",
        &valid(
            &config,
            &[(&a, "eth0"), (&a, "net1"), (&b, "eth0"), (&d, "eth0")],
        ),
    )
    .silent();
    assert_eq!(bench.calls(), ["GC main", "GC boot"]);
    // A container with two attachments loses one: the links stay as long as it has an attachment.
    run(
        &bench,
        "GC",
        &valid(&config, &[(&a, "eth0"), (&b, "eth0"), (&d, "eth0")]),
    )
    .silent();
    assert_eq!(bench.calls()[0], "DEL boot");
    let env = bench.seen("boot", "DEL", "env");
    for line in [
        format!("CNI_CONTAINERID={}", a.id),
        "CNI_IFNAME=net1".into(),
        "CNI_NETNS=".into(),
    ] {
        assert!(env.lines().any(|found| found == line), "{line}: {env}");
    }
    assert!(env.contains("K8S_POD_NAME=a"), "{env}");
    assert!(a.netns.ping("192.168.7.2"));
    // Container and interface are compared together: another attachment of the same container does
    // not keep this one.
    run(
        &bench,
        "GC",
        &valid(&config, &[(&a, "net1"), (&b, "eth0"), (&d, "net1")]),
    )
    .silent();
    let mut calls = bench.calls();
    calls.sort();
    assert_eq!(calls, ["DEL boot", "DEL main", "GC boot", "GC main"]);
    assert!(
        a.netns.links().is_empty()
            && !bench.state_file(&a).exists()
            && !bench.state_file(&d).exists()
    );
    // The other network's link stays up.
    assert_eq!(c.netns.links().keys().collect::<Vec<_>>(), ["eth2"]);
    assert!(c.netns.ping("192.168.8.2") && bench.state_file(&b).exists());
    run(&bench, "GC", &valid(&ours("[]", "another"), &[])).silent();
    run(&bench, "GC", &valid(&config, &[])).silent();
    bench.assert_clean();
}

#[test]
fn p51_spellings_of_the_list() {
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    let config = bench.ours("[]", json!({"cniVersion": "1.1.0"}));
    let one = |pod: &Sandbox| json!([{"containerID": pod.id, "ifname": "eth0"}]);
    let (right, old) = ("cni.dev/valid-attachments", "cni.dev/attachments");
    for (keys, stay) in [
        (vec![(right, one(&a))], [true, false]),
        (vec![(old, one(&a))], [true, false]),
        // An attachment that one of the two lists names stays.
        (vec![(right, one(&a)), (old, one(&b))], [true, true]),
        (vec![(right, json!([]))], [false, false]),
        (vec![(right, Value::Null)], [false, false]),
        (vec![(old, Value::Null)], [false, false]),
        (vec![(right, Value::Null), (old, json!([]))], [false, false]),
    ] {
        for pod in [&a, &b] {
            bench.run("ADD", pod, &config).json();
        }
        let mut gc = config.clone();
        for (key, list) in keys {
            gc[key] = list;
        }
        run(&bench, "GC", &gc).silent();
        assert_eq!(
            [&a, &b].map(|pod| bench.state_file(pod).exists()),
            stay,
            "{gc}"
        );
        assert_eq!(
            bench.sandboxes().len(),
            stay.iter().filter(|stays| **stays).count()
        );
        for pod in [&a, &b] {
            bench.run("DEL", pod, &config).silent();
        }
    }
    // Without a list it is unknown what is valid, so nothing is removed; the same for a list that
    // cannot be parsed.
    bench.run("ADD", &a, &config).json();
    bench.calls();
    let text = run(&bench, "GC", &config).failed(7);
    assert!(text.contains(right), "{text}");
    for list in [
        json!({}),
        json!("x"),
        json!([7]),
        json!([{"containerID": 7}]),
    ] {
        let mut gc = config.clone();
        gc[right] = list;
        run(&bench, "GC", &gc).error();
    }
    assert_eq!(
        (
            bench.calls(),
            bench.state_file(&a).exists(),
            bench.sandboxes().len()
        ),
        (vec![], true, 1)
    );
    bench.run("DEL", &a, &config).silent();
    bench.assert_clean();
}

#[test]
fn p52_gc_of_embedded_plugins() {
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    for kind in ["new", "old"] {
        bench.fake(kind, &answering(ANSWER));
    }
    let (new, old) = (
        json!({"type": "new", "cniVersion": "1.1.0"}),
        json!({"type": "old", "cniVersion": "1.0.0", "name": "own"}),
    );
    let add = |embedded: Value| {
        for pod in [&a, &b] {
            bench
                .run("ADD", pod, &bench.config(embedded.clone()))
                .json();
        }
        bench.calls();
    };
    // The delegate is of an old version, the boot network of a new one. The stale attachment gets a
    // DEL, and GC is called for the plugin that supports it.
    let both = json!({"delegate": old, "boot_network": new});
    add(both.clone());
    run(
        &bench,
        "GC",
        &valid(&bench.config(both.clone()), &[(&b, "eth0")]),
    )
    .silent();
    assert_eq!(bench.calls(), ["DEL old", "GC new"]);
    assert_eq!(
        bench.seen("old", "DEL", "stdin"),
        bench.seen("old", "ADD", "stdin")
    );
    let list = json!([{"containerID": b.id, "ifname": "eth0"}]);
    let expected = json!({"type": "new", "cniVersion": "1.1.0", "name": "test-net",
        "cni.dev/valid-attachments": list, "cni.dev/attachments": list});
    assert_eq!(bench.seen_json("new", "GC"), expected);
    assert!(!bench.seen("new", "GC", "env").contains(&a.id));
    bench.run("DEL", &b, &bench.config(json!({}))).silent();

    // An error does not stop the work, and all errors are reported.
    add(both.clone());
    bench.fake(
        "new",
        "[ $CNI_COMMAND = GC ] && echo '{\"code\":78,\"msg\":\"no room\"}'; exit 1",
    );
    bench.fake(
        "old",
        "[ $CNI_COMMAND = DEL ] && echo '{\"code\":77,\"msg\":\"busy '$CNI_CONTAINERID'\"}'; \
         exit 1",
    );
    let text = run(&bench, "GC", &valid(&bench.config(both.clone()), &[])).failed(77);
    for part in [a.id.as_str(), &b.id, "no room", "code 78"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(bench.calls(), ["DEL old", "DEL old", "GC new"]);
    // The next GC tries the failed ones again.
    assert!(bench.state_file(&a).exists());
    for kind in ["new", "old"] {
        bench.fake(kind, &answering(ANSWER));
    }
    run(&bench, "GC", &valid(&bench.config(both), &[])).silent();
    assert!(bench.state().is_empty());
    // A list with disableGC gets neither DEL nor GC.
    let list = json!({"delegate": {"cniVersion": "1.1.0", "disableGC": true,
        "plugins": [{"type": "new"}]}});
    add(list.clone());
    run(&bench, "GC", &valid(&bench.config(list.clone()), &[])).silent();
    assert_eq!(bench.calls(), Vec::<String>::new());
    for pod in [&a, &b] {
        bench.run("DEL", pod, &bench.config(list.clone())).silent();
    }
    bench.assert_clean();
}

#[test]
fn p53_gc_again_and_beside_others() {
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    let config = bench.ours(&link("eth1", "b"), json!({}));
    bench.run("ADD", &a, &config).json();
    bench.calls();
    for calls in [vec!["DEL main", "GC main"], vec!["GC main"]] {
        let mut gc = valid(&config, &[]);
        gc["delegate"]["cniVersion"] = json!("1.1.0");
        run(&bench, "GC", &gc).silent();
        assert_eq!(bench.calls(), calls);
        bench.assert_clean();
    }
    // A running ADD, which is not in the runtime's list yet.
    let fifo = bench.dir().join("go");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let wait = format!(
        "[ $CNI_COMMAND = ADD ] && cat {} >/dev/null\n{}",
        fifo.display(),
        answering(ANSWER)
    );
    bench.fake("slow", &wait);
    for ours in [false, true] {
        let slow = json!({"delegate": {"type": "slow", "cniVersion": "1.1.0"}});
        let config = if ours {
            bench.ours("[]", slow)
        } else {
            bench.config(slow)
        };
        let mut call = bench.call("ADD", &b, &config);
        let mut child = call
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&call.stdin).unwrap();
        eventually("the delegate's ADD", || {
            if bench.calls().contains(&"ADD slow".to_owned()) {
                Ok(())
            } else {
                Err("none".into())
            }
        });
        run(&bench, "GC", &valid(&config, &[])).silent();
        assert_eq!(bench.calls(), ["GC slow"]);
        // The list for the delegate has it as valid, too.
        let valid_there = &bench.seen_json("slow", "GC")["cni.dev/valid-attachments"];
        assert_eq!(
            *valid_there,
            json!([{"containerID": b.id, "ifname": "eth0"}])
        );
        fs::write(&fifo, "go").unwrap();
        assert!(child.wait_with_output().unwrap().status.success());
        assert!(bench.state_file(&b).exists());
        run(&bench, "GC", &valid(&config, &[])).silent();
        assert!(!bench.state_file(&b).exists());
        bench.calls();
    }
    bench.assert_clean();
}

#[test]
fn p54_status() {
    let mut bench = Bench::with_agent();
    let base = bench.config(
        json!({"cniVersion": "1.1.0", "boot_network": {"type": "loopback", "cniVersion": "1.0.0"}}),
    );
    let with = |more: Value| {
        let mut config = base.clone();
        crate::bench::merge(&mut config, more);
        config
    };
    // The environment has only the variables that the specification demands.
    let bare = |bench: &Bench, config: &Value| {
        let mut call = bench.call("STATUS", &sandbox(), config);
        call.command
            .env_clear()
            .env("CNI_COMMAND", "STATUS")
            .env("CNI_PATH", bench.cni_path());
        call.command.env("PATH", "/usr/bin:/bin");
        call.run()
    };
    bare(&bench, &base).silent();
    // STATUS is not called for a plugin of an older version; it only has to exist. Nothing is made.
    assert_eq!(bench.calls(), ["STATUS main"]);
    assert_eq!(
        bench.seen_json("main", "STATUS"),
        json!({"type": "main", "name": "test-net", "cniVersion": "1.1.0"})
    );
    let old = with(json!({"delegate": {"type": "main", "cniVersion": "1.0.0"}}));
    bare(&bench, &old).silent();
    assert_eq!(
        (bench.calls(), bench.state(), bench.sandboxes()),
        (vec![], vec![], vec![])
    );

    for version in ["1.0.0", "1.1.0"] {
        let missing = with(json!({"delegate": {"type": "missing", "cniVersion": version}}));
        let text = bare(&bench, &missing).failed(50);
        assert!(text.contains("\"missing\""), "{text}");
    }
    for code in [50, 51, 11, 7, 120] {
        bench.fake("ill", &failing("STATUS", code));
        let text = bare(&bench, &with(json!({"delegate": {"type": "ill"}}))).failed(code.into());
        assert!(text.contains("because"), "{text}");
    }
    bare(&bench, &with(json!({"mtu": "x"}))).failed(7);
    // The config differs from the agent's settings.
    bare(&bench, &with(json!({"parent_address": "10.91.0.77"}))).failed(50);
    // A store that another process has locked can still be read. A store that cannot be opened is
    // an error, and so is an agent that cannot be started.
    let holder = hold(&bench.dir().join("store.db"));
    bare(&bench, &base).silent();
    release(holder);
    bench.cluster.nodes[0].stop_agent();
    bare(&bench, &with(json!({"child_path": "/bin/false"}))).failed(50);
    let nowhere = format!(
        "sqlite:{}",
        bench.dir().join("fakes/main/store.db").display()
    );
    bare(&bench, &with(json!({"store": nowhere}))).failed(50);
    bench.cluster.nodes[0].stop_agent();
    // Without these errors, an agent is started on demand.
    bare(&bench, &base).silent();
    assert!(bench.node().agent_pid().is_some());
}
