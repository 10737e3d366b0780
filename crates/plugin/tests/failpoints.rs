//! The plugin killed at each of its steps; then a DEL, after which nothing may be left.
#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "tests: a panic is the report"
)]

mod common;

use std::{
    collections::BTreeSet,
    io::Write,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ratchet_protocol::{FailureKind, Request};
use serde_json::{Value, json};

use common::{Node, failure, good, ours};

/// Starts the plugin as a process.
fn spawn(node: &Node, verb: &str, config: &Value, failpoint: &str) -> Child {
    let program = std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/plugin");
    let mut child = Command::new(program)
        .env_clear()
        .envs(node.env(verb, "c1").iter())
        .env("RATCHET_FAILPOINT", failpoint)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(config.to_string().as_bytes())
        .unwrap();
    child
}

/// Calls the plugin as a process. Returns whether it was killed.
fn is_killed(node: &Node, verb: &str, config: &Value, failpoint: &str) -> bool {
    spawn(node, verb, config, failpoint)
        .wait()
        .unwrap()
        .signal()
        == Some(9)
}

fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !probe() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn if_it_dies_at_any_step_del_leaves_nothing() {
    for &name in ratchet_failpoint::PLUGIN {
        let mut times_killed = 0;
        for (attach_fails, eligible) in [(false, true), (true, true), (false, false)] {
            let node = Node::new();
            for kind in ["bridge", "lo"] {
                let script = r#"if [ $CNI_COMMAND = ADD ]; then echo '{}'; touch $D/lease.$N
                    else rm -f $D/lease.$N; fi"#;
                node.plugin(kind, script);
            }
            let attached = Arc::<Mutex<BTreeSet<String>>>::default();
            let _agent = node.agent({
                let attached = Arc::clone(&attached);
                move |request| {
                    match request {
                        Request::Attach(attach) => {
                            attached
                                .lock()
                                .unwrap()
                                .insert(attach.attachment.container_id.to_string());
                            if attach_fails {
                                return failure(FailureKind::Io);
                            }
                        }
                        Request::Detach(detach) => {
                            attached
                                .lock()
                                .unwrap()
                                .remove(detach.attachment.container_id.as_str());
                        }
                        _ => {}
                    }
                    good(request)
                }
            });
            let config = node.config(if eligible {
                json!({"runtimeConfig": ours()})
            } else {
                json!({})
            });
            times_killed += u32::from(is_killed(&node, "ADD", &config, name));
            times_killed += u32::from(is_killed(&node, "DEL", &config, name));
            assert!(!is_killed(&node, "DEL", &config, ""), "{name}");
            assert!(node.state().is_empty(), "{name}: {:?}", node.state());
            assert!(attached.lock().unwrap().is_empty(), "{name}");
            assert!(
                !node.path("lease.lo").exists() && !node.path("lease.bridge").exists(),
                "{name}"
            );
        }
        assert!(times_killed > 0, "{name} is never passed");
    }
}

/// An embedded plugin that is killed with its caller ends only when its last system call ends,
/// which may be after the next call has begun.
#[test]
fn a_del_waits_until_the_killed_adds_plugins_have_ended() {
    let node = Node::new();
    // A process that is not killed with the plugin stands for that system call.
    let script = r#"
        if [ $CNI_COMMAND = DEL ]; then rm -f $D/device; exit; fi
        (touch $D/begun; until [ -e $D/go ]; do sleep 0.01; done; touch $D/device; touch $D/done) &
        wait"#;
    node.plugin("bridge", script);
    let config = node.config(json!({}));
    let mut add = spawn(&node, "ADD", &config, "");
    eventually("the plugin's start", || node.path("begun").exists());
    add.kill().unwrap();
    add.wait().unwrap();
    let mut del = spawn(&node, "DEL", &config, "");
    let fds = format!("/proc/{}/fd", del.id());
    eventually("DEL at the lock, or its end", || {
        let files = std::fs::read_dir(&fds).into_iter().flatten().flatten();
        let mut paths = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        paths.any(|path| path.ends_with("c1/eth0.lock")) || del.try_wait().unwrap().is_some()
    });
    std::fs::write(node.path("go"), "").unwrap();
    // On a busy machine the DEL may wait for too long. Then it is repeated, as by a runtime.
    let is_done = del.wait().unwrap().success();
    eventually("DEL", || {
        is_done || spawn(&node, "DEL", &config, "").wait().unwrap().success()
    });
    eventually("the device", || node.path("done").exists());
    assert!(
        !node.path("device").exists(),
        "DEL ended before the change that it must undo"
    );
    assert!(node.state().is_empty(), "{:?}", node.state());
}
