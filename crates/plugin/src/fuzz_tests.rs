//! Configs and pods that are nearly right: ADD reads or refuses them, and DEL reads everything that
//! ADD refuses.

use proptest::prelude::*;
use ratchet_cni::{Config, Environment, Invocation, Verb, Version};

use crate::{config::Keys, identity::Identity};

#[path = "../../model/tests/mutate/mod.rs"]
mod mutate;

const CONFIGS: &[&str] = &[
    r#"{"name":"ratchet-demo","type":"ratchet","etcd_host":"etcd-client.ratchet.svc.cluster.local",
        "etcd_port":"2379",
        "child_path":"/opt/cni/bin/ratchet-child","parent_interface":"eth0",
        "parent_address":"192.168.1.73","use_labels":true,
        "delegate":{"name":"cbr0","type":"flannel","delegate":{"isDefaultGateway":true}},
        "boot_network":{"type":"loopback"}}"#,
    r#"{"cniVersion":"1.0.0","name":"n","type":"ratchet",
        "store":"sqlite:///var/lib/ratchet/ratchet.db","mtu":"1400","node":"n1",
        "socket":"/run/ratchet/agent.sock","state_dir":"/var/lib/ratchet","log_level":"debug",
        "log_file":"/var/log/ratchet",
        "use_labels":"false","boot_network":{"name":"x","cniVersion":"0.4.0",
        "plugins":[{"type":"ptp"},{"type":"portmap"}]}}"#,
    r#"{"cniVersion":"1.1.0","name":"n","type":"ratchet","store":"etcds://a:1,b:2",
        "delegate":{"type":"bridge"},
        "args":{"cni":{"labels":[{"key":"ratchet","value":"true"},{"key":"ratchet.primary",
        "value":"false"}]}},
        "runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"ratchet.dev/links":"[]"}}}"#,
    r#"{"name":"n","type":"ratchet","args":{"cni":{"labels":{"ratchet":"true"}}},
        "runtimeConfig":null,"mtu":1450}"#,
];

const TOKENS: &[&str] = &[
    "\"store\":null,",
    "\"MTU\":1,",
    "\"delegate\":\"x\",",
    "store",
    "etcd_host",
    "etcd_port",
    "mtu",
    "socket",
    "state_dir",
    "delegate",
    "boot_network",
    "plugins",
    "type",
    "args",
    "runtimeConfig",
    "use_labels",
    "log_level",
    "sqlite:",
    "sqlite:/",
    "sqlite:a",
    "etcd://",
    "etcd://[::1]:2379",
    "etcd://user:secret@h",
    "kubernetes",
    "65536",
    "0",
    "true",
    "TRUE",
    "/",
    "//",
    "/a",
    "a",
    "..",
    "é",
    "fd00::1",
    "[::1]",
    "256.1.1.1",
    "lo",
    "0123456789abcdef",
    "debug",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "{\"a\":",
];

const ARGS: &[&str] = &[
    "K8S_POD_NAMESPACE=lab;K8S_POD_NAME=r1;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u",
    "",
];
const ARGS_TOKENS: &[&str] = &[
    "=",
    ";",
    "K8S_POD_NAME=",
    "K8S_POD_NAMESPACE=",
    "\u{0}",
    "é",
    "/",
    "..",
    " ",
];

fn invocation(args: &str) -> Invocation {
    let env: Environment = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/n"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/p"),
        ("CNI_ARGS", args),
    ]
    .into_iter()
    .collect();
    Invocation::from_env(&env).unwrap()
}

fn check(stdin: Vec<u8>, args: &str) -> Result<(), TestCaseError> {
    let config = match Config::parse(stdin, Verb::Add, &Version::ALL) {
        Ok(config) => config,
        Err(error) => {
            prop_assert!([1, 6, 7].contains(&error.code), "{error:?}");
            return Ok(());
        }
    };
    // Code 1 comes from an embedded config.
    let is_refusal =
        |error: &ratchet_cni::Error| [1, 6, 7].contains(&error.code) && !error.msg.is_empty();
    let lenient = Keys::lenient(&config);
    match Keys::strict(&config) {
        Ok(keys) => {
            prop_assert_eq!(&keys.settings, &lenient.settings);
            prop_assert!(keys.local.socket().is_absolute() && keys.local.state_dir().is_absolute());
        }
        Err(error) => {
            prop_assert!(is_refusal(&error), "{error:?}");
            prop_assert!(!lenient.warnings.is_empty());
        }
    }
    let call = invocation(args);
    let lenient = Identity::lenient(&call, &config, true);
    prop_assert!(!lenient.pod.name.is_empty() && !lenient.pod.namespace.is_empty());
    match Identity::of(&call, &config, true) {
        Ok(identity) => prop_assert_eq!(identity, lenient),
        Err(error) => prop_assert!(is_refusal(&error), "{error:?}"),
    }
    Ok(())
}

/// The whole corpus must be valid, or its mutations show nothing.
#[test]
fn the_corpus_is_valid() {
    for config in CONFIGS {
        let config = Config::parse(config.as_bytes().to_vec(), Verb::Add, &Version::ALL).unwrap();
        Keys::strict(&config).unwrap();
        Identity::of(&invocation(ARGS[0]), &config, true).unwrap();
    }
}

proptest! {
    #![proptest_config(mutate::config())]

    #[test]
    fn configs_and_pods(
        stdin in mutate::json(CONFIGS, TOKENS), args in mutate::text(ARGS, ARGS_TOKENS),
    ) {
        check(stdin, &args)?;
    }
}
