//! Tests of `dispatch`: what a runtime sees of a plugin.

use std::{cell::RefCell, io};

use super::*;
use crate::result::Interface;

/// A plugin that records its calls and gives the answers it was made with.
#[derive(Default)]
struct Fake {
    calls: RefCell<Vec<&'static str>>,
    l2_only: bool,
    error: Option<Error>,
    panics: bool,
}

impl Fake {
    fn call(&self, verb: &'static str) -> Result<(), Error> {
        self.calls.borrow_mut().push(verb);
        assert!(!self.panics, "told to");
        self.error.clone().map_or(Ok(()), Err)
    }
}

impl Plugin for Fake {
    fn about(&self) -> String {
        "a fake".into()
    }

    fn add(&self, request: &Request) -> Result<Output, Error> {
        self.call("add")?;
        let mut result = CniResult::new(request.config.version());
        if self.l2_only {
            result.push_interface(Interface {
                name: "eth1".into(),
                ..Interface::default()
            });
        }
        Ok(Output::Result(result))
    }

    fn undo_add(&self, _: &Request) -> Result<(), Error> {
        self.call("undo")
    }

    fn del(&self, _: &Request) -> Result<(), Error> {
        self.call("del")
    }

    fn check(&self, _: &Request) -> Result<(), Error> {
        self.call("check")
    }

    fn gc(&self, _: &Request) -> Result<(), Error> {
        self.call("gc")
    }

    fn status(&self, _: &Request) -> Result<(), Error> {
        self.call("status")
    }
}

/// Exit status, stdout, stderr and the calls of the plugin.
struct Seen {
    status: u8,
    stdout: String,
    stderr: String,
    calls: Vec<&'static str>,
}

impl Seen {
    /// Code and version of the one error document on stdout.
    fn error(&self) -> (u64, String) {
        assert_eq!(self.status, 1, "{}", self.stdout);
        let json: serde_json::Value = serde_json::from_str(&self.stdout).unwrap();
        assert!(json["msg"].is_string());
        (
            json["code"].as_u64().unwrap(),
            json["cniVersion"].as_str().unwrap().to_owned(),
        )
    }
}

fn run_fake(fake: Fake, vars: &[(&str, &str)], stdin: &str) -> Seen {
    let full = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/nowhere"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    let env = full.iter().chain(vars).copied().collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = run(&fake, &env, stdin.as_bytes(), &mut stdout, &mut stderr);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Seen {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
        calls: fake.calls.into_inner(),
    }
}

fn call(verb: &str, stdin: &str) -> Seen {
    run_fake(Fake::default(), &[("CNI_COMMAND", verb)], stdin)
}

