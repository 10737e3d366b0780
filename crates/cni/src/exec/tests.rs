//! Tests of `exec`, with programs that behave badly.

use std::{fs::OpenOptions, os::unix::process::ExitStatusExt, time::Instant};

use super::*;
use crate::testing::Fakes;

const MIB: usize = 1 << 20;

#[test]
fn environment_stdin_and_outputs_are_those_given() {
    let fakes = Fakes::new();
    fakes.script(
        "p",
        "cat; echo \"$A-$CNI_COMMAND-$HOME\"; echo oops >&2; exit 3",
    );
    let env = [
        ("A", "a"),
        ("CNI_COMMAND", "ADD"),
        ("PATH", "/usr/bin:/bin"),
    ]
    .into_iter()
    .collect();
    let finished = fakes
        .executor()
        .run(&fakes.dir().join("p"), &env, b"in ")
        .unwrap();
    assert_eq!(finished.status.code(), Some(3));
    assert_eq!(finished.stdout, b"in a-ADD-\n");
    assert_eq!(finished.stderr, b"oops\n");
    assert_eq!(fakes.stderr.text(), "oops\n");
}

#[test]
fn a_mebibyte_each_way_does_not_block() {
    let fakes = Fakes::new();
    // Everything is written before anything is read.
    fakes.script(
        "p",
        "head -c 1048576 /dev/zero; head -c 1048576 /dev/zero >&2; cat",
    );
    let finished = fakes
        .executor()
        .run(&fakes.dir().join("p"), &fakes.env(), &vec![b'x'; MIB])
        .unwrap();
    assert_eq!(finished.stdout.len(), 2 * MIB);
    assert_eq!(finished.stderr.len(), MIB);
    assert_eq!(fakes.stderr.len(), MIB);
}

#[test]
fn a_program_need_not_read_its_stdin() {
    let fakes = Fakes::new();
    fakes.script("p", "exit 0");
    assert!(
        fakes
            .executor()
            .run(&fakes.dir().join("p"), &fakes.env(), &vec![0; MIB])
            .unwrap()
            .status
            .success()
    );
}

#[test]
fn a_program_that_has_closed_its_outputs_still_gets_its_stdin() {
    let fakes = Fakes::new();
    let path = fakes.dir().join("seen");
    fakes.script("p", &format!("exec >&- 2>&-; cat >{}", path.display()));
    assert!(
        fakes
            .executor()
            .run(&fakes.dir().join("p"), &fakes.env(), &vec![b'x'; MIB])
            .unwrap()
            .status
            .success()
    );
    assert_eq!(fs::metadata(path).unwrap().len(), MIB as u64);
}

#[test]
fn what_is_unread_when_a_program_ends_is_read() {
    let fakes = Fakes::new();
    // The pipe is full when the program ends, and another process keeps it open.
    fakes.script("p", "sleep 1 & head -c 65536 /dev/zero; exit 0");
    let executor = Executor {
        drain_grace: Duration::from_millis(200),
        ..fakes.executor()
    };
    let finished = executor
        .run(&fakes.dir().join("p"), &fakes.env(), b"")
        .unwrap();
    assert_eq!(finished.stdout.len(), 65536);
}

#[test]
fn a_program_that_prints_without_end_is_killed() {
    let fakes = Fakes::new();
    for line in ["exec cat /dev/zero", "exec cat /dev/zero >&2"] {
        fakes.script("p", line);
        let error = fakes
            .executor()
            .run(&fakes.dir().join("p"), &fakes.env(), b"")
            .unwrap_err();
        assert_eq!(error.to_string(), "it printed more than 16 MiB", "{line}");
    }
}

#[test]
fn a_program_being_written_is_retried() {
    let fakes = Fakes::new();
    fakes.script("p", "echo ok");
    let path = fakes.dir().join("p");
    let writer = OpenOptions::new().append(true).open(&path).unwrap();
    let busy = fakes
        .executor()
        .with_busy_pause(Duration::from_millis(5))
        .run(&path, &fakes.env(), b"")
        .unwrap_err();
    assert_eq!(busy.kind(), io::ErrorKind::ExecutableFileBusy);
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        drop(writer);
    });
    assert_eq!(
        fakes
            .executor()
            .run(&path, &fakes.env(), b"")
            .unwrap()
            .stdout,
        b"ok\n"
    );
}

#[test]
fn a_process_left_running_does_not_block_us() {
    let fakes = Fakes::new();
    fakes.script("p", "sleep 30 & echo ok");
    let executor = Executor {
        drain_grace: Duration::from_millis(200),
        ..fakes.executor()
    };
    let begin = Instant::now();
    let finished = executor
        .run(&fakes.dir().join("p"), &fakes.env(), b"")
        .unwrap();
    assert_eq!(finished.stdout, b"ok\n");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_program_dies_with_the_thread_that_started_it() {
    let fakes = Fakes::new();
    fakes.script("p", "exec sleep 30");
    let (executor, path, env) = (fakes.executor(), fakes.dir().join("p"), fakes.env());
    let mut child = thread::spawn(move || executor.spawn(&path, &env).unwrap())
        .join()
        .unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
}

#[test]
fn what_cannot_be_executed_is_an_error() {
    let fakes = Fakes::new();
    fs::write(fakes.dir().join("p"), "text").unwrap();
    assert!(
        fakes
            .executor()
            .run(&fakes.dir().join("p"), &fakes.env(), b"")
            .is_err()
    );
}

#[test]
fn the_first_regular_file_in_path_order_is_found() {
    let (one, two) = (Fakes::new(), Fakes::new());
    let dirs = [PathBuf::new(), one.dir().to_owned(), two.dir().to_owned()];
    fs::create_dir(one.dir().join("p")).unwrap();
    two.script("p", "");
    assert_eq!(find_in_path("p", &dirs), Ok(two.dir().join("p")));
    two.script("q", "");
    one.script("q", "");
    assert_eq!(find_in_path("q", &dirs), Ok(one.dir().join("q")));

    let error = find_in_path("r", &dirs).unwrap_err();
    assert_eq!(error.code, 101);
    assert!(
        error
            .details
            .contains(&format!("{}:{}", one.dir().display(), two.dir().display())),
        "{error}"
    );
    assert_eq!(find_in_path("../p", &dirs).unwrap_err().code, 7);
    // `.` is a directory that would contain it; an empty segment is not `.`.
    assert_eq!(
        find_in_path("Cargo.toml", &[PathBuf::new()])
            .unwrap_err()
            .code,
        101
    );
}
