//! Points 1 to 12: the protocol itself.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    bench::{Bench, Seen, sandbox},
    support::RATCHET,
};

const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

/// Runs the binary by a shell command, with exactly this environment.
fn shell(line: &str, env: &[(&str, &str)]) -> Seen {
    let output = Command::new("/bin/sh")
        .arg("-c")
        .arg(line)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Seen {
        status: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

#[test]
fn p01_version() {
    // libcni's probe.
    let env = [
        ("CNI_COMMAND", "VERSION"),
        ("CNI_CONTAINERID", ""),
        ("CNI_NETNS", "dummy"),
        ("CNI_IFNAME", "dummy"),
        ("CNI_PATH", "dummy"),
    ];
    for (stdin, echoed) in [
        (r#"printf '{"cniVersion":"1.1.0"}' | "#, "1.1.0"),
        (r#"printf '{"cniVersion":"0.4.0"}' | "#, "0.4.0"),
        (r#"printf '{"cniVersion":"rubbish"}' | "#, "1.1.0"),
        ("printf '' | ", "1.1.0"),
        ("exec 0<&-; ", "1.1.0"),
    ] {
        let seen = shell(&format!("{stdin}{RATCHET}"), &env);
        assert_eq!(
            seen.json(),
            json!({"cniVersion": echoed, "supportedVersions": VERSIONS}),
            "{stdin}"
        );
        assert_eq!(seen.stdout.lines().count(), 1);
    }
    shell(RATCHET, &[("CNI_COMMAND", "VERSION")]).json();
}

#[test]
fn p02_versions() {
    let bench = Bench::new();
    let sandbox = sandbox();
    for version in VERSIONS {
        let config = bench.config(json!({"cniVersion": version}));
        let result = bench.run("ADD", &sandbox, &config).json();
        assert_eq!(result["cniVersion"], version);
        let checked = bench.run(
            "CHECK",
            &sandbox,
            &bench.config(json!({"cniVersion": version, "prevResult": result})),
        );
        if version >= "0.4.0" {
            checked.silent()
        } else {
            drop(checked.failed(1))
        }
        bench.run("DEL", &sandbox, &config).silent();
    }
    bench.calls();
    for version in ["1.2.0", "0.5.0", "1.0.1", "abc", "1.0", "v1.0.0", " 1.0.0"] {
        for verb in ["ADD", "CHECK", "DEL", "GC", "STATUS"] {
            let error = bench
                .run(
                    verb,
                    &sandbox,
                    &bench.config(json!({"cniVersion": version})),
                )
                .error();
            assert!(
                [1, 6].contains(&error["code"].as_u64().unwrap()),
                "{verb} {version}: {error}"
            );
        }
    }
    bench
        .run("ADD", &sandbox, &bench.config(json!({"cniVersion": 1})))
        .failed(6);
    assert_eq!(bench.calls(), Vec::<String>::new());
    let without = bench.config(json!({"cniVersion": null}));
    let result = bench.run("ADD", &sandbox, &without).json();
    assert_eq!(
        (&result["cniVersion"], &result["ip4"]["ip"]),
        (&json!("0.1.0"), &json!("10.1.0.2/24"))
    );
    bench.run("DEL", &sandbox, &without).silent();
    bench.assert_clean();
}

#[test]
fn p03_command() {
    for env in [&[][..], &[("CNI_COMMAND", "")]] {
        let seen = shell(RATCHET, env);
        assert_eq!(
            (seen.status, seen.stdout.as_str()),
            (Some(0), ""),
            "{seen:?}"
        );
        assert!(
            seen.stderr.starts_with("ratchet ") && seen.stderr.contains("0.1.0, 0.2.0"),
            "{seen:?}"
        );
    }
    let bench = Bench::new();
    let sandbox = sandbox();
    for verb in ["FOO", "add", "ADD "] {
        let text = bench
            .run(verb, &sandbox, &bench.config(json!({})))
            .failed(4);
        assert!(
            text.contains(&format!("unknown CNI_COMMAND: {verb}")),
            "{text}"
        );
    }
}

#[test]
fn p04_required_variables() {
    let bench = Bench::new();
    let sandbox = sandbox();
    let all = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"];
    let table = [
        ("ADD", &all[..]),
        ("CHECK", &all),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
        ("GC", &["CNI_PATH"]),
        ("STATUS", &["CNI_PATH"]),
    ];
    let config = bench.config(json!({"cniVersion": "1.1.0"}));
    for (verb, required) in table {
        // Each one and all of them, unset and empty.
        let sets: Vec<Vec<&str>> = required
            .iter()
            .map(|name| vec![*name])
            .chain([all.to_vec()])
            .collect();
        for set in sets {
            let named: Vec<&str> = required
                .iter()
                .copied()
                .filter(|name| set.contains(name))
                .collect();
            for is_set in [false, true] {
                let call = bench.call(verb, &sandbox, &config);
                let change = |call: crate::bench::Call, name: &&str| match is_set {
                    true => call.env(name, ""),
                    false => call.unset(name),
                };
                let text = set.iter().fold(call, change).run().failed(4);
                let expected = format!("required env variables [{}] missing", named.join(","));
                assert!(text.contains(&expected), "{verb}: {text}");
            }
        }
    }
    // GC and STATUS as libcni calls them.
    let config = bench.config(
        json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": [],
            "delegate": {"type": "main"}}),
    );
    for verb in ["GC", "STATUS"] {
        let call = bench.call(verb, &sandbox, &config);
        let names = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
        names
            .iter()
            .fold(call, |call, name| call.env(name, ""))
            .run()
            .silent();
    }
}

#[test]
fn p05_container_ids() {
    let bench = Bench::new();
    let sandbox = sandbox();
    let config = bench.config(json!({}));
    for verb in ["ADD", "CHECK", "DEL"] {
        for id in ["../x", "-a", "a b", "a/b", "é", "a\n", ".", "_a"] {
            let seen = bench
                .call(verb, &sandbox, &config)
                .env("CNI_CONTAINERID", id)
                .run();
            seen.failed(4);
            assert_eq!(seen.error()["details"], id);
        }
    }
    assert_eq!(bench.calls(), Vec::<String>::new());
    for id in ["A", "a.b-c_d", &"0123456789abcdef".repeat(4)] {
        bench
            .call("ADD", &sandbox, &config)
            .env("CNI_CONTAINERID", id)
            .run()
            .json();
        bench
            .call("DEL", &sandbox, &config)
            .env("CNI_CONTAINERID", id)
            .run()
            .silent();
    }
    bench.assert_clean();
}

#[test]
fn p06_interface_names() {
    let bench = Bench::new();
    let sandbox = sandbox();
    let config = bench.config(json!({}));
    for verb in ["ADD", "CHECK", "DEL"] {
        for name in [
            "abcdefghijklmnop",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "a\u{a0}b",
            "éééééééé",
        ] {
            bench
                .call(verb, &sandbox, &config)
                .env("CNI_IFNAME", name)
                .run()
                .failed(4);
        }
    }
    assert_eq!(bench.calls(), Vec::<String>::new());
    for name in ["abcdefghijklmno", "ééééééé"] {
        bench
            .call("ADD", &sandbox, &config)
            .env("CNI_IFNAME", name)
            .run()
            .json();
        bench
            .call("DEL", &sandbox, &config)
            .env("CNI_IFNAME", name)
            .run()
            .silent();
    }
    bench.assert_clean();
}

#[test]
fn p07_stdin() {
    let bench = Bench::new();
    let sandbox = sandbox();
    let fails = |verb: &str, stdin: &str, code: u64| {
        bench
            .call(verb, &sandbox, &json!({}))
            .stdin(stdin)
            .run()
            .failed(code)
    };
    for verb in ["ADD", "CHECK", "DEL", "GC", "STATUS"] {
        for stdin in [
            "",
            "garbage",
            "[]",
            "1",
            "\"x\"",
            r#"{"cniVersion":"1.1.0","name":"n"} x"#,
            "{",
        ] {
            fails(verb, stdin, 6);
        }
        for name in [
            "",
            r#","name":"""#,
            r#","name":".x""#,
            r#","name":"a/b""#,
            r#","name":null"#,
        ] {
            fails(
                verb,
                &format!(r#"{{"cniVersion":"1.1.0","type":"ratchet"{name}}}"#),
                7,
            );
        }
    }
    for (key, value) in [
        ("delegate", json!("bridge")),
        ("delegate", json!({"type": 1})),
        ("boot_network", json!([])),
        ("mtu", json!("x")),
        ("mtu", json!(1)),
        ("use_labels", json!("perhaps")),
        ("socket", json!("relative")),
        ("state_dir", json!(7)),
        ("store", json!("mysql://x")),
        ("parent_address", json!("10.0.0.1/24")),
        ("parent_interface", json!("a/b")),
        ("child_path", json!({})),
        ("log_level", json!("loud")),
        ("etcd_port", json!("http")),
    ] {
        let mut more = json!({});
        more[key] = value;
        let text = bench.run("ADD", &sandbox, &bench.config(more)).failed(7);
        assert!(text.contains(&format!("{key:?}")), "{text}");
    }
    assert_eq!(bench.calls(), Vec::<String>::new());
    bench.assert_clean();
}

#[test]
fn p08_verbs_of_later_versions() {
    let bench = Bench::new();
    let sandbox = sandbox();
    for (verb, since) in [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")] {
        for version in VERSIONS.into_iter().filter(|version| *version < since) {
            let more =
                json!({"cniVersion": version, "cni.dev/valid-attachments": [], "prevResult": {}});
            let text = bench.run(verb, &sandbox, &bench.config(more)).failed(1);
            assert!(text.contains(version) && text.contains(verb), "{text}");
        }
    }
    assert_eq!(bench.calls(), Vec::<String>::new());
}

#[test]
fn p09_errors() {
    let bench = Bench::new();
    let sandbox = sandbox();
    // Every error is one document on stdout (`Seen::error`), in the config's version if it has one.
    let version_of = |seen: Seen| seen.error()["cniVersion"].as_str().unwrap().to_owned();
    let bad = |version: Value| bench.config(json!({"cniVersion": version, "mtu": "x"}));
    for version in VERSIONS {
        assert_eq!(
            version_of(bench.run("ADD", &sandbox, &bad(json!(version)))),
            version
        );
        let call = bench
            .call("ADD", &sandbox, &bad(json!(version)))
            .unset("CNI_IFNAME");
        assert_eq!(version_of(call.run()), version);
    }
    assert_eq!(
        version_of(bench.run("ADD", &sandbox, &bad(json!("9.9.9")))),
        "1.1.0"
    );
    assert_eq!(
        version_of(
            bench
                .call("ADD", &sandbox, &json!({}))
                .stdin("garbage")
                .run()
        ),
        "1.1.0"
    );
    // Debug logs, a backtrace and the output of an embedded plugin do not get onto stdout.
    bench.fake(
        "loud",
        "echo text on stderr >&2; echo '{\"code\":42,\"msg\":\"m\"}'; exit 3",
    );
    let log = bench.dir().join("plugin.log");
    let config = bench.config(
        json!({"delegate": {"type": "loud"}, "log_level": "trace", "log_file": log, "odd_key": 1}),
    );
    let call = bench.call("ADD", &sandbox, &config);
    let seen = call
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "full")
        .env("RATCHET_LOG", "trace")
        .run();
    seen.failed(42);
    assert!(
        seen.stderr.contains("text on stderr") && seen.stderr.contains("odd_key"),
        "{}",
        seen.stderr
    );
    // An error with exit status 0 still is an error: a runtime would take it for an empty result.
    bench.fake("zero", "echo '{\"code\":43,\"msg\":\"m\"}'");
    bench
        .run(
            "ADD",
            &sandbox,
            &bench.config(json!({"delegate": {"type": "zero"}})),
        )
        .failed(43);
}

#[test]
fn p10_outputs() {
    let bench = Bench::with_agent();
    let sandbox = sandbox();
    for config in [
        bench.config(json!({"cniVersion": "1.1.0"})),
        bench.ours("[]", json!({"cniVersion": "1.1.0"})),
    ] {
        let result = bench.run("ADD", &sandbox, &config).json();
        let mut with = config.clone();
        with["prevResult"] = result;
        bench.run("CHECK", &sandbox, &with).silent();
        bench.run("STATUS", &sandbox, &config).silent();
        bench.run("DEL", &sandbox, &with).silent();
        with["cni.dev/valid-attachments"] = json!([]);
        bench.run("GC", &sandbox, &with).silent();
    }
    // The output of an embedded plugin on DEL is not passed on.
    bench.fake("chatty", "echo '{}'");
    bench
        .run(
            "DEL",
            &sandbox,
            &bench.config(json!({"delegate": {"type": "chatty"}})),
        )
        .silent();
    assert!(bench.calls().contains(&"DEL chatty".to_owned()));
    bench.assert_clean();
}

#[test]
fn p11_own_namespace() {
    let bench = Bench::new();
    let sandbox = sandbox();
    let config = bench.config(json!({}));
    let own = bench.node().netns.path().display().to_string();
    let before = bench.node().netns.links();
    for verb in ["ADD", "DEL"] {
        // By the kernel's paths, and by a bind mount.
        for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net", &own] {
            let text = bench
                .call(verb, &sandbox, &config)
                .env("CNI_NETNS", path)
                .run()
                .failed(8);
            assert!(text.contains("should not be the same"), "{text}");
        }
    }
    assert_eq!(bench.calls(), Vec::<String>::new());
    bench.assert_clean();
    assert_eq!(
        bench.node().netns.links().keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    for value in ["1", "TRUE", "true"] {
        let call = |verb| {
            bench
                .call(verb, &sandbox, &config)
                .env("CNI_NETNS", &own)
                .env("CNI_NETNS_OVERRIDE", value)
        };
        call("ADD").run().json();
        call("DEL").run().silent();
    }
    bench
        .call("ADD", &sandbox, &config)
        .env("CNI_NETNS", &own)
        .env("CNI_NETNS_OVERRIDE", "0")
        .run()
        .failed(8);
}

#[test]
fn p12_no_namespace() {
    let bench = Bench::with_agent();
    let sandbox = sandbox();
    let file = bench.dir().join("file");
    std::fs::write(&file, "").unwrap();
    // bridge, ptp and all others report it themselves. For its own pods, Ratchet reports it before
    // they run.
    let real = bench.config(json!({"delegate": bench.bridge()}));
    for netns in [
        "/run/netns/rt-not-there".as_ref(),
        file.as_path(),
        bench.dir(),
    ] {
        bench
            .call("ADD", &sandbox, &bench.ours("[]", json!({})))
            .env("CNI_NETNS", netns)
            .run()
            .failed(8);
        assert_eq!(bench.calls(), Vec::<String>::new());
        bench
            .call("ADD", &sandbox, &real)
            .env("CNI_NETNS", netns)
            .run()
            .error();
        assert_eq!(bench.leases(), Vec::<String>::new());
        assert_eq!((bench.state(), bench.sandboxes()), (vec![], vec![]));
    }
}
