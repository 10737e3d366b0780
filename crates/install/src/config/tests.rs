use ratchet_protocol::{LocalSettings, Settings};
use serde_json::{Value, json};

use super::*;
use crate::entry;

fn file(name: &str, content: impl ToString) -> File {
    File {
        name: name.to_owned(),
        content: Ok(content.to_string()),
    }
}

fn flannel() -> File {
    let plugins = json!([{"type": "flannel", "delegate": {"isDefaultGateway": true}},
        {"type": "portmap", "capabilities": {"portMappings": true}}]);
    let list = json!({"name": "cbr0", "cniVersion": "0.3.1", "disableCheck": true,
        "plugins": plugins});
    file("10-flannel.conflist", list)
}

fn conf(name: &str, kind: &str) -> File {
    file(
        name,
        json!({"name": "n", "cniVersion": "1.0.0", "type": kind}),
    )
}

fn own() -> Entry {
    let settings = Settings {
        store: Some("kubernetes".to_owned()),
        ..Settings::default()
    };
    entry::own(&settings, &LocalSettings::default())
}

fn verdict(files: &[File]) -> Verdict {
    decide(files, &own(), &BTreeSet::new())
}

/// The text that is to be written.
fn text(files: &[File]) -> String {
    match verdict(files) {
        Verdict::Write { text, .. } => text,
        other => panic!("{other:?}"),
    }
}

fn json_of(files: &[File]) -> Value {
    serde_json::from_str(&text(files)).unwrap()
}

fn types(config: &Value) -> Vec<&str> {
    let plugins = config["plugins"].as_array().unwrap().iter();
    plugins
        .map(|plugin| plugin["type"].as_str().unwrap())
        .collect()
}

fn left(files: &[File], part: &str) {
    match verdict(files) {
        Verdict::Leave(why) => assert!(why.contains(part), "{why}"),
        other => panic!("{other:?}"),
    }
}

fn waited_for(files: &[File], part: &str) {
    match verdict(files) {
        Verdict::Wait(why) => assert!(why.contains(part), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_the_network_with_ratchet_behind_it() {
    let config = json_of(&[flannel()]);
    assert_eq!(config["name"], "cbr0");
    assert_eq!(config["cniVersion"], "0.3.1");
    assert_eq!(config["disableCheck"], true);
    assert_eq!(types(&config), ["flannel", "portmap", "ratchet"]);
    assert_eq!(config["plugins"][0]["delegate"]["isDefaultGateway"], true);
    assert_eq!(config["plugins"][2]["store"], "kubernetes");
    assert_eq!(config[SOURCE]["file"], "10-flannel.conflist");
    assert!(is_ours(text(&[flannel()]).as_bytes()));
}

#[test]
fn a_single_plugin_becomes_a_list() {
    for name in ["10-bridge.conf", "10-bridge.json"] {
        let content = json!({"name": "n", "cniVersion": "1.0.0", "type": "bridge", "mtu": 1400});
        let config = json_of(&[file(name, content)]);
        assert_eq!(
            (&config["name"], &config["cniVersion"]),
            (&json!("n"), &json!("1.0.0"))
        );
        assert_eq!(config["plugins"][0], json!({"type": "bridge", "mtu": 1400}));
        assert_eq!(types(&config), ["bridge", "ratchet"]);
    }
}

#[test]
fn the_texts_of_others_stay_as_they_are() {
    let plugin = r#"{"type": "x",   "big": 123456789012345678901234567890.10, "b":1, "a":2}"#;
    let list = format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{plugin}]}}"#);
    assert!(text(&[file("1.conflist", &list)]).contains(plugin));
    let conf =
        r#"{"type": "x", "cniVersion": "1.0.0", "name": "n", "big": 1234567890123456789012}"#;
    assert!(text(&[file("1.conf", conf)]).contains("1234567890123456789012"));
}

#[test]
fn a_second_look_finds_what_the_first_has_written() {
    let first = text(&[flannel()]);
    assert_eq!(text(&[flannel(), file(FILE, &first)]), first);
}

#[test]
fn it_is_the_first_networks() {
    let files = [
        conf("20-b.conf", "bridge"),
        flannel(),
        file("README", "x"),
        file("00-a.conf.bak", "x"),
    ];
    assert_eq!(types(&json_of(&files)), ["flannel", "portmap", "ratchet"]);
    let Verdict::Write {
        warnings, source, ..
    } = verdict(&[flannel(), conf("00-a.conf", "bridge")])
    else {
        panic!("a network is not taken")
    };
    assert_eq!(source, "00-a.conf");
    assert!(
        warnings[0].contains("the runtime takes it and does not call Ratchet"),
        "{warnings:?}"
    );
}

#[test]
fn it_follows_changes_and_keeps_what_others_add() {
    let mut ours: Value = json_of(&[flannel()]);
    // As istio-cni does it: at the end of the first file, and written with other white space.
    ours["plugins"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "istio-cni", "x": 1}));
    let changed = json!({"name": "cbr1", "cniVersion": "1.0.0",
        "plugins": [{"type": "flannel", "delegate": {"mtu": 1400}}]});
    let files = [file(FILE, &ours), file("10-flannel.conflist", changed)];
    let config = json_of(&files);
    assert_eq!(types(&config), ["flannel", "istio-cni", "ratchet"]);
    assert_eq!(
        (&config["name"], &config["cniVersion"]),
        (&json!("cbr1"), &json!("1.0.0"))
    );
    assert_eq!(config["plugins"][0]["delegate"], json!({"mtu": 1400}));
    // Another network takes its place.
    let config = json_of(&[file(FILE, &ours), conf("05-calico.conf", "calico")]);
    assert_eq!(types(&config), ["calico", "istio-cni", "ratchet"]);
}

