//! The benchmark's driver works: it measures a few rows with few rounds and leaves nothing. The
//! figures do not matter here.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

const BENCH: &str = env!("CARGO_BIN_EXE_ratchet-bench");

/// The binary under test is beside the benchmark's: `make test` builds the workspace first.
fn ratchet() -> PathBuf {
    let path = Path::new(BENCH).with_file_name("ratchet");
    assert!(
        path.exists(),
        "{} is missing: cargo build --workspace",
        path.display()
    );
    path
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(BENCH)
        .args(arguments)
        .arg("--ratchet")
        .arg(ratchet())
        .output()
        .unwrap()
}

/// The namespaces of a benchmark's process.
fn left_by(pid: u32) -> Vec<String> {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.starts_with(&format!("rb-{pid}-")))
        .collect()
}

#[test]
fn rows_are_measured_and_written_down() {
    let out = tempfile::NamedTempFile::new().unwrap();
    let path = out.path().to_str().unwrap();
    let rows = [
        "--row",
        "start",
        "--row",
        "calls",
        "--row",
        "pass-through",
        "--row",
        "event",
    ];
    let output = bench(&[&["--quick", "--rounds", "2", "--out", path], &rows[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let results = fs::read_to_string(path).unwrap();
    for words in [
        "* kernel: Linux",
        "* CPU: ",
        "| VERSION, p50 |",
        "| ADD of a pod with one link, p50 of 2 |",
        "p99 of 2 |",
        "### event",
    ] {
        assert!(
            results.contains(words),
            "does not have {words:?}:\n{results}"
        );
    }
}

#[test]
fn an_unknown_row_is_refused_and_the_known_ones_are_named() {
    let output = bench(&["--row", "nonsense"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("choose from local, remote, calls"));
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let mut child = Command::new(BENCH)
        .args([
            "--quick",
            "--row",
            "calls",
            "--rounds",
            "100000",
            "--ratchet",
        ])
        .arg(ratchet())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while left_by(child.id()).len() < 3 {
        assert!(
            Instant::now() < deadline,
            "the benchmark makes no namespaces"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(left_by(child.id()), Vec::<String>::new());
}
