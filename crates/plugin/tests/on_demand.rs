//! An agent started by the plugins themselves.
#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "tests: a panic is the report"
)]

mod common;

use std::{
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::json;

use common::{Node, ours};

/// The example program that acts as an agent. Cargo builds it with the tests.
fn fake_agent() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/fake_agent");
    assert!(
        path.exists(),
        "{} is missing: cargo build -p ratchet-plugin --examples",
        path.display()
    );
    path
}

/// Ends the fake agent, also if the test fails.
struct Ending(PathBuf);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn fifty_plugins_start_one_agent_which_holds_nothing_of_theirs() {
    let node = Node::new();
    let started = node.path("run/agent.sock.started");
    let _ending = Ending(started.clone());
    // A descriptor that our parent left open on exec.
    let leaked = fs::File::create(node.path("leaked")).unwrap();
    fcntl(&leaked, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let config = node.config(json!({"runtimeConfig": ours(), "child_path": fake_agent(),
        "node": "n1", "mtu": 1400,
        "parent_interface": "eth0", "parent_address": "192.0.2.1", "store": "sqlite:/s",
        "log_level": "debug"}));
    std::thread::scope(|scope| {
        for number in 0..50 {
            let (node, config) = (&node, &config);
            scope.spawn(move || node.call("ADD", &format!("c{number}"), config).ok());
        }
    });
    let lines = node.read("run/agent.sock.started");
    assert_eq!(lines.lines().count(), 1, "{lines}");
    let (pid, args) = lines.trim().split_once(' ').unwrap();
    let dir = node.path("");
    let dir = dir.to_str().unwrap().trim_end_matches('/');
    assert_eq!(
        args,
        format!(
            "agent --on-demand --socket {dir}/run/agent.sock --state-dir {dir}/state \
             --node-key {dir}/state.key \
             --log-level debug --store sqlite:/s --node n1 --parent-interface eth0 \
             --parent-address 192.0.2.1 --mtu 1400"
        )
    );

    let proc = Path::new("/proc").join(pid);
    let mut sockets = 0;
    for fd in fs::read_dir(proc.join("fd")).unwrap() {
        let fd = fd.unwrap();
        let target = fs::read_link(fd.path()).unwrap();
        let number: i32 = fd.file_name().to_str().unwrap().parse().unwrap();
        match number {
            0..=2 => assert_eq!(target, Path::new("/dev/null")),
            _ => {
                // Its own listener, and perhaps a connection that is being closed.
                assert!(
                    target.to_str().unwrap().starts_with("socket:"),
                    "{number} is {target:?}"
                );
                sockets += 1;
            }
        }
    }
    assert!((1..=2).contains(&sockets), "{sockets}");
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    let environ = String::from_utf8_lossy(&fs::read(proc.join("environ")).unwrap()).into_owned();
    assert!(
        environ.contains("PATH=") && !environ.contains("CNI_"),
        "{environ}"
    );

    let stat = fs::read_to_string(proc.join("stat")).unwrap();
    let fields: Vec<i32> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .skip(1)
        .take(3)
        .map(|field| field.parse().unwrap())
        .collect();
    let [parent, group, session] = fields[..] else {
        panic!("{stat}")
    };
    let ours = std::process::id().cast_signed();
    assert_ne!(parent, ours, "still our child");
    let own_session = nix::unistd::getsid(None).unwrap().as_raw();
    assert!(group == session && session != own_session, "{stat}");
    let status = fs::read_to_string(proc.join("status")).unwrap();
    assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &str| fs::metadata(node.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("run"), mode("run/agent.sock.start")), (0o700, 0o600));
    assert!(leaked.as_raw_fd() > 2);

    for number in 0..50 {
        node.call("DEL", &format!("c{number}"), &config).ok();
    }
    assert!(node.state().is_empty());
    fs::remove_file(&started).unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    while proc.exists() && !is_zombie(&proc) {
        assert!(Instant::now() < until, "the fake agent does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_zombie(proc: &Path) -> bool {
    fs::read_to_string(proc.join("stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn a_start_that_fails_says_why() {
    let node = Node::new();
    let script = |text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = node.path("child");
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let config = node.config(
            json!({"runtimeConfig": ours(), "child_path": path, "log_file": "/var/log/r.log"}),
        );
        let seen = node.call("ADD", "c1", &config);
        assert_eq!(seen.code(), 11);
        seen.stdout
    };
    assert!(script("#!/bin/sh\nexit 3\n").contains("(exit status: 3); see /var/log/r.log"));
    let killed = script("#!/bin/sh\nkill -9 $$\n");
    assert!(killed.contains("signal: 9"), "{killed}");
    let not_a_program = script("#!/nowhere/sh\n");
    assert!(
        not_a_program.contains("could not be started"),
        "{not_a_program}"
    );
    assert!(node.state().is_empty());
}

#[test]
fn an_agent_that_dies_while_it_is_asked_is_replaced() {
    let node = Node::new();
    let started = node.path("run/agent.sock.started");
    let _ending = Ending(started.clone());
    let config = node.config(json!({"runtimeConfig": ours(), "child_path": fake_agent()}));
    fs::create_dir(node.path("run")).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(node.path("run/agent.sock")).unwrap();
    // A process that is killed closes its connections first, and still accepts new ones for a
    // moment.
    std::thread::spawn(move || (0..3).for_each(|_| drop(listener.accept().unwrap())));
    node.call("DEL", "c1", &config).ok();
    assert!(started.exists(), "no agent was started");
}
