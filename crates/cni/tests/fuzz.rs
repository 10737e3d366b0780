//! Input that is nearly what runtimes and other plugins send: every call ends in one document, and
//! never in a panic. `make fuzz` gives each target a million inputs.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../model/tests/mutate/mod.rs"]
mod mutate;

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use proptest::prelude::*;
use ratchet_cni::{
    Caller, CniResult, Config, Embedded, Environment, Error, Invocation, Object, Outer, Output,
    Plugin, Request, Verb, Version,
};
use serde_json::{Value, value::RawValue};

const CONFIGS: &[&str] = &[
    r#"{"cniVersion":"1.0.0","name":"n","type":"ratchet","delegate":{"type":"bridge",
        "ipam":{"type":"host-local"}}}"#,
    r#"{"name":"ratchet-demo","type":"ratchet","etcd_host":"h","etcd_port":"2379",
        "child_path":"/opt/cni/bin/ratchet-child",
        "parent_interface":"eth0","parent_address":"192.168.1.73","use_labels":true,
        "delegate":{"name":"cbr0","type":"flannel","delegate":{"isDefaultGateway":true}},
        "boot_network":{"type":"loopback"}}"#,
    r#"{"cniVersion":"1.1.0","name":"n","type":"ratchet",
        "runtimeConfig":{"portMappings":[{"hostPort":1}],
        "io.kubernetes.cri.pod-annotations":{"ratchet.dev/links":"[]"}},
        "capabilities":{"portMappings":true},
        "args":{"cni":{"labels":[{"key":"ratchet","value":"true"}]}},
        "boot_network":{"cniVersion":"0.4.0","name":"in","disableCheck":true,"disableGC":false,
        "plugins":[{"type":"ptp","capabilities":{"portMappings":true}},{"type":"portmap"}]},
        "cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}],
        "cni.dev/attachments":null}"#,
    r#"{"cniVersion":"0.4.0","name":"n","type":"ratchet","dns":{"nameservers":["1.1.1.1"]},
        "prevResult":{"cniVersion":"0.4.0",
        "interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/n"}],
        "ips":[{"version":"4","address":"10.0.0.2/24","gateway":"","interface":0}],
        "routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1"}]}}"#,
    r#"{"cniVersion":"0.2.0","name":"n","type":"ratchet","prevResult":{"ip4":{"ip":"10.0.0.2/24",
        "routes":[{"dst":"::/0"}]}}}"#,
];

const RESULTS: &[&str] = &[
    "{}",
    r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24","gateway":"10.0.0.1",
        "routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1"}]},
        "ip6":{"ip":"fd00::2/64","routes":[{"dst":"::/0"}]},"dns":{"nameservers":["1.1.1.1"],
        "domain":"d","search":["s"],"options":["o"]}}"#,
    r#"{"cniVersion":"0.4.0","interfaces":[{"name":"br0"},{"name":"eth0","mac":"02:00:00:00:00:01",
        "sandbox":"/n"}],
        "ips":[{"version":"6","address":"fd00::2/64","interface":1},{"version":"4",
        "address":"10.0.0.2/24","gateway":"","interface":-1}],
        "routes":null,"dns":{}}"#,
    r#"{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","mtu":1500,"socketPath":"/s",
        "pciID":"0000:00:01.0","sandbox":"/n"}],
        "ips":[{"address":"::ffff:10.0.0.2/120","interface":0}],
        "routes":[{"dst":"10.0.0.0/8","gw":"10.0.0.1","mtu":1400,"advmss":1360,"priority":5,
        "table":100,"scope":0}]}"#,
];

const TOKENS: &[&str] = &[
    "\"cniVersion\":null,",
    "\"CNIVersion\":\"1.0.0\",",
    "\"name\":\"x\",",
    "\"prevResult\":{},",
    "\"ips\":null,",
    "cniVersion",
    "name",
    "type",
    "plugins",
    "prevResult",
    "delegate",
    "capabilities",
    "runtimeConfig",
    "ips",
    "interfaces",
    "routes",
    "ip4",
    "ip6",
    "0.1.0",
    "0.2.0",
    "0.3.1",
    "0.4.0",
    "1.0.0",
    "1.1.0",
    "1.2.0",
    "1.0",
    "a/b",
    "../x",
    "..",
    "",
    "10.0.0.1/24",
    "10.0.0.1/33",
    "::ffff:1.2.3.4/120",
    "fd00::1/64",
    "0000",
    "containerID",
    "é",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "{\"a\":",
];

