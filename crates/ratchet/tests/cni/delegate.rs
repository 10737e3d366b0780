//! Points 13 to 17 and 21: how a delegate is called and found, and how its answer is converted.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json, value::RawValue};

use crate::{
    answer::answer,
    bench::{ANSWER, Bench, answering, sandbox},
    support::eventually,
};

#[test]
fn p13_stdin_of_the_delegate() {
    let bench = Bench::new();
    let sandbox = sandbox();
    // Nested and unknown keys, numbers that do not fit into a float, repeated keys, white space:
    // all of it is passed unchanged.
    let embedded = r#"{ "type":"main" , "big": 12345678901234567890.10,
  "nested":{"a":[1.50,{"b":null}],"a":2}, "é":"\u00e9" }"#;
    let outer = bench
        .config(json!({"delegate": null, "mtu": 1400, "log_level": "debug"}))
        .to_string();
    let stdin = format!(
        "{},\"delegate\":{embedded}}}",
        outer.strip_suffix('}').unwrap()
    );
    for verb in ["ADD", "DEL"] {
        let seen = bench
            .call(verb, &sandbox, &json!({}))
            .stdin(stdin.as_str())
            .run();
        assert_eq!(seen.status, Some(0), "{seen:?}");
        let body = embedded.strip_suffix(" }").unwrap();
        let expected = format!(r#"{body},"name":"test-net","cniVersion":"1.0.0"}}"#);
        assert_eq!(bench.seen("main", verb, "stdin"), expected);
    }
    // The delegate's own name and version stay. Of the runtime's values it gets those whose
    // capabilities it declares.
    let own = json!({"type": "main", "name": "own", "cniVersion": "0.4.0",
        "capabilities": {"mac": true, "ips": false}});
    let config = bench.config(
        json!({"delegate": own, "runtimeConfig": {"mac": "02:00:00:00:00:09", "ips": ["x"]}}),
    );
    bench.run("ADD", &sandbox, &config).json();
    let mut expected = own;
    expected["runtimeConfig"] = json!({"mac": "02:00:00:00:00:09"});
    assert_eq!(bench.seen_json("main", "ADD"), expected);
    bench.run("DEL", &sandbox, &config).silent();
    assert_eq!(bench.seen_json("main", "DEL"), expected);
}

#[test]
fn p14_environment_of_the_delegate() {
    let bench = Bench::new();
    let sandbox = sandbox();
    bench.fake(
        "main",
        &format!(
            "readlink /proc/self/ns/net >$S/ns; pwd >$S/pwd\n{}",
            answering(ANSWER)
        ),
    );
    let call = bench.call("ADD", &sandbox, &bench.config(json!({})));
    let call = call
        .env("TRACEPARENT", "00-ab")
        .env("EMPTY", "")
        .env("CNI_NETNS_OVERRIDE", "");
    let passed: BTreeMap<String, String> = call
        .command
        .get_envs()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.unwrap().to_string_lossy().into_owned(),
            )
        })
        .collect();
    call.run().json();
    let recorded = bench.seen("main", "ADD", "env");
    let recorded: BTreeMap<&str, &str> = recorded
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    for (name, value) in &passed {
        assert_eq!(recorded.get(name.as_str()), Some(&value.as_str()), "{name}");
    }
    // Nothing is added, except for the variables that the shell sets.
    let foreign = recorded
        .keys()
        .filter(|name| !passed.contains_key(**name) && std::env::var_os(name).is_none());
    let foreign: Vec<_> = foreign
        .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let inode = fs::metadata(bench.node().netns.path()).unwrap().ino();
    let read = |name: &str| fs::read_to_string(bench.dir().join("seen").join(name)).unwrap();
    assert_eq!(read("ns").trim(), format!("net:[{inode}]"));
    assert_eq!(
        Path::new(read("pwd").trim()),
        std::env::current_dir().unwrap()
    );
    bench
        .run("DEL", &sandbox, &bench.config(json!({})))
        .silent();
    assert!(
        bench
            .seen("main", "DEL", "env")
            .contains("CNI_COMMAND=DEL\n")
    );
}

