//! Tests of `delegate`, with fake plugins.

use serde_json::value::RawValue;

use super::*;
use crate::{embedded::Outer, testing::Fakes};

const RESULT: &str = r#"echo '{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24"}]}'"#;

fn embedded(text: &str) -> Embedded {
    let outer = Outer {
        name: "n".into(),
        version: Version::V1_1_0,
        runtime_config: Object::default(),
    };
    Embedded::parse(&RawValue::from_string(text.into()).unwrap(), &outer).unwrap()
}

fn add(fakes: &Fakes, text: &str) -> Result<Added, Error> {
    embedded(text).add(&fakes.caller(), None, |_| Ok(()))
}

#[test]
fn add_returns_bytes_result_and_what_del_needs() {
    let fakes = Fakes::new();
    fakes.plugin(
        "p",
        "[ $CNI_COMMAND = DEL ] || printf '{ \"cniVersion\" : \"1.1.0\", \"z\":1.0 }\\n\\n'",
    );
    let added = add(&fakes, r#"{"type":"p","k":1.0}"#).unwrap();
    assert_eq!(
        added.stdout,
        b"{ \"cniVersion\" : \"1.1.0\", \"z\":1.0 }\n\n"
    );
    assert!(added.is_printable_as(Version::V1_1_0) && !added.is_printable_as(Version::V1_0_0));
    assert_eq!(added.result.version(), Version::V1_1_0);

    added.rendered.del(&fakes.caller()).unwrap();
    assert_eq!(
        fakes.read("p.ADD.stdin"),
        r#"{"type":"p","k":1.0,"name":"n","cniVersion":"1.1.0"}"#
    );
    assert_eq!(fakes.read("p.DEL.stdin"), fakes.read("p.ADD.stdin"));
}

#[test]
fn the_environment_is_ours_but_for_two_variables() {
    let fakes = Fakes::new();
    fakes.plugin("p", RESULT);
    let caller = fakes.caller().with_ifname("net1").unwrap();
    embedded(r#"{"type":"p"}"#)
        .add(&caller, None, |_| Ok(()))
        .unwrap()
        .rendered
        .del(&fakes.caller())
        .unwrap();
    for (verb, env) in [
        ("ADD", fakes.read("p.ADD.env")),
        ("DEL", fakes.read("p.DEL.env")),
    ] {
        let lines: Vec<&str> = env.lines().collect();
        for line in [
            "TRACEPARENT=00-1",
            "CNI_ARGS=A=b",
            "CNI_CONTAINERID=c1",
            "CNI_NETNS=/run/netns/c1",
        ] {
            assert!(lines.contains(&line), "{verb}: {line}");
        }
        assert!(lines.contains(&format!("CNI_COMMAND={verb}").as_str()));
        assert!(
            lines.contains(&"CNI_IFNAME=net1"),
            "{verb}: the interface is that of the ADD"
        );
    }
    assert_eq!(caller.with_ifname("a/b").unwrap_err().code, 4);
}

#[test]
fn a_failed_add_is_undone_once_with_the_same_stdin_and_keeps_its_error() {
    let scripts = [
        (
            r#"echo '{"code":11,"msg":"m","details":"d"}'; exit 1"#,
            11,
            "d",
        ),
        (
            r#"echo '{"cniVersion":"1.0.0","code":999,"msg":"m","details":"d"}'; exit 7"#,
            999,
            "d",
        ),
        (r#"echo '{"code":7,"msg":"m","details":"d"}'"#, 7, "d"),
        ("echo broken >&2; exit 1", 100, "broken"),
        ("kill -9 $$", 100, "it printed nothing"),
        ("true", 6, ""),
        (r#"echo '{"cniVersion":"1.1.0"} x'"#, 6, ""),
        (r#"echo '{"cniVersion":"9.9.9"}'"#, 1, ""),
    ];
    for (script, code, details) in scripts {
        let fakes = Fakes::new();
        fakes.plugin(
            "p",
            &format!("if [ $CNI_COMMAND = DEL ]; then exit 1; fi\n{script}"),
        );
        let error = add(&fakes, r#"{"type":"p"}"#).unwrap_err();
        assert_eq!(error.code, code, "{script}: {error}");
        assert!(error.details.contains(details), "{script}: {error}");
        assert_eq!(fakes.calls(), ["ADD p", "DEL p"], "{script}");
        assert_eq!(fakes.read("p.DEL.stdin"), fakes.read("p.ADD.stdin"));
        assert!(
            fakes.stderr.text().contains("rollback of a failed ADD"),
            "the failing DEL shows on stderr"
        );
    }
}

#[test]
fn empty_documents_are_empty_results() {
    for script in ["echo '{}'", "echo null"] {
        let fakes = Fakes::new();
        fakes.plugin("p", script);
        let added = add(&fakes, r#"{"type":"p","cniVersion":"0.4.0"}"#).unwrap();
        assert_eq!(added.result, CniResult::new(Version::V0_4_0));
        assert!(!added.is_printable_as(Version::V0_4_0));
    }
}

#[test]
fn a_list_is_chained_and_deleted_backwards() {
    let fakes = Fakes::new();
    fakes.plugin("a", r#"echo '{"interfaces":[{"name":"x"}]}'"#);
    fakes.plugin("b", RESULT);
    let mut seen = Vec::new();
    let list = embedded(r#"{"cniVersion":"1.0.0","plugins":[{"type":"a"},{"type":"b"}]}"#);
    let added = list
        .add(&fakes.caller(), None, |rendered| {
            seen.push(rendered.plugins.len());
            assert_eq!(
                fakes.calls().len(),
                rendered.plugins.len() - 1,
                "seen before it runs"
            );
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, [1, 2]);
    assert!(
        fakes
            .read("b.ADD.stdin")
            .contains(r#""prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"x"}]}"#)
    );

    let prev = added.result.clone();
    added.rendered.check(&fakes.caller(), &prev).unwrap();
    added.rendered.del(&fakes.caller()).unwrap();
    assert_eq!(
        fakes.calls(),
        ["ADD a", "ADD b", "CHECK a", "CHECK b", "DEL b", "DEL a"]
    );
    assert!(
        fakes.read("a.CHECK.stdin").contains("10.0.0.2/24"),
        "CHECK sees the final result"
    );
    assert_eq!(fakes.read("b.DEL.stdin"), fakes.read("b.ADD.stdin"));
}

#[test]
fn a_failing_list_undoes_what_it_began() {
    let fakes = Fakes::new();
    fakes.plugin("a", RESULT);
    fakes.plugin("b", "exit 1");
    fakes.plugin("c", RESULT);
    add(
        &fakes,
        r#"{"plugins":[{"type":"a"},{"type":"b"},{"type":"c"}]}"#,
    )
    .unwrap_err();
    assert_eq!(fakes.calls(), ["ADD a", "ADD b", "DEL b", "DEL a"]);
}

#[test]
fn a_missing_program_or_state_that_cannot_be_kept_stops_before_the_call() {
    let fakes = Fakes::new();
    fakes.plugin("a", RESULT);
    let error = add(&fakes, r#"{"plugins":[{"type":"a"},{"type":"gone"}]}"#).unwrap_err();
    assert_eq!(
        (error.code, fakes.calls()),
        (101, vec!["ADD a".into(), "DEL a".into()])
    );

    let fakes = Fakes::new();
    fakes.plugin("a", RESULT);
    let result =
        embedded(r#"{"type":"a"}"#).add(&fakes.caller(), None, |_| Err(Error::io("disk full")));
    assert_eq!((result.unwrap_err().code, fakes.calls().len()), (5, 0));
}

#[test]
fn del_goes_on_after_errors_and_reports_all() {
    let fakes = Fakes::new();
    fakes.plugin("a", "exit 1");
    fakes.plugin("b", r#"echo '{"code":11,"msg":"later"}'; exit 1"#);
    let list = embedded(r#"{"plugins":[{"type":"a"},{"type":"b"}]}"#);
    let error = list
        .render(&fakes.caller(), None)
        .unwrap()
        .del(&fakes.caller())
        .unwrap_err();
    assert_eq!(fakes.calls(), ["DEL b", "DEL a"]);
    assert_eq!(error.code, 11);
    assert!(error.details.contains("code 100"), "{error}");
}

#[test]
fn verbs_are_gated_by_the_embedded_version_and_flags() {
    let call = |text: &str| {
        let fakes = Fakes::new();
        fakes.plugin("p", "");
        let (embedded, caller) = (embedded(text), fakes.caller());
        let rendered = embedded.render(&caller, None).unwrap();
        rendered
            .check(&caller, &CniResult::new(Version::V1_1_0))
            .unwrap();
        embedded.gc(&caller, &[]).unwrap();
        embedded.status(&caller).unwrap();
        fakes.calls()
    };
    assert_eq!(call(r#"{"type":"p"}"#), ["CHECK p", "GC p", "STATUS p"]);
    assert_eq!(call(r#"{"type":"p","cniVersion":"1.0.0"}"#), ["CHECK p"]);
    assert_eq!(call(r#"{"type":"p","cniVersion":"0.3.1"}"#), [""; 0]);
    let list = r#"{"disableCheck":true,"disableGC":true,"plugins":[{"type":"p"}]}"#;
    assert_eq!(call(list), ["STATUS p"]);
}

#[test]
fn check_passes_errors_up_and_stops() {
    let fakes = Fakes::new();
    fakes.plugin("a", r#"echo '{"code":42,"msg":"m"}'; exit 1"#);
    fakes.plugin("b", "");
    let rendered = embedded(r#"{"plugins":[{"type":"a"},{"type":"b"}]}"#)
        .render(&fakes.caller(), None)
        .unwrap();
    assert_eq!(
        rendered
            .check(&fakes.caller(), &CniResult::new(Version::V1_1_0))
            .unwrap_err()
            .code,
        42
    );
    assert_eq!(fakes.calls(), ["CHECK a"]);
}

#[test]
fn status_tells_a_missing_program_from_one_that_fails() {
    let fakes = Fakes::new();
    fakes.plugin("p", r#"echo '{"code":51,"msg":"m"}'; exit 1"#);
    assert_eq!(
        embedded(r#"{"type":"p"}"#)
            .status(&fakes.caller())
            .unwrap_err()
            .code,
        51
    );
    assert_eq!(
        embedded(r#"{"type":"q","cniVersion":"0.4.0"}"#)
            .status(&fakes.caller())
            .unwrap_err()
            .code,
        50
    );
}

#[test]
fn gc_goes_on_after_errors() {
    let fakes = Fakes::new();
    fakes.plugin("a", "exit 1");
    fakes.plugin("b", "");
    embedded(r#"{"plugins":[{"type":"a"},{"type":"b"}]}"#)
        .gc(&fakes.caller(), &[])
        .unwrap_err();
    assert_eq!(fakes.calls(), ["GC a", "GC b"]);
}

#[test]
fn a_del_for_another_attachment_has_its_environment() {
    let fakes = Fakes::new();
    fakes.plugin("p", "");
    let caller = fakes.caller();
    let rendered = embedded(r#"{"type":"p"}"#)
        .render(&caller.clone().with_ifname("eth7").unwrap(), None)
        .unwrap();
    let attachment = Attachment {
        container_id: "old".into(),
        ifname: "eth7".into(),
    };
    rendered
        .del(&caller.for_attachment(&attachment, "", "K=v"))
        .unwrap();
    let env = fakes.read("p.DEL.env");
    for line in [
        "CNI_CONTAINERID=old",
        "CNI_IFNAME=eth7",
        "CNI_NETNS=",
        "CNI_ARGS=K=v",
    ] {
        assert!(env.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn stderr_reaches_ours_in_success_and_failure() {
    let fakes = Fakes::new();
    fakes.plugin(
        "p",
        &format!("echo $CNI_COMMAND >&2; {RESULT}; [ $CNI_COMMAND = ADD ]"),
    );
    let added = add(&fakes, r#"{"type":"p"}"#).unwrap();
    added.rendered.del(&fakes.caller()).unwrap_err();
    assert_eq!(fakes.stderr.text(), "ADD\nDEL\n");
}
