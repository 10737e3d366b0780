//! The plugin killed at each of its steps; then a DEL, after which nothing may be left.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the report")]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{Node, failure, good, ours};
use ratchet_protocol::{FailureKind, Request};
use serde_json::{Value, json};

/// Calls the plugin as a process; whether it was killed.
fn is_killed(node: &Node, verb: &str, config: &Value, failpoint: &str) -> bool {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/plugin");
    let mut child = Command::new(program)
        .env_clear()
        .envs(node.env(verb, "c1").iter())
        .env("RATCHET_FAILPOINT", failpoint)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    child.wait().unwrap().signal() == Some(9)
}

#[test]
fn whatever_step_it_dies_at_del_leaves_nothing() {
    for &name in ratchet_failpoint::PLUGIN {
        let mut times_killed = 0;
        for (attach_fails, eligible) in [(false, true), (true, true), (false, false)] {
            let node = Node::new();
            for kind in ["bridge", "lo"] {
                let script =
                    r#"if [ $CNI_COMMAND = ADD ]; then echo '{}'; touch $D/lease.$N; else rm -f $D/lease.$N; fi"#;
                node.plugin(kind, script);
            }
            let attached = Arc::<Mutex<BTreeSet<String>>>::default();
            let _agent = node.agent({
                let attached = Arc::clone(&attached);
                move |request| {
                    match request {
                        Request::Attach(attach) => {
                            attached.lock().unwrap().insert(attach.attachment.container_id.to_string());
                            if attach_fails {
                                return failure(FailureKind::Io);
                            }
                        }
                        Request::Detach(detach) => {
                            attached.lock().unwrap().remove(detach.attachment.container_id.as_str());
                        }
                        _ => {}
                    }
                    good(request)
                }
            });
            let config = node.config(if eligible { json!({"runtimeConfig": ours()}) } else { json!({}) });
            times_killed += u32::from(is_killed(&node, "ADD", &config, name));
            times_killed += u32::from(is_killed(&node, "DEL", &config, name));
            assert!(!is_killed(&node, "DEL", &config, ""), "{name}");
            assert!(node.state().is_empty(), "{name}: {:?}", node.state());
            assert!(attached.lock().unwrap().is_empty(), "{name}");
            assert!(!node.path("lease.lo").exists() && !node.path("lease.bridge").exists(), "{name}");
        }
        assert!(times_killed > 0, "{name} is never passed");
    }
}
