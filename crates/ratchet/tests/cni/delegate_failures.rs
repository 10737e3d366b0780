//! Points 18 to 20: delegates that fail.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;

use crate::bench::{ANSWER, Bench, answering, failing, sandbox};

#[test]
fn p18_odd_answers() {
    let bench = Bench::new();
    let sandbox = sandbox();
    let config =
        |version: &str| bench.config(json!({"cniVersion": version, "delegate": {"type": "odd"}}));
    for answer in ["{}", "null", " null\n", "\n{ }\n"] {
        bench.fake("odd", &answering(answer));
        for version in ["0.2.0", "0.4.0", "1.0.0", "1.1.0"] {
            let result = bench.run("ADD", &sandbox, &config(version)).json();
            assert_eq!(result["cniVersion"], version);
            assert!(
                result.get("ips").is_none() && result.get("interfaces").is_none(),
                "{result}"
            );
            bench.run("DEL", &sandbox, &config(version)).silent();
        }
    }
    bench.calls();
    for answer in [
        "",
        " ",
        "{} x",
        "{}{}",
        "[]",
        "1",
        "garbage",
        "{",
        r#"{"cniVersion":"7.0.0"}"#,
    ] {
        bench.fake("odd", &answering(answer));
        bench.run("ADD", &sandbox, &config("1.0.0")).error();
        assert_eq!(bench.calls(), ["ADD odd", "DEL odd"], "{answer:?}");
        bench.assert_clean();
    }
}

#[test]
fn p19_errors_of_the_delegate() {
    let bench = Bench::with_agent();
    let sandbox = sandbox();
    for code in [11, 7, 100, 999, 3, 8, 50, 4_000_000_000] {
        bench.fake("bad", &failing("ADD", code));
        let bad = json!({"delegate": {"type": "bad"}});
        for config in [bench.config(bad.clone()), bench.ours("[]", bad)] {
            let seen = bench.run("ADD", &sandbox, &config);
            let text = seen.failed(code.into());
            assert!(text.contains("a fault"), "{text}");
            assert_eq!(seen.error()["details"], "because");
        }
    }
    // Without a CNI error: Ratchet's own code, with the plugin's output.
    for (script, expected) in [
        ("echo the cause >&2; exit 7", "the cause"),
        ("echo on stdout; exit 1", "on stdout"),
        ("echo the cause >&2; kill -9 $$", "the cause"),
        ("exit 2", "exit status: 2"),
        ("kill -SEGV $$", "signal"),
    ] {
        bench.fake("bad", script);
        let text = bench
            .run(
                "ADD",
                &sandbox,
                &bench.config(json!({"delegate": {"type": "bad"}})),
            )
            .failed(100);
        assert!(
            text.contains(expected) && text.contains("\"bad\""),
            "{text}"
        );
    }
    bench.assert_clean();
}

#[test]
fn p20_rollback_of_the_delegate() {
    let bench = Bench::with_agent();
    let sandbox = sandbox();
    let error = r#"{"cniVersion":"1.0.0","code":77,"msg":"cause"}"#;
    let first = "[ $CNI_COMMAND = ADD ] ||";
    for (script, code) in [
        (format!("{first} exit 0; echo '{error}'; exit 1"), 77),
        (format!("{first} exit 0; exit 3"), 100),
        (format!("{first} exit 0; kill -9 $$"), 100),
        // The error is the one of the ADD, also when the DEL fails.
        (
            format!(
                "{first} {{ echo '{{\"code\":88,\"msg\":\"late\"}}'; exit 1; }}; echo '{error}'; \
                 exit 1"
            ),
            77,
        ),
        (format!("{first} kill -9 $$; echo '{error}'; exit 1"), 77),
    ] {
        bench.fake("bad", &script);
        let bad = json!({"delegate": {"type": "bad", "key": [1.0, null]}});
        for config in [bench.config(bad.clone()), bench.ours("[]", bad)] {
            bench.run("ADD", &sandbox, &config).failed(code);
            assert_eq!(bench.calls(), ["ADD bad", "DEL bad"], "{script}");
            assert_eq!(
                bench.seen("bad", "DEL", "stdin"),
                bench.seen("bad", "ADD", "stdin")
            );
            bench.assert_clean();
        }
    }
    // The plugin is not executable: neither ADD nor DEL can run.
    bench.fake("bad", &answering(ANSWER));
    fs::set_permissions(
        bench.dir().join("fakes/bad"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let text = bench
        .run(
            "ADD",
            &sandbox,
            &bench.config(json!({"delegate": {"type": "bad"}})),
        )
        .failed(100);
    assert!(text.contains("ermission denied"), "{text}");
    bench.assert_clean();
    // In a list, the plugins that ran get a DEL, in reverse order.
    bench.fake("bad", &failing("ADD", 77));
    let list = json!({"name": "list", "cniVersion": "1.0.0", "plugins": [{"type": "main"},
        {"type": "bad"}, {"type": "never"}]});
    bench
        .run("ADD", &sandbox, &bench.config(json!({"delegate": list})))
        .failed(77);
    assert_eq!(
        bench.calls(),
        ["ADD main", "ADD bad", "DEL bad", "DEL main"]
    );
    bench.assert_clean();
}