const ARGS: &[&str] = &[
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME=r1;\
     K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u",
    "K8S_POD_NAME=a;K8S_POD_NAME=b;",
    "A=x=y;;junk;=v;B=",
    "",
];
const ARGS_TOKENS: &[&str] = &[
    "=",
    ";",
    "K8S_POD_NAME",
    "K8S_POD_NAMESPACE=",
    "IgnoreUnknown=true",
    " ",
    "\n",
    "\u{0}",
    "é",
    "%",
    "/",
    "..",
    "==",
    ";;",
];

const VERBS: [&str; 9] = [
    "ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "add", "FOO", "",
];
const IDS: [&str; 6] = ["c1", "", "../x", "a b", "-a", "é"];
const IFNAMES: [&str; 7] = ["eth0", "", "..", "a/b", "a:b", "0123456789abcdef", "a b"];

/// A plugin that reads everything in a call, and does nothing.
struct Reader;

/// Everything that can be read from a config.
fn read(request: &Request) -> Result<Option<CniResult>, Error> {
    let config = &request.config;
    let prev = config.prev_result();
    let caller = Caller::new(&request.env);
    for key in ["delegate", "boot_network"] {
        let Some(raw) = config.raw_key(key) else {
            continue;
        };
        let embedded = Embedded::parse(raw, &Outer::of(config)?)?;
        for prev in [None, prev.as_ref().ok().and_then(Option::as_ref)] {
            for plugin in embedded.render(&caller, prev)?.plugins {
                // An embedded plugin always gets JSON. (Not a `Value`: a lone surrogate is passed
                // on unchanged.)
                assert!(
                    serde_json::from_str::<&RawValue>(&plugin.stdin).is_ok(),
                    "{}",
                    plugin.stdin
                );
            }
        }
    }
    config.runtime_config()?;
    config.args()?;
    config.valid_attachments()?;
    config.field::<String>("type")?;
    prev
}

impl Plugin for Reader {
    fn about(&self) -> String {
        "reader".into()
    }
    fn add(&self, request: &Request) -> Result<Output, Error> {
        Ok(Output::Result(read(request)?.unwrap_or_else(|| {
            CniResult::new(request.config.version())
        })))
    }
    fn del(&self, request: &Request) -> Result<(), Error> {
        read(request).map(drop)
    }
    fn check(&self, request: &Request) -> Result<(), Error> {
        read(request).map(drop)
    }
    fn gc(&self, request: &Request) -> Result<(), Error> {
        read(request).map(drop)
    }
    fn status(&self, request: &Request) -> Result<(), Error> {
        read(request).map(drop)
    }
}

/// The codes that a reading plugin may answer with: the specification's, skel's for the namespace,
/// and none for a panic.
const CODES: [u64; 8] = [1, 2, 4, 5, 6, 7, 8, 110];

fn check_call(verb: &str, status: u8, stdout: &[u8]) -> Result<(), TestCaseError> {
    let text = String::from_utf8_lossy(stdout).into_owned();
    if status == 0 {
        let is_silent = !matches!(verb, "ADD" | "VERSION");
        prop_assert_eq!(is_silent, stdout.is_empty(), "{} printed {}", verb, text);
        if !is_silent {
            // Not as a `Value`: lone surrogates of others are passed on as they are.
            let document = Object::from_slice(stdout)
                .map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
            prop_assert!(
                document.decode::<String>("cniVersion").unwrap().is_some(),
                "{}",
                text
            );
        }
        return Ok(());
    }
    prop_assert_eq!(status, 1);
    let document: Value =
        serde_json::from_slice(stdout).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
    prop_assert!(
        document["cniVersion"]
            .as_str()
            .is_some_and(|v| Version::parse(v).is_some()),
        "{}",
        text
    );
    prop_assert!(
        document["msg"]
            .as_str()
            .is_some_and(|msg| !msg.is_empty() && !msg.contains("panicked")),
        "{}",
        text
    );
    prop_assert!(
        document["code"]
            .as_u64()
            .is_some_and(|code| CODES.contains(&code)),
        "{}",
        text
    );
    Ok(())
}

