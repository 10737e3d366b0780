//! Points 40 to 49: DEL.

use std::fs;

use serde_json::{Value, json};

use crate::{
    bench::{
        ANSWER, Bench, annotated, answering, failing, hold, link, release, sandbox, sandbox_of,
    },
    support::eventually,
};

#[test]
fn p40_del_at_any_time() {
    for bench in [Bench::new(), Bench::with_agent()] {
        let a = sandbox_of("a");
        let real = json!({"delegate": bench.bridge(), "boot_network": {"type": "ptp",
            "ipam": bench.bridge()["ipam"]}});
        let prev = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]});
        for config in [
            bench.config(json!({})),
            bench.config(real.clone()),
            bench.ours(&link("eth1", "b"), json!({})),
            bench.ours(&link("eth1", "b"), real),
            bench.ours(
                &link("eth1", "b"),
                json!({"delegate": null, "prevResult": prev}),
            ),
        ] {
            for verb in ["DEL", "DEL", "ADD", "DEL", "DEL", "ADD", "DEL"] {
                let seen = bench.run(verb, &a, &config);
                assert_eq!(seen.status, Some(0), "{verb}: {seen:?}");
            }
            assert_eq!(
                (bench.leases(), bench.state(), a.netns.links().len()),
                (vec![], vec![], 0)
            );
        }
        let _ = bench.node().netns.run("ip link del cni0");
        bench.assert_clean();
    }
}

#[test]
fn p41_del_without_a_namespace() {
    let bench = Bench::with_agent();
    let file = bench.dir().join("file");
    fs::write(&file, "").unwrap();
    let bridge = bench.bridge();
    for netns in [
        None,
        Some(""),
        Some("/run/netns/rt-not-there"),
        file.to_str(),
        bench.dir().to_str(),
    ] {
        for config in [
            bench.config(json!({"delegate": bridge})),
            bench.ours(&link("eth1", "b"), json!({"boot_network": bridge})),
        ] {
            let a = sandbox_of("a");
            bench.run("ADD", &a, &config).json();
            assert_eq!(bench.leases().len(), 1);
            let call = bench.call("DEL", &a, &config);
            let call = match netns {
                None => call.unset("CNI_NETNS"),
                Some(path) => call.env("CNI_NETNS", path),
            };
            call.run().silent();
            assert_eq!(
                (bench.leases(), bench.state(), bench.sandboxes()),
                (vec![], vec![], vec![]),
                "{netns:?}"
            );
        }
    }
    // Also without state.
    let a = sandbox_of("a");
    let config = bench.config(json!({"delegate": bridge}));
    bench.run("ADD", &a, &config).json();
    fs::remove_dir_all(bench.node().state_dir.join("attachments")).unwrap();
    bench
        .call("DEL", &a, &config)
        .env("CNI_NETNS", "")
        .run()
        .silent();
    assert_eq!(bench.leases(), Vec::<String>::new());
}

#[test]
fn p42_del_with_the_config_of_add() {
    let bench = Bench::with_agent();
    let a = sandbox_of("a");
    bench.fake("boot", &answering(ANSWER));
    bench.fake("other", &answering(ANSWER));
    let embedded = json!({"delegate": {"type": "main", "n": 1.50}, "boot_network": {"type": "boot",
        "n": 1.50}});
    let edited =
        json!({"delegate": {"type": "other"}, "boot_network": {"type": "other"}, "mtu": 1400});
    let with = |ours: bool, more: &Value| {
        if ours {
            bench.ours("[]", more.clone())
        } else {
            bench.config(more.clone())
        }
    };
    for (ours, kind) in [(true, "boot"), (false, "main")] {
        bench.run("ADD", &a, &with(ours, &embedded)).json();
        bench.calls();
        // The config was edited and the pod looks like another kind; or only the name is left of
        // the config.
        for more in [
            edited.clone(),
            json!({"delegate": null, "boot_network": 7, "runtimeConfig": 5, "mtu": "x"}),
        ] {
            bench.fake(kind, &failing("DEL", 77));
            bench.run("DEL", &a, &with(!ours, &more)).failed(77);
            assert_eq!(bench.calls(), [format!("DEL {kind}")]);
            assert_eq!(
                bench.seen(kind, "DEL", "stdin"),
                bench.seen(kind, "ADD", "stdin")
            );
        }
        bench.fake(kind, &answering(ANSWER));
        bench.run("DEL", &a, &with(!ours, &edited)).silent();
        assert_eq!(bench.calls(), [format!("DEL {kind}")]);
        bench.assert_clean();
    }
}