fn config(version: &str) -> String {
    format!(r#"{{"cniVersion":"{version}","name":"n","type":"t"}}"#)
}

#[test]
fn without_a_command_it_introduces_itself() {
    for vars in [&[][..], &[("CNI_COMMAND", "")]] {
        let seen = run_fake(Fake::default(), vars, "");
        assert_eq!((seen.status, seen.stdout.as_str()), (0, ""));
        assert!(
            seen.stderr
                .starts_with("a fake\nCNI protocol versions supported: 0.1.0, "),
            "{}",
            seen.stderr
        );
    }
}

#[test]
fn version_is_echoed_with_the_list() {
    let probe = [
        ("CNI_COMMAND", "VERSION"),
        ("CNI_NETNS", "dummy"),
        ("CNI_CONTAINERID", ""),
        ("CNI_PATH", "dummy"),
    ];
    for (stdin, echo) in [
        (r#"{"cniVersion":"1.1.0"}"#, "1.1.0"),
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        (r#"{"cniVersion":"x"}"#, "1.1.0"),
        ("", "1.1.0"),
        ("garbage", "1.1.0"),
    ] {
        let seen = run_fake(Fake::default(), &probe, stdin);
        let list = r#"["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]"#;
        assert_eq!(
            seen.stdout,
            format!("{{\"cniVersion\":\"{echo}\",\"supportedVersions\":{list}}}\n")
        );
        assert_eq!(seen.status, 0);
    }
}

#[test]
fn every_version_is_served_as_gated() {
    for version in Version::ALL {
        let text = config(version.as_str());
        let seen = call("ADD", &text);
        assert_eq!((seen.status, seen.calls), (0, vec!["add"]));
        let json: serde_json::Value =
            serde_json::from_str(&seen.stdout.clone()).unwrap_or_default();
        assert_eq!(json["cniVersion"], version.as_str());
        for (verb, called) in [
            ("DEL", "del"),
            ("CHECK", "check"),
            ("GC", "gc"),
            ("STATUS", "status"),
        ] {
            let seen = call(verb, &text);
            if version.allows(Verb::parse(verb).unwrap()) {
                assert_eq!(
                    (seen.status, seen.stdout.as_str(), seen.calls),
                    (0, "", vec![called])
                );
            } else {
                assert_eq!(seen.error(), (1, version.to_string()));
                assert!(seen.calls.is_empty());
            }
        }
    }
}

#[test]
fn refusals_are_one_document_and_no_call() {
    for (verb, stdin, expected) in [
        ("FOO", config("1.0.0"), (4, "1.0.0")),
        ("add", config("1.0.0"), (4, "1.0.0")),
        ("ADD", config("1.2.0"), (1, "1.1.0")),
        ("ADD", config("abc"), (1, "1.1.0")),
        ("GC", config("abc"), (6, "1.1.0")),
        ("ADD", String::new(), (6, "1.1.0")),
        ("ADD", "[]".into(), (6, "1.1.0")),
        ("ADD", r#"{"cniVersion":"0.4.0"}"#.into(), (7, "0.4.0")),
    ] {
        let seen = call(verb, &stdin);
        assert_eq!(
            seen.error(),
            (expected.0, expected.1.to_owned()),
            "{verb} {stdin}"
        );
        assert!(seen.calls.is_empty());
    }
    let seen = run_fake(
        Fake::default(),
        &[("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "")],
        &config("1.0.0"),
    );
    assert_eq!(seen.error(), (4, "1.0.0".into()));
}

#[test]
fn own_netns_is_refused_before_the_call() {
    let own = ("CNI_NETNS", "/proc/self/ns/net");
    for verb in ["ADD", "DEL"] {
        let seen = run_fake(
            Fake::default(),
            &[("CNI_COMMAND", verb), own],
            &config("1.0.0"),
        );
        assert_eq!(seen.error().0, 8);
        assert!(seen.calls.is_empty());
        for value in ["1", "TRUE"] {
            let vars = [("CNI_COMMAND", verb), own, ("CNI_NETNS_OVERRIDE", value)];
            assert_eq!(run_fake(Fake::default(), &vars, &config("1.0.0")).status, 0);
        }
    }
    assert_eq!(
        run_fake(
            Fake::default(),
            &[("CNI_COMMAND", "CHECK"), own],
            &config("1.0.0")
        )
        .status,
        0
    );
}

#[test]
fn the_plugins_errors_and_panics_are_printed_once() {
    for (verb, _) in [
        ("ADD", ()),
        ("DEL", ()),
        ("GC", ()),
        ("STATUS", ()),
        ("CHECK", ()),
    ] {
        let fake = Fake {
            error: Some(Error::try_again_later("later").with_details("d")),
            ..Fake::default()
        };
        assert_eq!(
            run_fake(fake, &[("CNI_COMMAND", verb)], &config("1.1.0")).error(),
            (11, "1.1.0".into())
        );
        let fake = Fake {
            panics: true,
            ..Fake::default()
        };
        let seen = run_fake(fake, &[("CNI_COMMAND", verb)], &config("1.1.0"));
        assert_eq!(seen.error(), (999, "1.1.0".into()));
        assert!(seen.stdout.contains("told to"));
    }
}

#[test]
fn del_errors_are_worded_so_that_no_runtime_ignores_them() {
    let fake = || Fake {
        error: Some(Error::io("link not found")),
        ..Fake::default()
    };
    assert!(
        !run_fake(fake(), &[("CNI_COMMAND", "DEL")], &config("1.1.0"))
            .stdout
            .contains("not found")
    );
    assert!(
        run_fake(fake(), &[("CNI_COMMAND", "ADD")], &config("1.1.0"))
            .stdout
            .contains("not found")
    );
}

#[test]
fn an_add_that_cannot_be_printed_is_undone() {
    let fake = Fake {
        l2_only: true,
        ..Fake::default()
    };
    let seen = run_fake(fake, &[("CNI_COMMAND", "ADD")], &config("0.2.0"));
    assert_eq!(seen.error(), (1, "0.2.0".into()));
    assert_eq!(seen.calls, ["add", "undo"]);
}

/// A stdout or stdin that fails.
struct Broken;

impl io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn broken_streams_are_errors() {
    let vars = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c"),
        ("CNI_NETNS", "/x"),
        ("CNI_IFNAME", "e"),
        ("CNI_PATH", "/p"),
    ];
    let env: Environment = vars.into_iter().collect();
    let fake = Fake::default();
    let mut stderr = Vec::new();
    assert_eq!(
        run(&fake, &env, config("1.0.0").as_bytes(), Broken, &mut stderr),
        1
    );
    assert_eq!(*fake.calls.borrow(), ["add", "undo"]);
    assert!(!stderr.is_empty());

    let mut stdout = Vec::new();
    assert_eq!(
        run(&Fake::default(), &env, Broken, &mut stdout, io::sink()),
        1
    );
    assert!(String::from_utf8(stdout).unwrap().contains("\"code\":5"));
    let env = [("CNI_COMMAND", "VERSION")].into_iter().collect();
    assert_eq!(
        run(&Fake::default(), &env, Broken, io::sink(), io::sink()),
        0
    );
}

#[test]
fn passed_through_output_is_untouched() {
    let raw = Output::Raw(b" {} \n\n".to_vec());
    assert_eq!(raw.render(Version::V1_0_0).unwrap(), b" {} \n\n");
}