fn environment(verb: &str, id: &str, ifname: &str, args: &str) -> Environment {
    [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", id),
        ("CNI_NETNS", "/run/netns/rt-there-is-none"),
        ("CNI_IFNAME", ifname),
        ("CNI_ARGS", args),
        ("CNI_PATH", "/nowhere"),
    ]
    .into_iter()
    .collect()
}

/// The whole corpus must be valid, or its mutations show nothing.
#[test]
fn the_corpus_is_valid() {
    for config in CONFIGS {
        let config = Config::parse(config.as_bytes().to_vec(), Verb::Add, &Version::ALL).unwrap();
        let env = environment("ADD", "c1", "eth0", "");
        let invocation = Invocation::from_env(&env).unwrap();
        read(&Request {
            invocation,
            config,
            env,
        })
        .unwrap();
    }
    for result in RESULTS {
        CniResult::from_slice(result.as_bytes(), Version::NEWEST).unwrap();
    }
}

proptest! {
    #![proptest_config(mutate::config())]

    #[test]
    fn configs_on_stdin(verb in 0..5usize, stdin in mutate::json(CONFIGS, TOKENS)) {
        let mut stdout = Vec::new();
        let env = environment(VERBS[verb], "c1", "eth0", ARGS[0]);
        let (stdin, stderr) = (stdin.as_slice(), std::io::sink());
        let status = ratchet_cni::run(&Reader, &env, stdin, &mut stdout, stderr);
        check_call(VERBS[verb], status, &stdout)?;
    }

    #[test]
    fn prev_results(at in 0..Version::ALL.len(), result in mutate::json(RESULTS, TOKENS)) {
        let version = Version::ALL[at];
        match CniResult::from_slice(&result, version) {
            Ok(result) => for to in Version::ALL {
                let Ok(converted) = result.clone().convert(to) else { continue };
                // What is written in a version is read in it, and is the same.
                let written = converted.to_json();
                let read = CniResult::from_slice(&written, to);
                let text = String::from_utf8_lossy(&written);
                let read = read.map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
                prop_assert_eq!(String::from_utf8(read.to_json()), String::from_utf8(written));
            },
            Err(error) => {
                let is_clean = !error.msg.is_empty() && !error.msg.contains("panicked");
                prop_assert!(error.code != 0 && is_clean, "{error:?}");
            }
        }
    }

    #[test]
    fn environments_and_args(
        verb in 0..VERBS.len(),
        id in 0..IDS.len(),
        ifname in 0..IFNAMES.len(),
        args in mutate::text(ARGS, ARGS_TOKENS),
        odd in proptest::option::weighted(0.2, (0..5usize, proptest::collection::vec(1..=255u8,
        0..20))),
    ) {
        let mut env = environment(VERBS[verb], IDS[id], IFNAMES[ifname], &args);
        if let Some((which, bytes)) = odd {
            let names = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_ARGS", "CNI_PATH"];
            env.set(names[which], OsString::from_vec(bytes));
        }
        if let Ok(call) = Invocation::from_env(&env) {
            for key in ["K8S_POD_NAME", "K8S_POD_NAMESPACE", "A", ""] {
                prop_assert_ne!(call.args.get(key), Some(""));
            }
        }
        let mut stdout = Vec::new();
        let (stdin, stderr) = (CONFIGS[0].as_bytes(), std::io::sink());
        let status = ratchet_cni::run(&Reader, &env, stdin, &mut stdout, stderr);
        match env.get("CNI_COMMAND").map(|verb| verb.to_string_lossy().into_owned()) {
            None => prop_assert!(status == 0 && stdout.is_empty()),
            Some(verb) => check_call(&verb, status, &stdout)?,
        }
    }
}