#[test]
fn p43_del_without_state() {
    let bench = Bench::with_agent();
    bench.fake("boot", &answering(ANSWER));
    let config = bench.ours(
        &link("eth1", "b"),
        json!({"boot_network": {"type": "boot"}}),
    );
    let peer = sandbox_of("b");
    bench
        .run("ADD", &peer, &bench.ours("[]", json!({"name": "peers"})))
        .json();
    for content in [
        None,
        Some(""),
        Some("{\"mode\":\"boot\",\"rend"),
        Some("[]"),
        Some("7"),
        Some("{\"mode\":\"new\"}"),
        Some("dir"),
    ] {
        let a = sandbox_of("a");
        bench.run("ADD", &a, &config).json();
        assert_eq!(a.netns.links().len(), 1);
        let path = bench.state_file(&a);
        fs::remove_file(&path).unwrap();
        match content {
            None => fs::remove_dir_all(path.parent().unwrap()).unwrap(),
            Some("dir") => fs::create_dir(&path).unwrap(),
            Some(text) => fs::write(&path, text).unwrap(),
        }
        bench.calls();
        let seen = bench.run("DEL", &a, &config);
        if content == Some("dir") {
            // The directory that cannot be removed is an error; everything else is done.
            seen.failed(5);
            fs::remove_dir(&path).unwrap();
            assert_eq!(bench.calls(), ["DEL boot", "DEL main"]);
            bench.run("DEL", &a, &config).silent();
        } else {
            seen.silent();
        }
        assert_eq!(bench.calls(), ["DEL boot", "DEL main"], "{content:?}");
        assert_eq!(
            bench.seen_json("main", "DEL"),
            json!({"type": "main", "name": "test-net", "cniVersion": "1.0.0"})
        );
        assert!(a.netns.links().is_empty(), "{content:?}");
        assert!(!path.parent().unwrap().exists());
    }
    // A plugin that is not installed does not make the DEL fail; a plugin that fails does.
    let a = sandbox_of("a");
    bench
        .run(
            "DEL",
            &a,
            &bench.config(json!({"boot_network": {"type": "missing"}})),
        )
        .silent();
    bench.fake("boot", &failing("DEL", 77));
    bench.run("DEL", &a, &config).failed(77);
    bench
        .run("DEL", &peer, &bench.ours("[]", json!({"name": "peers"})))
        .silent();
    bench.assert_clean();
}

#[test]
fn p44_del_that_fails() {
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    let peer = bench.ours("[]", json!({"name": "peers"}));
    bench.run("ADD", &b, &peer).json();
    bench.fake("boot", &failing("DEL", 77));
    let config = bench.ours(
        &link("eth1", "b"),
        json!({"boot_network": {"type": "boot", "k": [1.0]}}),
    );
    bench.run("ADD", &a, &config).json();
    let kept = fs::read(bench.state_file(&a)).unwrap();
    for _ in 0..2 {
        assert!(bench.run("DEL", &a, &config).failed(77).contains("because"));
        // The links are removed, and the state is unchanged.
        assert!(a.netns.links().is_empty());
        assert_eq!(
            (
                bench.sandboxes().len(),
                fs::read(bench.state_file(&a)).unwrap()
            ),
            (1, kept.clone())
        );
    }
    bench.fake("boot", &answering(ANSWER));
    bench.calls();
    bench.run("DEL", &a, &config).silent();
    assert_eq!(bench.calls(), ["DEL boot"]);
    assert_eq!(
        bench.seen("boot", "DEL", "stdin"),
        bench.seen("boot", "ADD", "stdin")
    );
    bench.run("DEL", &b, &peer).silent();
    bench.assert_clean();
}