#[test]
fn p15_finding_the_delegate() {
    let bench = Bench::new();
    let sandbox = sandbox();
    // A program that a path in the type would find. It records that it ran.
    bench.program("evil", "#!/bin/sh\necho ADD evil >>\"$CNI_TEST_CALLS\"");
    for kind in [
        "", ".", "..", "a/b", "../x", "../evil", "/bin/sh", "a\\b", "a\0b",
    ] {
        for delegate in [
            json!({"type": kind}),
            json!({"plugins": [{"type": "main"}, {"type": kind}]}),
        ] {
            let config = bench.config(json!({"delegate": delegate}));
            let call = bench
                .call("ADD", &sandbox, &config)
                .env("CNI_TEST_CALLS", bench.dir().join("seen/calls"));
            call.run().failed(7);
        }
    }
    assert_eq!((bench.calls(), bench.state()), (vec![], vec![]));

    // The directories are searched in order. Directories of the plugin's name and empty segments
    // (which would be the working directory) are skipped.
    let answer = |dir: &str| answering(&format!(r#"{{"cniVersion":"1.0.0","from":"{dir}"}}"#));
    let script = |dir: &str| format!("#!/bin/sh\ncat >/dev/null\n{}", answer(dir));
    for dir in ["one", "two"] {
        bench.program(&format!("{dir}/x"), &script(dir));
    }
    fs::create_dir_all(bench.dir().join("zero/x")).unwrap();
    let config = bench.config(json!({"delegate": {"type": "x"}}));
    let dir = |name: &str| bench.dir().join(name).display().to_string();
    for (dirs, first) in [
        (["zero", "one", "two"], "one"),
        (["two", "zero", "one"], "two"),
    ] {
        let path = dirs.map(dir).join("::");
        let mut call = bench
            .call("ADD", &sandbox, &config)
            .env("CNI_PATH", format!(":{path}:"));
        call.command
            .current_dir(bench.dir().join(if first == "one" { "two" } else { "one" }));
        assert_eq!(call.run().json()["from"], first);
        bench
            .call("DEL", &sandbox, &config)
            .env("CNI_PATH", path)
            .run()
            .silent();
    }
    let path = ["zero", "fakes"].map(dir).join(":");
    let text = bench
        .call("ADD", &sandbox, &config)
        .env("CNI_PATH", &path)
        .run()
        .failed(101);
    assert!(text.contains("\"x\"") && text.contains(&path), "{text}");
    bench.assert_clean();
}

#[test]
fn p16_busy_program_and_much_output() {
    let bench = Bench::new();
    let sandbox = sandbox();
    // The program is open for writing when the plugin starts it (ETXTBSY).
    let busy = fs::OpenOptions::new()
        .append(true)
        .open(bench.dir().join("fakes/main"))
        .unwrap();
    let mut call = bench.call("ADD", &sandbox, &bench.config(json!({})));
    let stdin = fs::File::create_new(bench.dir().join("stdin")).unwrap();
    fs::write(bench.dir().join("stdin"), &call.stdin).unwrap();
    drop(stdin);
    call.command
        .stdin(fs::File::open(bench.dir().join("stdin")).unwrap());
    let child = call
        .command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It sleeps after its first try.
    let sleeping =
        [nix::libc::SYS_clock_nanosleep, nix::libc::SYS_nanosleep].map(|number| number.to_string());
    eventually("a plugin that sleeps between two tries", || {
        let now = fs::read_to_string(format!("/proc/{}/syscall", child.id())).unwrap_or_default();
        let number = now.split(' ').next().unwrap_or_default().to_owned();
        if sleeping.contains(&number) {
            Ok(())
        } else {
            Err(now)
        }
    });
    drop(busy);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(bench.calls(), ["ADD main"]);
    bench
        .run("DEL", &sandbox, &bench.config(json!({})))
        .silent();

    // 1 MiB in each direction, and stdin is read last.
    let mib = "head -c 1048576 /dev/zero | tr '\\0'";
    let flood = format!(
        "#!/bin/sh\n{mib} e >&2\nif [ $CNI_COMMAND = ADD ]; then printf \
         '{{\"cniVersion\":\"1.0.0\",\"pad\":\"'; {mib} o; printf '\"}}'; fi\nwc -c >{}\n",
        bench.dir().join("seen/read").display()
    );
    bench.program("fakes/flood", &flood);
    let config = bench.config(json!({"delegate": {"type": "flood", "pad": "i".repeat(1 << 20)}}));
    for verb in ["ADD", "DEL"] {
        let seen = bench.run(verb, &sandbox, &config);
        assert_eq!(seen.status, Some(0), "{}", seen.stdout);
        assert_eq!(seen.stderr.matches('e').count(), 1 << 20);
        if verb == "ADD" {
            assert_eq!(seen.json()["pad"].as_str().unwrap().len(), 1 << 20);
        }
        let read = fs::read_to_string(bench.dir().join("seen/read")).unwrap();
        assert!(read.trim().parse::<usize>().unwrap() > 1 << 20, "{read}");
    }
}

/// By body, by the answer's version, by the config's version: an index into the results, or -1.
type Table = BTreeMap<String, BTreeMap<String, [i64; 7]>>;

/// Converts every answer of every golden file to two of the seven versions, alternating. A unit
/// test of crates/cni converts to all seven.
#[test]
fn p17_conversion_matrix() {
    const VERSIONS: [&str; 7] = [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ];
    let bench = Bench::new();
    let sandbox = sandbox();
    bench.program(
        "fakes/answers",
        "#!/bin/sh\n[ $CNI_COMMAND = ADD ] && cat \"$ANSWER\"\ncat >/dev/null\n",
    );
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cni/tests/golden");
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    paths.sort();
    let (mut rows, mut wrong) = (0, Vec::new());
    for path in &paths {
        // Made by CNI's Go library. The README of the generator explains the members.
        let golden: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let bodies: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(golden["bodies"].get()).unwrap();
        let results: Vec<Value> = serde_json::from_str(golden["outputs"].get()).unwrap();
        let table: Table = serde_json::from_str(golden["table"].get()).unwrap();
        for (body, answers) in &table {
            for (from, outputs) in answers {
                let answer = answer(bodies[body].get(), from);
                fs::write(bench.dir().join("answer"), &answer).unwrap();
                for at in [rows % 7, (rows + 4) % 7] {
                    rows += 1;
                    let to = VERSIONS[at];
                    let config =
                        bench.config(json!({"cniVersion": to, "delegate": {"type": "answers"}}));
                    let call = bench
                        .call("ADD", &sandbox, &config)
                        .env("ANSWER", bench.dir().join("answer"));
                    let seen = call.env("CNI_CONTAINERID", format!("c{rows}")).run();
                    let theirs = usize::try_from(outputs[at])
                        .ok()
                        .map(|index| &results[index]);
                    let agree = match theirs {
                        None => seen.error()["code"].is_u64(),
                        Some(_) if from == to && answer != "null" => seen.stdout == answer,
                        Some(theirs) => {
                            let mut ours = seen.json();
                            ours.as_object_mut().unwrap().remove("cniVersion") == Some(json!(to))
                                && ours == *theirs
                        }
                    };
                    if !agree {
                        wrong.push(format!(
                            "{}: {body} {from:?} -> {to}: {seen:?}",
                            path.display()
                        ));
                    }
                }
            }
        }
    }
    assert!(rows >= 500, "only {rows}");
    assert!(
        wrong.is_empty(),
        "{} of {rows} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn p21_capabilities() {
    const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
    let bench = Bench::new();
    let sandbox = sandbox();
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    for (capabilities, passed) in [
        (
            json!({"portMappings": true}),
            json!({"portMappings": ports}),
        ),
        (
            json!({"portMappings": true, "bandwidth": true}),
            json!({"portMappings": ports}),
        ),
        (json!({"portMappings": false}), Value::Null),
        (json!({"PortMappings": true}), Value::Null),
        (Value::Null, Value::Null),
    ] {
        let delegate = json!({"type": "main", "capabilities": capabilities});
        let config = bench.config(
            json!({"delegate": delegate, "runtimeConfig": {"portMappings": ports, "dns": {}}}),
        );
        bench.run("ADD", &sandbox, &config).json();
        assert_eq!(
            bench.seen_json("main", "ADD")["runtimeConfig"],
            passed,
            "{capabilities}"
        );
        bench.run("DEL", &sandbox, &config).silent();
    }
    let long = "x".repeat(256 << 10);
    let declared = json!({"type": "main", "capabilities": {ANNOTATIONS: true}});
    for runtime in [
        Value::Null,
        json!({}),
        json!({ANNOTATIONS: null}),
        json!({ANNOTATIONS: {}}),
        json!({ANNOTATIONS: {"note": long}}),
    ] {
        let config = bench.config(json!({"delegate": declared, "runtimeConfig": runtime}));
        bench.run("ADD", &sandbox, &config).json();
        assert_eq!(
            bench.seen_json("main", "ADD")["runtimeConfig"][ANNOTATIONS],
            runtime[ANNOTATIONS]
        );
        bench.run("DEL", &sandbox, &config).silent();
    }
    // The annotations of a pod of Ratchet.
    let mut config = bench.ours("[]", json!({"delegate": declared}));
    config["runtimeConfig"][ANNOTATIONS]["note"] = json!(long);
    bench.run("ADD", &sandbox, &config).json();
    bench.run("DEL", &sandbox, &config).silent();
    bench.assert_clean();
}
