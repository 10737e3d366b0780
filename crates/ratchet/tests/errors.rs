//! What the command line prints when a command fails.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeSet,
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
    thread,
};

const RATCHET: &str = env!("CARGO_BIN_EXE_ratchet");

/// Runs a command that must fail. Returns its standard error.
fn fails(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = Command::new(RATCHET).args(arguments).output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert!(!status.success(), "{arguments:?}: {text}");
    text
}

/// That a text says a cause, and nothing twice.
fn assert_says_once(text: &str, cause: &str) {
    assert!(text.contains(cause), "{text}");
    let mut parts = BTreeSet::new();
    for part in text.trim().split(": ") {
        assert!(parts.insert(part), "{part:?} is there twice: {text}");
    }
}

#[test]
fn without_an_agent_the_cause_is_said_once_and_then_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let socket = socket.to_str().unwrap();
    let says = format!(
        "ratchet: no agent answers on {socket}: No such file or directory (os error 2); start one"
    );
    for arguments in [
        &["links", "--socket", socket][..],
        &["forget-node", "n2", "--socket", socket],
    ] {
        let text = fails(arguments);
        assert!(text.starts_with(&says), "{text}");
        assert_says_once(&text, "No such file");
    }
    std::fs::write(socket, "").unwrap();
    assert_says_once(&fails(&["links", "--socket", socket]), "refused");
}

#[test]
fn an_agent_that_hangs_up_is_said_to_do_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || drop(listener.accept().unwrap()));
    let text = fails(&["links", "--socket", path.to_str().unwrap()]);
    assert_says_once(&text, "did not answer");
    assert!(!text.contains("start one"), "{text}");
    server.join().unwrap();
}

#[test]
fn an_agent_that_cannot_start_says_why_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let agent = |log_file: &str, socket: &str| {
        fails(&[
            "agent",
            "--state-dir",
            &path("state"),
            "--log-file",
            log_file,
            "--socket",
            socket,
        ])
    };
    assert_says_once(&agent(&path("no/log"), &path("a.sock")), "No such file");
    std::fs::write(path("file"), "").unwrap();
    let text = agent(&path("log"), &path("file/a.sock"));
    let error = text.lines().last().unwrap();
    assert_says_once(error, "Not a directory");
    assert!(Path::new(&path("log")).exists());
}
