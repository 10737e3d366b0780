//! Tests of `embedded`: what each embedded plugin gets on stdin.

use proptest::prelude::*;

use super::*;

fn outer() -> Outer {
    let runtime_config =
        Object::parse(r#"{"portMappings":[ 1 ],"bandwidth":{},"ann":null}"#).unwrap();
    Outer {
        name: "outer".into(),
        version: Version::V1_0_0,
        runtime_config,
    }
}

fn parse(text: &str) -> Result<Embedded, Error> {
    Embedded::parse(&RawValue::from_string(text.into()).unwrap(), &outer())
}

fn stdins(text: &str, prev: Option<&CniResult>) -> Vec<String> {
    let embedded = parse(text).unwrap();
    embedded
        .plugins
        .iter()
        .map(|plugin| plugin.render(prev, "eth0").unwrap().stdin)
        .collect()
}

#[test]
fn what_is_missing_is_appended_and_the_rest_stays_byte_for_byte() {
    let text = "{ \"type\": \"bridge\",\n \"mtu\":1500.0, \
                \"x\":{\"b\":1,\"a\":[ 123456789012345678901 ]} }";
    let kept = text.trim_end_matches(" }");
    assert_eq!(
        stdins(text, None),
        [format!(r#"{kept},"name":"outer","cniVersion":"1.0.0"}}"#)]
    );
}

#[test]
fn an_embedded_name_and_version_are_kept() {
    let text = r#"{"cniVersion":"0.3.1", "name":"inner", "type":"bridge"}"#;
    assert_eq!(stdins(text, None), [text]);
    assert_eq!(parse(text).unwrap().version(), Version::V0_3_1);
    // Empty is missing.
    assert_eq!(
        stdins(r#"{"cniVersion":"","name":null,"type":"b"}"#, None),
        [r#"{"type":"b","name":"outer","cniVersion":"1.0.0"}"#]
    );
}

#[test]
fn only_declared_capabilities_get_runtime_config() {
    let with = |capabilities: &str| {
        let text = format!(
            r#"{{"name":"n","cniVersion":"1.0.0","type":"b","capabilities":{capabilities}}}"#
        );
        Object::parse(&stdins(&text, None)[0])
            .unwrap()
            .get("runtimeConfig")
            .map(|value| value.get().to_owned())
    };
    assert_eq!(
        with(r#"{"portMappings":true,"ann":true,"bandwidth":false,"mac":true}"#).as_deref(),
        { Some(r#"{"portMappings":[ 1 ],"ann":null}"#) }
    );
    assert_eq!(with(r#"{"PORTMAPPINGS":true,"bandwidth":"true"}"#), None);
    assert_eq!(with("null"), None);
}

#[test]
fn prev_result_is_given_in_the_plugins_version() {
    let prev = CniResult::parse(r#"{"ips":[{"address":"10.0.0.1/8"}]}"#, Version::V1_0_0).unwrap();
    let stdin = &stdins(
        r#"{"cniVersion":"0.4.0","name":"n","type":"b"}"#,
        Some(&prev),
    )[0];
    let ips = r#""ips":[{"version":"4","address":"10.0.0.1/8"}]"#;
    let given = format!(r#","prevResult":{{"cniVersion":"0.4.0",{ips},"dns":{{}}}}}}"#);
    assert!(stdin.ends_with(&given), "{stdin}");
}

#[test]
fn a_list_gives_its_name_and_version_to_all() {
    let text = r#"{"cniVersion":"0.4.0","name":"list","disableCheck":true,"disableGC":"1",
        "plugins":[{"type":"a","name":"x"},{"type":"b","cniVersion":"1.0.0"}]}"#;
    let embedded = parse(text).unwrap();
    assert!(embedded.disable_check && embedded.disable_gc);
    assert_eq!(
        stdins(text, None),
        [
            r#"{"type":"a","name":"list","cniVersion":"0.4.0"}"#,
            r#"{"type":"b","name":"list","cniVersion":"0.4.0"}"#
        ]
    );
}

#[test]
fn a_plugin_with_a_key_called_plugins_is_no_list() {
    let text = r#"{"type":"meta","plugins":["x"],"name":"n","cniVersion":"1.0.0"}"#;
    assert_eq!(stdins(text, None), [text]);
}

#[test]
fn bad_embedded_configs_are_refused() {
    for text in [
        "[]",
        "1",
        "{}",
        r#"{"type":""}"#,
        r#"{"type":null}"#,
        r#"{"type":7}"#,
        r#"{"type":"../x"}"#,
        r#"{"type":"/bin/sh"}"#,
        r#"{"type":"a\\b"}"#,
        r#"{"type":"a","name":"../n"}"#,
        r#"{"type":"a","capabilities":[]}"#,
        r#"{"plugins":[]}"#,
        r#"{"plugins":null}"#,
        r#"{"plugins":[{"type":"a"},{"type":"."}]}"#,
        r#"{"plugins":[{"type":"a"},1]}"#,
        r#"{"plugins":[{"type":"a"}],"disableCheck":7}"#,
    ] {
        assert_eq!(parse(text).unwrap_err().code, 7, "{text}");
    }
    assert_eq!(
        parse(r#"{"type":"a","cniVersion":"1.2.0"}"#)
            .unwrap_err()
            .code,
        1
    );
}

#[test]
fn gc_gets_the_list_under_both_names() {
    let valid = [Attachment {
        container_id: "c".into(),
        ifname: "e".into(),
    }];
    let stdin = parse(r#"{"type":"a"}"#).unwrap().plugins[0]
        .render_gc(&valid)
        .unwrap();
    let object = Object::parse(&stdin).unwrap();
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        assert_eq!(
            object.get(key).unwrap().get(),
            r#"[{"containerID":"c","ifname":"e"}]"#
        );
    }
}

proptest! {
    #[test]
    fn any_embedded_config_is_read_or_refused(
        members in proptest::collection::vec(
            ("(type|name|cniVersion|plugins|capabilities|runtimeConfig|x)",
                "(null|true|1|\"a\"|\"1\\.0\\.0\"|\\[\\]|\\{\\}|\\[\\{\"type\":\"a\"\\}\\])"),
            0..6,
        ),
    ) {
        let members = members.iter().map(|(key, value)| format!("{key:?}:{value}"));
        let members: Vec<_> = members.collect();
        match parse(&format!("{{{}}}", members.join(","))) {
            Err(error) => prop_assert!([1, 6, 7].contains(&error.code)),
            Ok(embedded) => {
                for plugin in embedded.plugins() {
                    let stdin = plugin.render(None, "eth0").unwrap().stdin;
                    let object = Object::parse(&stdin).unwrap();
                    prop_assert!(object.decode::<String>("name").unwrap().is_some());
                    let version = object.decode::<Version>("cniVersion").unwrap();
                    prop_assert_eq!(version, Some(plugin.version()));
                }
            }
        }
    }
}
