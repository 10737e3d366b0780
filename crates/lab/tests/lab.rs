//! Brings whole labs up and down with a fake `ratchet` (examples/fake-ratchet.rs). Needs root and
//! iproute2.

// clippy.toml allows it in `#[test]` functions only, not in the helpers of an integration test.
#![allow(clippy::too_many_lines, clippy::unwrap_used)]

mod support;

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use support::{Lab, Outcome, eventually};

/// Two nodes, two pods. Pod a has a volume, and a script that leaves a process that ignores
/// SIGTERM.
const TWO_PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: a
  labels: {ratchet: "true"}
  annotations:
    ratchet.dev/lab-run: |
      echo "$(hostname) says $(cat /run/conf/greeting)"
      echo shared > /run/token
      (trap '' TERM; while :; do sleep 1000; done) &
spec:
  nodeSelector: {side: left}
  containers: [{name: c, volumeMounts: [{name: conf, mountPath: /run/conf}]}]
  volumes: [{name: conf, configMap: {name: conf}}]
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: blue}
spec: {nodeSelector: {side: right}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf}
data: {greeting: hello}
---
apiVersion: v1
kind: Service
metadata: {name: web}
"#;

#[test]
fn up_status_exec_down() {
    let lab = Lab::new("whole", TWO_PODS);
    let up = lab.run("up").ok();
    assert!(
        up.stderr.contains("document 4 (Service/web)"),
        "{}",
        up.stderr
    );
    assert!(
        up.stdout.contains(&format!(
            "ratchet lab exec --name {} a -- ip address",
            lab.name
        )),
        "{}",
        up.stdout
    );
    let id = lab.state()["id"].as_str().unwrap().to_owned();
    let names =
        ["a", "blue-b", "node1", "node2", "underlay"].map(|name| format!("{}-{name}", lab.name));
    assert_eq!(lab.namespaces(), names);

    // The agent runs in its node, and the plugin is called there, for the pod's namespace.
    assert_eq!(lab.recorded("AGENT-node2")["address"], "10.89.0.2");
    let add = lab.recorded("ADD-b");
    assert_eq!(add["devices"], serde_json::json!(["lo", "eth0"]));
    assert_eq!(
        add["env"]["CNI_NETNS"],
        format!("/run/netns/{}-blue-b", lab.name)
    );
    assert_eq!(add["env"]["CNI_IFNAME"], "eth0");
    let args = add["env"]["CNI_ARGS"].as_str().unwrap();
    assert!(
        args.starts_with("IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=b;"),
        "{args}"
    );
    let labels = &lab.recorded("ADD-a")["config"]["args"]["cni"]["labels"];
    assert_eq!(
        *labels,
        serde_json::json!([{"key": "ratchet", "value": "true"}])
    );

    // The inside of the pod: its hostname, its volume, its /run. Nothing of it is outside.
    eventually("the script's token", || {
        lab.exec("a", &["cat", "/run/token"]).stdout == "shared\n"
    });
    let log = fs::read_to_string(lab.path().join("pods/default_a/run.log")).unwrap();
    assert_eq!(log, "a says hello\n");
    assert_eq!(lab.exec("a", &["hostname"]).ok().stdout, "a\n");
    assert_eq!(
        lab.exec("a", &["sh", "-c", "ls /sys/class/net; ls /run"])
            .ok()
            .stdout,
        "lo\nconf\nnetns\ntoken\n"
    );
    assert!(
        lab.exec("a", &["ip", "netns"])
            .ok()
            .stdout
            .contains(&names[1])
    );
    lab.exec("a", &["touch", "/run/conf/x"])
        .fails_with("Read-only");
    assert_eq!(lab.exec("blue/b", &["sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(lab.exec("b", &["no-such-program"]).code, Some(127));
    lab.exec("c", &["true"])
        .fails_with("has no pod c; its pods are: a, blue/b");
    assert!(!std::path::Path::new("/run/token").exists());
    let other = Command::new("hostname").output().unwrap().stdout;
    assert_ne!(other, b"a\n", "the machine keeps its name");

    let status = lab.run("status").ok().stdout;
    for expected in [
        "10.89.0.1",
        "running, pid",
        "blue/b",
        "Links of node2:",
        "fake links of",
    ] {
        assert!(status.contains(expected), "{expected} in\n{status}");
    }
    lab.run("up").fails_with(&format!(
        "exists already: remove it with `ratchet lab down --name {}`",
        lab.name
    ));
    assert_eq!(
        lab.namespaces().len(),
        5,
        "the second up has touched nothing"
    );

    lab.run("down").ok();
    lab.assert_nothing_left(Some(&id));
    let del = lab.recorded("DEL-a");
    assert_eq!(del["config"]["prevResult"]["cniVersion"], "1.0.0");
    assert_eq!(del["netns"], true);
    lab.run("down").fails_with("there is no lab");
    lab.run("status").fails_with("there is no lab");
}

#[test]
fn a_failing_add_undoes_everything() {
    let lab = Lab::new("fail", TWO_PODS).with_fault("fail-add=b");
    lab.run("up")
        .fails_with("ADD of pod blue/b on node2 failed: code 7: a fault (injected)")
        .fails_with("everything that was made has been removed again");
    assert!(
        lab.was_called("DEL-a") && lab.was_called("DEL-b"),
        "a failed ADD needs a DEL, too"
    );
    lab.assert_nothing_left(None);
}

#[test]
fn an_agent_that_ends_at_once_is_quoted() {
    let lab = Lab::new("agent", TWO_PODS).with_fault("agent-exits");
    lab.run("up")
        .fails_with("ended at once")
        .fails_with("agent of node1 on eth0 10.89.0.1");
    lab.assert_nothing_left(None);
}

#[test]
fn an_interrupted_up_undoes_everything() {
    let lab = Lab::new("interrupt", TWO_PODS).with_fault("hang-add=b");
    let up = lab.spawn_up();
    lab.recorded("ADD-b");
    kill(Pid::from_raw(up.id() as i32), Signal::SIGINT).unwrap();
    let outcome = Outcome::of(up.wait_with_output().unwrap());
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("interrupted by SIGINT; everything"),
        "{}",
        outcome.stderr
    );
    assert!(lab.was_called("DEL-b"));
    lab.assert_nothing_left(None);
}

#[test]
fn down_removes_what_a_killed_up_has_left() {
    let lab = Lab::new("killed", TWO_PODS).with_fault("hang-add=b");
    let mut up = lab.spawn_up();
    lab.recorded("ADD-b");
    lab.run("down")
        .fails_with("another `ratchet lab up` or `down` is running");
    kill(Pid::from_raw(up.id() as i32), Signal::SIGKILL).unwrap();
    up.wait().unwrap();
    assert_eq!(lab.namespaces().len(), 5);
    lab.run("up")
        .fails_with("exists already (its `up` has not finished)");
    let id = lab.state()["id"].as_str().unwrap().to_owned();
    lab.run("down").ok();
    lab.assert_nothing_left(Some(&id));
}

#[test]
fn down_works_when_agents_are_dead_and_namespaces_gone() {
    let lab = Lab::new("dead", TWO_PODS);
    lab.run("up").ok();
    let state = lab.state();
    let agent = state["nodes"][0]["agent"]["pid"].as_i64().unwrap();
    kill(Pid::from_raw(agent as i32), Signal::SIGKILL).unwrap();
    eventually("the end of the agent in status", || {
        lab.run("status").stdout.contains("dead (was pid")
    });
    // The process of pod a that ignores SIGTERM still runs, in a namespace without a name.
    let taken = Command::new("ip")
        .args(["netns", "del", &format!("{}-a", lab.name)])
        .status()
        .unwrap();
    assert!(taken.success());
    lab.exec("a", &["true"])
        .fails_with("does not exist any more");
    lab.run("down").ok();
    lab.assert_nothing_left(state["id"].as_str());
}

#[test]
fn a_file_with_errors_makes_nothing() {
    let lab = Lab::new("errors", &TWO_PODS.replace("\"true\"", "true"));
    lab.run("up")
        .fails_with("lab.yaml: document 1 (Pod/a): metadata.labels.ratchet: expected a string");
    lab.assert_nothing_left(None);
}

#[test]
fn a_foreign_namespace_stays_untouched() {
    let lab = Lab::new("foreign", TWO_PODS);
    let foreign = format!("{}-node2", lab.name);
    assert!(
        Command::new("ip")
            .args(["netns", "add", &foreign])
            .status()
            .unwrap()
            .success()
    );
    lab.run("up").fails_with(&format!(
        "the network namespace {foreign} exists already and is not this lab's"
    ));
    assert_eq!(lab.namespaces(), [foreign.as_str()]);
    assert!(
        Command::new("ip")
            .args(["netns", "del", &foreign])
            .status()
            .unwrap()
            .success()
    );
    lab.assert_nothing_left(None);
}

#[test]
fn whenever_an_up_is_killed_down_leaves_nothing() {
    stop_at_many_moments("kill", Signal::SIGKILL, |lab, _| {
        if lab.path().exists() {
            lab.run("down").ok();
        }
    });
}

#[test]
fn whenever_an_up_is_interrupted_it_removes_everything_itself() {
    stop_at_many_moments("term", Signal::SIGTERM, |lab, ended| {
        if ended.success() {
            lab.run("down").ok();
        } else {
            // Before it catches signals it has made nothing, so the signal may end it.
            assert!(
                ended.code() == Some(143) || ended.signal() == Some(15),
                "{ended}"
            );
        }
    });
}

fn stop_at_many_moments(test: &str, signal: Signal, clear: impl Fn(&Lab, ExitStatus)) {
    let manifest = TWO_PODS.replace("trap '' TERM; ", "");
    for delay in (0..120).step_by(12) {
        let lab = Lab::new(&format!("{test}{delay}"), &manifest);
        let mut up = lab.spawn_up();
        // This does not wait for a state: it varies the moment of the signal.
        std::thread::sleep(Duration::from_millis(delay));
        kill(Pid::from_raw(up.id() as i32), signal).unwrap();
        clear(&lab, up.wait().unwrap());
        lab.assert_nothing_left(None);
    }
}