#[test]
fn p45_words_of_unfinished_dels() {
    let bench = Bench::new();
    let a = sandbox_of("a");
    let fails_with = |script: &str| {
        bench.fake(
            "boot",
            &format!(
                "[ $CNI_COMMAND = DEL ] || {{ {}\nexit; }}\n{script}",
                answering(ANSWER)
            ),
        )
    };
    for script in [
        r#"echo '{"code":99,"msg":"device Not Found",
            "details":"open /x: No such file or directory"}'; exit 1"#,
        "echo 'lease not found; NOT FOUND' >&2; exit 1",
        "echo 'stat: no such file or directory'; exit 1",
    ] {
        for state in [true, false] {
            fails_with(script);
            let config = bench.config(json!({"delegate": {"type": "boot"}}));
            bench.run("ADD", &a, &config).json();
            if !state {
                fs::remove_dir_all(bench.node().state_dir.join("attachments")).unwrap();
            }
            let seen = bench.run("DEL", &a, &config);
            seen.error();
            let text = seen.stdout.to_ascii_lowercase();
            assert!(
                !text.contains("not found") && !text.contains("no such file or directory"),
                "{text}"
            );
            fails_with("exit 0");
            bench.run("DEL", &a, &config).silent();
        }
    }
    // The plugin that the state names is not installed any more. Its work cannot be undone, so this
    // is an error, without the words that a runtime takes for success.
    let config = bench.config(json!({"delegate": {"type": "boot"}}));
    bench.run("ADD", &a, &config).json();
    let program = bench.dir().join("fakes/boot");
    fs::rename(&program, program.with_extension("moved")).unwrap();
    let seen = bench.run("DEL", &a, &config);
    seen.failed(101);
    assert!(
        !seen.stdout.contains("not found") && !seen.stdout.contains("o such file"),
        "{}",
        seen.stdout
    );
    fs::rename(program.with_extension("moved"), &program).unwrap();
    bench.run("DEL", &a, &config).silent();
    bench.assert_clean();
}

#[test]
fn p46_prev_result_of_del() {
    let bench = Bench::with_agent();
    let a = sandbox();
    let garbage = [
        r#""x""#,
        "7",
        "[]",
        "null",
        "{}",
        r#"{"cniVersion":"9.9.9"}"#,
        r#"{"ips":[{"address":"x"}]}"#,
        r#"{"ips":7}"#,
    ];
    for version in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ] {
        for prev in garbage {
            // After an ADD, and without one.
            for added in [true, false] {
                let config = bench.ours("[]", json!({"cniVersion": version}));
                if added {
                    bench.run("ADD", &a, &config).json();
                }
                let mut stdin = config;
                stdin["prevResult"] = json!("PREV");
                let stdin = stdin.to_string().replace("\"PREV\"", prev);
                bench
                    .call("DEL", &a, &json!({}))
                    .stdin(stdin)
                    .run()
                    .silent();
                assert!(
                    bench.calls().contains(&"DEL main".to_owned()),
                    "{version} {prev}"
                );
            }
        }
    }
    bench.assert_clean();
}

#[test]
fn p47_del_without_store_or_agent() {
    let mut bench = Bench::with_agent();
    bench.cluster.nodes[0].kill_agent();
    bench.cluster.nodes[0].start_agent();
    let b = sandbox_of("b");
    let peer = bench.ours("[]", json!({}));
    bench.run("ADD", &b, &peer).json();
    for agent in [true, false] {
        let a = sandbox_of("a");
        let boot = json!({"boot_network": bench.bridge(), "child_path": "/bin/false"});
        let config = bench.ours(&link("eth1", "b"), boot);
        bench.run("ADD", &a, &config).json();
        assert_eq!(a.netns.links().keys().collect::<Vec<_>>(), ["eth0", "eth1"]);
        // Neither the store nor the agent can be reached.
        let holder = agent.then(|| hold(&bench.dir().join("store.db")));
        if !agent {
            bench.cluster.nodes[0].stop_agent();
        }
        let seen = bench.run("DEL", &a, &config);
        seen.silent();
        assert!(!a.netns.links().contains_key("eth0") && bench.leases().is_empty());
        if let Some(holder) = holder {
            release(holder);
        } else {
            assert!(seen.stderr.contains("later"), "{}", seen.stderr);
            bench.cluster.nodes[0].start_agent();
        }
        // GC does the rest; the store may still be recovering from its outage.
        let valid = json!([{"containerID": b.id, "ifname": "eth0"}]);
        let gc = bench.ours(
            "[]",
            json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}),
        );
        eventually("a GC that removes everything", || {
            bench.run("GC", &a, &gc).silent();
            let left = (a.netns.links().len(), bench.sandboxes().len());
            if left == (0, 1) {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        });
    }
    bench.run("DEL", &b, &peer).silent();
    bench.node().netns.sh("ip link del cni0");
    bench.assert_clean();
}