#[test]
fn multus_stays_outside() {
    for kind in ["multus", "multus-shim"] {
        let multus = conf("00-multus.conf", kind);
        let config = json_of(&[multus.clone(), flannel()]);
        assert_eq!(types(&config), ["flannel", "portmap", "ratchet"]);
        left(&[multus], "no network config yet");
        left(
            &[flannel(), conf("05-multus.conf", kind)],
            "must come before 00-ratchet.conflist",
        );
        // It is never called where it stands now.
        text(&[flannel(), conf("70-multus.conf", kind)]);
    }
}

#[test]
fn what_a_person_has_written_stays() {
    let by_hand = json!({"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"},
        {"type": "ratchet", "etcd_host": "e"}]});
    left(
        &[file("05-ratchet.conflist", &by_hand), flannel()],
        "calls Ratchet already",
    );
    left(
        &[file(FILE, &by_hand), flannel()],
        "was not made by `ratchet agent --install`",
    );
    assert!(!is_ours(by_hand.to_string().as_bytes()));
}

#[test]
fn a_network_that_ends_leaves_its_config() {
    left(&[], "no network config yet");
    left(
        &[file(FILE, text(&[flannel()]))],
        "the network's config is gone",
    );
}

#[test]
fn a_network_must_have_results() {
    for version in ["\"0.2.0\"", "\"2.0.0\"", "null"] {
        let content = format!(r#"{{"name":"n","cniVersion":{version},"type":"bridge"}}"#);
        left(
            &[file("10-a.conf", content), flannel()],
            "expected 0.3.0 to 1.1.0",
        );
    }
    left(
        &[file("10-a.conf", r#"{"name":"n","type":"bridge"}"#)],
        "the cniVersion of 10-a.conf is \"\"",
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of broken files")]
fn a_broken_file_is_waited_for_and_then_passed_over() {
    let after = conf("20-b.conf", "bridge");
    for (name, content, part) in [
        ("10-a.conflist", "", "EOF"),
        ("10-a.conflist", "{", "EOF"),
        ("10-a.conflist", "[]", "expected a JSON object"),
        ("10-a.conflist", "null", "it is empty"),
        (
            "10-a.conflist",
            r#"{"name":"n","type":"bridge"}"#,
            "no list of \"plugins\"",
        ),
        (
            "10-a.conflist",
            r#"{"name":"n","plugins":[]}"#,
            "no list of \"plugins\"",
        ),
        (
            "10-a.conflist",
            r#"{"name":"n","plugins":{}}"#,
            "not a list",
        ),
        (
            "10-a.conflist",
            r#"{"name":"n","plugins":[1]}"#,
            "not an object",
        ),
        (
            "10-a.conflist",
            r#"{"name":"n","plugins":[{"type":""}]}"#,
            "no type",
        ),
        (
            "10-a.conflist",
            r#"{"plugins":[{"type":"x"}]}"#,
            "missing network name",
        ),
        (
            "10-a.conf",
            r#"{"name":"n","plugins":[{"type":"x"}]}"#,
            "no type",
        ),
        (FILE, "{", "EOF"),
    ] {
        let files = [file(name, content), after.clone()];
        waited_for(&files, part);
        assert_eq!(broken(&files), BTreeSet::from([name.to_owned()]));
        let Verdict::Write {
            source, warnings, ..
        } = decide(&files, &own(), &broken(&files))
        else {
            panic!("{name} {content} is not passed over")
        };
        assert_eq!(source, "20-b.conf");
        assert!(warnings[0].contains("is broken"), "{warnings:?}");
        // A file behind the network's is not looked at.
        text(&[conf("05-a.conf", "bridge"), file("10-a.conflist", "{")]);
    }
    let unreadable = File {
        name: "10-a.conf".to_owned(),
        content: Err("permission denied".to_owned()),
    };
    waited_for(&[unreadable, after], "permission denied");
}

#[test]
fn the_runtime_calls_us_if_the_first_network_does() {
    let ours = || file(FILE, text(&[flannel()]));
    let multus = |name: &str| conf(name, "multus");
    let broken = || file("01-broken.conflist", "{");
    for files in [
        vec![ours()],
        vec![ours(), flannel()],
        vec![multus("00-multus.conf"), ours(), flannel()],
        vec![conf("05-by-hand.conf", "ratchet"), flannel()],
    ] {
        assert_eq!(calls_us(&files), Ok(()), "{files:?}");
    }
    for (files, why) in [
        (vec![], "there is no network config yet"),
        (vec![multus("00-multus.conf")], "there is no network"),
        (vec![flannel()], "takes 10-flannel.conflist"),
        (
            vec![broken(), flannel(), conf("20-x.conf", "ratchet")],
            "takes 10-flannel.conflist",
        ),
        (
            vec![conf("00-a.conf", "bridge"), ours()],
            "takes 00-a.conf, which does not call Ratchet",
        ),
    ] {
        let error = calls_us(&files).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
