//! Tests of `config`: each key, right and wrong.

use std::os::unix::fs::PermissionsExt;

use ratchet_cni::{Verb, Version};
use ratchet_model::Mtu;
use ratchet_protocol::{DEFAULT_SOCKET, DEFAULT_STATE_DIR};

use super::*;

fn keys(rest: &str) -> Result<Keys, Error> {
    Keys::strict(&config(rest))
}

fn config(rest: &str) -> Config {
    Config::parse(
        format!(r#"{{"name":"n","type":"ratchet"{rest}}}"#).into(),
        Verb::Add,
        &Version::ALL,
    )
    .unwrap()
}

fn refused(rest: &str) -> String {
    let error = keys(rest).unwrap_err();
    assert_eq!(error.code, 7, "{error}");
    error.msg
}

#[test]
fn an_empty_config_has_defaults_and_no_warnings() {
    let keys = keys("").unwrap();
    assert_eq!(keys.settings, Settings::default());
    assert_eq!(
        (
            keys.local.socket().to_str(),
            keys.local.state_dir().to_str()
        ),
        (Some(DEFAULT_SOCKET), Some(DEFAULT_STATE_DIR))
    );
    assert!(keys.use_labels && keys.warnings.is_empty() && keys.boot().is_none());
}

#[test]
fn the_articles_config_asks_for_etcd() {
    let article = r#","etcd_host":"etcd-client.ratchet.svc.cluster.local","etcd_port":"2379",
        "use_labels":true,
        "parent_interface":"eth0","parent_address":"192.168.1.73","cniDir":"/x",
        "delegate":{"name":"cbr0","type":"flannel","delegate":{"isDefaultGateway":true}},
        "boot_network":{"type":"loopback"}"#;
    let keys = keys(article).unwrap();
    assert_eq!(
        keys.settings.store.as_deref(),
        Some("etcd://etcd-client.ratchet.svc.cluster.local:2379")
    );
    assert_eq!(
        keys.settings.parent_address,
        Some("192.168.1.73".parse().unwrap())
    );
    assert_eq!(keys.boot().unwrap().plugins()[0].kind(), "loopback");
    assert_eq!(keys.warnings, Vec::<String>::new());
}

#[test]
fn etcd_keys_and_store_are_one_thing() {
    let url = |rest: &str| Keys::lenient(&config(rest)).settings.store.unwrap();
    assert_eq!(url(r#","etcd_host":"h""#), "etcd://h:2379");
    assert_eq!(url(r#","etcd_host":"h","etcd_port":4001"#), "etcd://h:4001");
    assert_eq!(
        url(r#","etcd_host":"fd00::1","etcd_port":"1""#),
        "etcd://[fd00::1]:1"
    );
    assert!(refused(r#","etcd_host":"h","store":"sqlite:/a""#).contains("contradict each other"));
    for bad in ["0", "65536", "\"x\"", "true", "1.5", "-1"] {
        assert!(
            refused(&format!(r#","etcd_port":{bad}"#)).contains("etcd_port"),
            "{bad}"
        );
    }
    assert!(refused(r#","etcd_host":"a b""#).contains("etcd_host"));
    assert_eq!(keys(r#","etcd_port":2379"#).unwrap().warnings.len(), 1);
}

#[test]
fn stores_are_known_by_their_scheme() {
    assert_eq!(
        keys(r#","store":"sqlite:/a/b""#)
            .unwrap()
            .settings
            .store
            .as_deref(),
        Some("sqlite:/a/b")
    );
    assert_eq!(
        keys(r#","store":"sqlite:///a/b""#)
            .unwrap()
            .settings
            .store
            .as_deref(),
        Some("sqlite:/a/b")
    );
    for bad in [
        "mysql:/a",
        "sqlite:a",
        "sqlite:/a/",
        "a",
        "kubernetes:x",
        "etcd:h",
    ] {
        assert!(
            refused(&format!(r#","store":"{bad}""#)).contains("\"store\""),
            "{bad}"
        );
    }
    for known in ["etcds://h:1", "etcd://h", "kubernetes"] {
        assert_eq!(
            keys(&format!(r#","store":"{known}""#))
                .unwrap()
                .settings
                .store
                .as_deref(),
            Some(known)
        );
    }
    assert!(!refused(r#","store":"mysql://me:secret@h""#).contains("secret"));
}

#[test]
fn wrong_values_are_named() {
    for (key, bad) in [
        ("mtu", "67"),
        ("mtu", "\"big\""),
        ("mtu", "70000"),
        ("node", "\"a b\""),
        ("parent_interface", "\"an-interface-too-long\""),
        ("parent_interface", "1"),
        ("parent_address", "\"192.168.1.73/24\""),
        ("use_labels", "\"yes\""),
        ("use_labels", "1"),
        ("socket", "\"agent.sock\""),
        ("socket", "\"/\""),
        ("state_dir", "\"state\""),
        ("log_level", "\"loud\""),
        ("log_file", "[]"),
        ("child_path", "\"ratchet-child\""),
        ("delegate", "\"flannel\""),
        ("delegate", r#"{"type":"../flannel"}"#),
        ("boot_network", r#"{"plugins":[]}"#),
    ] {
        let message = refused(&format!(r#","{key}":{bad}"#));
        assert!(message.contains(&format!("{key:?}")), "{message}");
    }
    let long = format!(r#","socket":"/{}""#, "s".repeat(107));
    assert!(refused(&long).contains("107"));
}

#[test]
fn what_people_write_is_understood() {
    let keys =
        keys(r#","MTU":"1400","use_labels":"False","log_level":"DEBUG","node":"","socket":null"#)
            .unwrap();
    assert_eq!(keys.settings.mtu.map(Mtu::bytes), Some(1400));
    assert!(!keys.use_labels);
    assert_eq!(
        (keys.local.log_level.as_deref(), keys.settings.node),
        (Some("debug"), None)
    );
}

#[test]
fn unknown_keys_are_warned_about_with_the_nearest() {
    let warnings = keys(r#","parent_iface":"eth0","zzz":1,"cni.dev/x":1,"ipam":{},"dns":{}"#)
        .unwrap()
        .warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("is \"parent_interface\" meant?"),
        "{warnings:?}"
    );
    assert!(!warnings[1].contains("meant"), "{warnings:?}");
}

#[test]
fn child_path_may_be_missing_but_not_unusable() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("child");
    let rest = format!(r#","child_path":{:?}"#, path.to_str().unwrap());
    let missing = keys(&rest).unwrap();
    assert_eq!((missing.child_path, missing.warnings.len()), (None, 1));
    std::fs::write(&path, "#!/bin/sh\n").unwrap();
    assert!(refused(&rest).contains("child_path"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(keys(&rest).unwrap().child_path, Some(path));
}

#[test]
fn del_reads_what_it_can() {
    let keys = Keys::lenient(&config(
        r#","mtu":"x","state_dir":"/s","delegate":7,"boot_network":{"type":"loopback"}"#,
    ));
    assert_eq!(keys.local.state_dir(), Path::new("/s"));
    assert!(keys.delegate.is_none() && keys.boot_network.is_some());
    assert_eq!(keys.warnings.len(), 2);
}