#[test]
fn p48_late_del() {
    let bench = Bench::with_agent();
    let boot = json!({"boot_network": bench.bridge()});
    let config = bench.ours(&link("eth1", "b"), boot.clone());
    let [old, new, b] = [sandbox_of("a"), sandbox_of("a"), sandbox_of("b")];
    bench.run("ADD", &b, &bench.ours("[]", boot)).json();
    bench.run("ADD", &old, &config).json();
    let result = bench.run("ADD", &new, &config).json();
    assert!(new.netns.ping("192.168.7.2"));
    // With its own namespace, with none, with the new sandbox's, and once more with its own.
    let late = || bench.call("DEL", &old, &config);
    for netns in [
        old.netns.path(),
        "".into(),
        new.netns.path(),
        old.netns.path(),
    ] {
        if netns == new.netns.path() {
            // The boot network cannot tell the two apart and would delete eth0 of this namespace,
            // so this DEL runs without it.
            let plain = bench.ours(&link("eth1", "b"), json!({}));
            bench
                .call("DEL", &old, &plain)
                .env("CNI_NETNS", &netns)
                .run()
                .silent();
        } else {
            late().env("CNI_NETNS", &netns).run().silent();
        }
        assert!(
            new.netns.ping("192.168.7.2") && new.netns.ping("10.77.0.1"),
            "{netns:?}"
        );
        let mut check = config.clone();
        check["prevResult"] = result.clone();
        bench.run("CHECK", &new, &check).silent();
    }
    assert!(old.netns.links().is_empty());
    for pod in [&new, &b] {
        bench.run("DEL", pod, &config).silent();
    }
    bench.node().netns.sh("ip link del cni0");
    bench.assert_clean();
}

#[test]
fn p49_order_of_del() {
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    let peer = bench.ours("[]", json!({"name": "peers"}));
    bench.run("ADD", &b, &peer).json();
    // Each plugin records whether the link exists when it is called.
    let look = "nsenter --net=$CNI_NETNS ip link show eth1 >/dev/null 2>&1 && echo link >>$S/calls";
    for kind in ["one", "two", "three"] {
        bench.fake(kind, &format!("{look}\n{}", answering(ANSWER)));
    }
    let list = json!({"cniVersion": "1.0.0", "name": "list", "plugins": [{"type": "one"},
        {"type": "two"}, {"type": "three"}]});
    let config = bench.ours(&link("eth1", "b"), json!({"boot_network": list}));
    bench.calls();
    bench.run("ADD", &a, &config).json();
    assert_eq!(bench.calls(), ["ADD one", "ADD two", "ADD three"]);
    assert_eq!(
        bench.seen_json("two", "ADD")["prevResult"]["ips"][0]["address"],
        "10.1.0.2/24"
    );
    assert_eq!(a.netns.links().len(), 1);
    let mut check = config.clone();
    check["prevResult"] = json!({"cniVersion": "1.0.0"});
    bench.run("CHECK", &a, &check).silent();
    assert_eq!(
        bench.calls(),
        [
            "CHECK one",
            "link",
            "CHECK two",
            "link",
            "CHECK three",
            "link"
        ]
    );
    bench.run("DEL", &a, &config).silent();
    assert_eq!(bench.calls(), ["DEL three", "DEL two", "DEL one"]);
    // The same without state. The delegate is called last, as the pod may have been one that is not
    // Ratchet's.
    bench.run("DEL", &a, &config).silent();
    assert_eq!(
        bench.calls(),
        ["DEL three", "DEL two", "DEL one", "DEL main"]
    );
    bench.run("DEL", &b, &peer).silent();
    let plain =
        bench.config(json!({"runtimeConfig": annotated("[]"), "delegate": {"type": "main"}}));
    bench.run("DEL", &b, &plain).silent();
    bench.assert_clean();
}
