//! ADD, DEL, CHECK, GC and STATUS with fake embedded plugins and a fake agent.
#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "tests: a panic is the report"
)]

mod common;

use std::{
    fs,
    time::{Duration, Instant},
};

use ratchet_protocol::{Attached, FailureKind, Prepared, Reply, Request};
use serde_json::{Value, json};

use common::{Node, call, failure, good, ours};

const STATE: [&str; 2] = ["net/c1/eth0.json", "net/c1/eth0.lock"];
const STATE_OF_OURS: [&str; 3] = [
    "net/c1/eth0.appended",
    "net/c1/eth0.json",
    "net/c1/eth0.lock",
];

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

// ---- pods that are not Ratchet's

#[test]
fn a_pod_that_is_not_ours_gets_what_the_delegate_printed_and_needs_no_agent() {
    let node = Node::new();
    let config =
        node.config(json!({"args": {"cni": {"labels": [{"key": "ratchet", "value": "false"}]}}}));
    let seen = node.call("ADD", "c1", &config).ok();
    assert!(
        seen.stdout
            .starts_with("{ \"cniVersion\":\"1.0.0\", \"interfaces\""),
        "{}",
        seen.stdout
    );
    assert!(seen.stdout.ends_with("\"x\":1.50 }\n"), "{}", seen.stdout);
    assert_eq!(
        node.read("bridge.ADD.stdin"),
        r#"{"k":1,"type":"bridge","name":"net","cniVersion":"1.0.0"}"#
    );
    assert_eq!(sorted(node.state()), STATE);

    // DEL gives ADD's bytes, even if the config has changed.
    let edited = node.config(json!({"delegate": {"type": "other"}, "boot_network": null}));
    node.call("DEL", "c1", &edited).ok();
    assert_eq!(node.read("bridge.DEL.stdin"), node.read("bridge.ADD.stdin"));
    assert_eq!(node.calls(), ["ADD bridge", "DEL bridge"]);
    assert!(node.state().is_empty());
    assert!(!node.path("state/attachments/net").exists());
}

#[test]
fn the_agent_decides() {
    let node = Node::new();
    let agent = node.agent(|_| Some(Reply::Prepared(Prepared { ours: false })));
    node.call("ADD", "c1", &node.config(json!({"runtimeConfig": ours()})))
        .ok();
    assert_eq!(
        (agent.asked(), node.calls()),
        (vec!["prepare".to_owned()], vec!["ADD bridge".to_owned()])
    );
}

#[test]
fn a_failing_delegate_is_rolled_back_and_its_error_passed_on() {
    let node = Node::new();
    node.plugin(
        "bridge",
        r#"[ $CNI_COMMAND = ADD ] || exit 0; echo '{"code":77,"msg":"m","details":"d"}'; exit 1"#,
    );
    let seen = node.call("ADD", "c1", &node.config(json!({})));
    assert_eq!(
        (seen.code(), seen.json()["details"].as_str()),
        (77, Some("d"))
    );
    assert_eq!(node.calls(), ["ADD bridge", "DEL bridge"]);
    assert!(node.state().is_empty());
}

#[test]
fn without_delegate_and_chain_add_is_refused() {
    let node = Node::new();
    for (more, eligible) in [
        (json!({"delegate": null}), false),
        (json!({"delegate": null, "boot_network": null}), false),
        (
            json!({"delegate": null, "boot_network": null, "runtimeConfig": ours()}),
            true,
        ),
    ] {
        let seen = node.call("ADD", "c1", &node.config(more));
        assert_eq!(seen.code(), 7, "{eligible}");
        assert!(seen.stdout.contains("delegate"), "{}", seen.stdout);
    }
    assert!(node.state().is_empty());
}

#[test]
fn a_result_that_has_no_form_in_the_version_is_rolled_back() {
    let node = Node::new();
    node.plugin(
        "l2",
        r#"[ $CNI_COMMAND = ADD ] || exit 0; echo '{"cniVersion":"1.0.0",
        "interfaces":[{"name":"a"}]}'"#,
    );
    let seen = node.call(
        "ADD",
        "c1",
        &node.config(json!({"cniVersion": "0.2.0", "delegate": {"type": "l2"}})),
    );
    assert_eq!(seen.code(), 1);
    assert_eq!(node.calls(), ["ADD l2", "DEL l2"]);
    assert!(node.state().is_empty());
}

// ---- Ratchet's pods

#[test]
fn our_pod_boots_and_gets_its_interfaces_behind_the_boot_networks() {
    let node = Node::new();
    let agent = node.agent(good);
    let config = node.config(
        json!({"runtimeConfig": ours(), "boot_network": null, "cniVersion": "1.1.0", "mtu": 1400,
        "dns": {"nameservers": ["10.0.0.10"]}}),
    );
    let seen = node.call("ADD", "c1", &config).ok();
    let result = seen.json();
    let interface = |name: &str, mac: &str| {
        json!({"name": name, "mac": mac, "mtu": 1450,
        "sandbox": "/proc/self/ns/net"})
    };
    assert_eq!(
        result["interfaces"],
        json!([{"name": "veth0"}, {"name": "eth0", "sandbox": "/proc/self/ns/net"},
            interface("in1", "02:00:00:00:00:01"), interface("in2", "02:00:00:00:00:02")])
    );
    assert_eq!(
        result["ips"],
        json!([{"address": "10.1.0.2/24", "interface": 1}])
    );
    assert_eq!(
        (&result["dns"]["nameservers"][0], &result["x"]),
        (&json!("10.0.0.10"), &json!(1.5))
    );
    assert!(
        seen.stderr
            .contains("a link is not up yet: default/pod/in3"),
        "{}",
        seen.stderr
    );

    let requests = agent.requests();
    let [
        Request::Prepare(prepare),
        Request::Expect(expect),
        Request::Attach(attach),
    ] = &requests[..]
    else {
        panic!("{requests:?}")
    };
    assert_eq!(
        (prepare.pod.namespace.as_str(), prepare.pod.name.as_str()),
        ("ns", "pod")
    );
    assert_eq!(
        (
            prepare.interface.as_str(),
            prepare.settings.mtu.map(u32::from)
        ),
        ("eth0", Some(1400))
    );
    assert_eq!((&attach.prepare, expect), (prepare, attach));
    assert_eq!(
        (
            attach.attachment.network.as_str(),
            attach.attachment.container_id.as_str()
        ),
        ("net", "c1")
    );

    node.call("DEL", "c1", &node.config(json!({"boot_network": null})))
        .ok();
    assert_eq!(agent.asked(), ["detach"]);
    node.call("DEL", "c1", &node.config(json!({"boot_network": null})))
        .ok();
    assert_eq!(node.calls(), ["ADD bridge", "DEL bridge", "DEL bridge"]);
    assert!(node.state().is_empty());
}

#[test]
fn a_base_without_address_gets_one_without_interface() {
    for (addresses, expected) in [(true, "192.168.2.100/24"), (false, "127.0.0.1/8")] {
        for version in ["0.2.0", "0.4.0", "1.0.0"] {
            let node = Node::new();
            let _agent = node.agent(move |request| match request {
                Request::Attach(_) if !addresses => Some(Reply::Attached(Attached::default())),
                request => good(request),
            });
            node.plugin("empty", "echo '{}'");
            let boot = if version == "1.0.0" { "lo" } else { "empty" };
            let config = node.config(json!({"cniVersion": version, "runtimeConfig": ours(),
                    "boot_network": {"type": boot}}));
            let result = node.call("ADD", "c1", &config).ok().json();
            if version == "0.2.0" {
                assert_eq!(result["ip4"]["ip"], expected);
                continue;
            }
            let last = result["ips"].as_array().unwrap().last().unwrap();
            assert_eq!(
                (&last["address"], last.get("interface")),
                (&json!(expected), None),
                "{result}"
            );
            let interfaces = result["interfaces"].as_array().cloned().unwrap_or_default();
            assert!(
                interfaces
                    .iter()
                    .all(|interface| interface.get("mtu").is_none()),
                "{result}"
            );
        }
    }
}

#[test]
fn what_the_agent_refuses_is_refused_before_the_boot_network_runs() {
    for (kind, code) in [
        (FailureKind::Invalid, 7),
        (FailureKind::TryLater, 11),
        (FailureKind::Io, 5),
        (FailureKind::Internal, ratchet_plugin::code::AGENT.into()),
        (FailureKind::Protocol, ratchet_plugin::code::PROTOCOL.into()),
    ] {
        let node = Node::new();
        let _agent = node.agent(move |_| failure(kind));
        let seen = node.call("ADD", "c1", &node.config(json!({"runtimeConfig": ours()})));
        assert_eq!(seen.code(), code);
        assert!(seen.stdout.contains("the agent says so"));
        assert!(node.calls().is_empty() && node.state().is_empty());
    }
}

#[test]
fn a_failed_attach_is_undone_as_a_whole() {
    for hang_up in [false, true] {
        let node = Node::new();
        let agent = node.agent(move |request| match request {
            Request::Attach(_) if hang_up => None,
            Request::Attach(_) => failure(FailureKind::Io),
            request => good(request),
        });
        let seen = node.call("ADD", "c1", &node.config(json!({"runtimeConfig": ours()})));
        assert_eq!(seen.code(), if hang_up { 11 } else { 5 });
        assert_eq!(agent.asked(), ["prepare", "expect", "attach", "detach"]);
        assert_eq!(node.calls(), ["ADD lo", "DEL lo"]);
        assert!(node.state().is_empty());
    }
}

#[test]
fn what_cannot_be_undone_keeps_its_state_and_the_first_error() {
    let node = Node::new();
    node.plugin(
        "lo",
        r#"[ $CNI_COMMAND = ADD ] && echo '{}' || { [ -e "$D/repaired" ] || exit 1; }"#,
    );
    let _agent = node.agent(|request| match request {
        Request::Attach(_) => failure(FailureKind::Invalid),
        request => good(request),
    });
    let config = node.config(json!({"runtimeConfig": ours()}));
    assert_eq!(node.call("ADD", "c1", &config).code(), 7);
    assert_eq!(sorted(node.state()), STATE);
    fs::write(node.path("repaired"), "").unwrap();
    node.call("DEL", "c1", &config).ok();
    assert_eq!(node.calls(), ["ADD lo", "DEL lo", "DEL lo"]);
    assert!(node.state().is_empty());
}

#[test]
fn an_attachment_that_exists_stays() {
    let node = Node::new();
    let agent = node.agent(good);
    for more in [json!({}), json!({"runtimeConfig": ours()})] {
        let config = node.config(more);
        node.call("ADD", "c1", &config).ok();
        let before = node.read("state/attachments/net/c1/eth0.json");
        node.calls();
        agent.requests();
        assert_eq!(
            node.call("ADD", "c1", &config).code(),
            u64::from(ratchet_plugin::code::EXISTS)
        );
        assert!(node.calls().is_empty() && agent.was_asked_for_nothing());
        assert_eq!(node.read("state/attachments/net/c1/eth0.json"), before);
        node.call("DEL", "c1", &config).ok();
        node.call("ADD", "c1", &config).ok();
        node.call("DEL", "c1", &config).ok();
        assert!(node.state().is_empty());
    }
    // The agent knows an attachment that we do not know: it is not detached.
    drop(agent);
    let agent = node.agent(|request| match request {
        Request::Attach(_) => failure(FailureKind::Exists),
        request => good(request),
    });
    let seen = node.call("ADD", "c1", &node.config(json!({"runtimeConfig": ours()})));
    assert_eq!(seen.code(), u64::from(ratchet_plugin::code::EXISTS));
    assert_eq!(agent.asked(), ["prepare", "expect", "attach"]);
    assert!(node.state().is_empty());
}

#[test]
fn no_agent_is_code_11_and_says_why() {
    let node = Node::new();
    let seen = node.call("ADD", "c1", &node.config(json!({"runtimeConfig": ours()})));
    assert_eq!(seen.code(), 11);
    assert!(seen.stdout.contains(
        "/bin/false was started as the agent and ended before it answered (exit status: 1)"
    ));
    assert!(node.calls().is_empty() && node.state().is_empty());
}

#[test]
fn a_netns_that_is_no_namespace_is_refused_before_anything_is_made() {
    let node = Node::new();
    let agent = node.agent(good);
    for netns in ["/nowhere", "/etc/passwd"] {
        let mut env = node.env("ADD", "c1");
        env.set("CNI_NETNS", netns);
        assert_eq!(
            call(&env, &node.config(json!({"runtimeConfig": ours()}))).code(),
            8,
            "{netns}"
        );
    }
    assert!(agent.requests().is_empty() && node.calls().is_empty() && node.state().is_empty());
}

#[test]
fn a_state_that_cannot_be_written_is_code_5_and_nothing_is_done() {
    let node = Node::new();
    let agent = node.agent(good);
    fs::write(node.path("file"), "").unwrap();
    for more in [json!({}), json!({"runtimeConfig": ours()})] {
        let mut config = node.config(more);
        config["state_dir"] = json!(node.path("file"));
        assert_eq!(node.call("ADD", "c1", &config).code(), 5);
        assert!(agent.was_asked_for_nothing() && node.calls().is_empty());
    }
}

#[test]
fn a_full_disk_is_code_5_and_leaves_nothing_half_done() {
    use nix::mount::{MsFlags, mount};
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: skipped");
        return;
    }
    let node = Node::new();
    let agent = node.agent(good);
    let state = node.path("state");
    fs::create_dir(&state).unwrap();
    std::thread::scope(|scope| {
        // A mount namespace for this thread only.
        scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(
                Some("tmpfs"),
                &state,
                Some("tmpfs"),
                MsFlags::empty(),
                Some("size=64k"),
            )
            .unwrap();
            fs::write(state.join("filler"), vec![0; 1 << 20]).unwrap_err();
            for more in [json!({}), json!({"runtimeConfig": ours()})] {
                let seen = node.call("ADD", "c1", &node.config(more));
                assert_eq!(seen.code(), 5);
                assert!(seen.stdout.contains("No space left"), "{}", seen.stdout);
                assert!(node.state().is_empty() && node.calls().is_empty());
                assert!(!agent.asked().contains(&"attach".to_owned()));
            }
        });
    });
}

// ---- chained

fn chained(node: &Node, more: Value) -> Value {
    let mut config = node.config(
        json!({"delegate": null, "boot_network": null, "cniVersion": "0.4.0", "prevResult":
        {"cniVersion": "0.4.0", "interfaces": [{"name": "eth0", "sandbox": "/proc/self/ns/net"}],
         "ips": [{"version": "4", "address": "10.0.0.2/24", "interface": 0}], "y": [1]}}),
    );
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn a_chained_plugin_passes_the_result_on() {
    let node = Node::new();
    let config = chained(&node, json!({}));
    assert_eq!(
        node.call("ADD", "c1", &config).ok().stdout,
        config["prevResult"].to_string()
    );
    assert!(node.state().is_empty());

    let agent = node.agent(good);
    let config = chained(&node, json!({"runtimeConfig": ours()}));
    let result = node.call("ADD", "c1", &config).ok().json();
    let names: Vec<_> = result["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|interface| &interface["name"])
        .collect();
    assert_eq!(names, ["eth0", "in1", "in2"]);
    assert_eq!(
        (&result["ips"], &result["y"]),
        (&config["prevResult"]["ips"], &json!([1]))
    );
    node.call("DEL", "c1", &chained(&node, json!({"prevResult": 7})))
        .ok();
    assert_eq!(agent.asked(), ["prepare", "attach", "detach"]);
    assert!(node.calls().is_empty() && node.state().is_empty());
}

#[test]
fn a_chained_plugin_may_not_wrap() {
    let node = Node::new();
    for key in ["delegate", "boot_network"] {
        let seen = node.call(
            "ADD",
            "c1",
            &chained(&node, json!({key: {"type": "bridge"}})),
        );
        assert_eq!(seen.code(), 7);
    }
    assert!(node.calls().is_empty());
}

// ---- DEL

#[test]
fn del_without_state_gives_both_the_current_config() {
    let node = Node::new();
    let agent = node.agent(good);
    for damage in [None, Some(""), Some("{"), Some("[]")] {
        if let Some(damage) = damage {
            fs::create_dir_all(node.path("state/attachments/net/c1")).unwrap();
            fs::write(node.path("state/attachments/net/c1/eth0.json"), damage).unwrap();
        }
        let mut env = node.env("DEL", "c1");
        env.set("CNI_NETNS", "");
        call(&env, &node.config(json!({}))).ok();
        assert_eq!(sorted(node.calls()), ["DEL bridge", "DEL lo"], "{damage:?}");
        assert_eq!(agent.asked(), ["detach"]);
        assert!(node.state().is_empty());
    }
    // Programs that are missing have nothing to remove.
    node.call(
        "DEL",
        "c1",
        &node.config(json!({"delegate": {"type": "gone"}})),
    )
    .ok();
    assert_eq!(node.calls(), ["DEL lo"]);
}

#[test]
fn del_goes_on_after_an_error_keeps_the_state_and_can_be_repeated() {
    let node = Node::new();
    let agent = node.agent(good);
    let config = node.config(json!({"runtimeConfig": ours()}));
    node.call("ADD", "c1", &config).ok();
    node.plugin(
        "lo",
        "echo 'the lease was not found: no such file or directory' >&2; exit 1",
    );
    agent.requests();
    let seen = node.call("DEL", "c1", &config);
    assert_eq!(seen.code(), 100);
    assert!(
        !seen.stdout.contains("not found") && !seen.stdout.contains("no such file"),
        "{}",
        seen.stdout
    );
    assert_eq!(agent.asked(), ["detach"]);
    let first = node.read("lo.DEL.stdin");
    assert_eq!(sorted(node.state()), STATE_OF_OURS);
    node.plugin("lo", "exit 0");
    node.call(
        "DEL",
        "c1",
        &node.config(json!({"boot_network": {"type": "lo", "edited": true}})),
    )
    .ok();
    assert_eq!(node.read("lo.DEL.stdin"), first);
    assert!(node.state().is_empty());
}

#[test]
fn a_del_that_the_agent_refuses_keeps_the_state_but_undoes_the_rest() {
    let node = Node::new();
    let agent = node.agent(good);
    let config = node.config(json!({"runtimeConfig": ours()}));
    node.call("ADD", "c1", &config).ok();
    drop(agent);
    let agent = node.agent(|_| failure(FailureKind::Io));
    assert_eq!(node.call("DEL", "c1", &config).code(), 5);
    assert_eq!(
        (node.calls().len(), sorted(node.state())),
        (2, STATE_OF_OURS.map(String::from).to_vec())
    );
    drop(agent);
    // If the agent says "later", or none answers, the agent removes the links later.
    let agent = node.agent(|_| failure(FailureKind::TryLater));
    let seen = node.call("DEL", "c1", &config).ok();
    assert!(seen.stderr.contains("later"), "{}", seen.stderr);
    drop(agent);
    assert!(node.state().is_empty());
}

#[test]
fn del_ends_in_time_without_an_agent() {
    let node = Node::new();
    let agent = node.agent(good);
    let config = node.config(json!({"runtimeConfig": ours()}));
    node.call("ADD", "c1", &config).ok();
    drop(agent);
    // The worst case: an agent that is started and never answers.
    let sleeper = node.path("sleeper");
    fs::write(
        &sleeper,
        format!(
            "#!/bin/sh\necho $$ >{}\nexec sleep 30\n",
            node.path("pid").display()
        ),
    )
    .unwrap();
    fs::set_permissions(
        &sleeper,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let begun = Instant::now();
    let seen = node
        .call(
            "DEL",
            "c1",
            &node.config(json!({"runtimeConfig": ours(), "child_path": sleeper})),
        )
        .ok();
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        seen.stderr.contains("did not answer in time"),
        "{}",
        seen.stderr
    );
    assert!(node.state().is_empty());
    let pid: i32 = node.read("pid").trim().parse().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}

#[test]
fn del_reads_what_it_can_of_a_bad_config() {
    let node = Node::new();
    node.call("ADD", "c1", &node.config(json!({}))).ok();
    let bad = node.config(
        json!({"mtu": "x", "delegate": 7, "boot_network": {"type": "../x"}, "runtimeConfig": [],
        "args": 1, "prevResult": "garbage"}),
    );
    let seen = node.call("DEL", "c1", &bad).ok();
    assert!(seen.stderr.contains("mtu"), "{}", seen.stderr);
    assert_eq!(node.calls(), ["ADD bridge", "DEL bridge"]);
    assert!(node.state().is_empty());
}

#[test]
fn a_call_waits_for_another_on_the_same_attachment() {
    let node = Node::new();
    node.plugin("slow", "[ $CNI_COMMAND = ADD ] && sleep 0.5; echo '{}'");
    let config = node.config(json!({"delegate": {"type": "slow"}}));
    std::thread::scope(|scope| {
        scope.spawn(|| node.call("ADD", "c1", &config).ok());
        while !node.path("slow.ADD.env").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let gc = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []});
        let agent = node.agent(good);
        node.call("GC", "", &node.config(gc)).ok();
        let requests = agent.requests();
        let Request::Collect(collect) = &requests[0] else {
            panic!("{requests:?}")
        };
        assert_eq!(collect.valid, [("c1".to_owned(), "eth0".to_owned())]);
        node.call("DEL", "c1", &config).ok();
    });
    assert_eq!(
        node.calls()
            .iter()
            .filter(|call| call.ends_with("slow"))
            .collect::<Vec<_>>(),
        ["ADD slow", "DEL slow"]
    );
    assert!(node.state().is_empty());
}

// ---- CHECK, GC, STATUS

#[test]
fn check_compares_ours_by_the_agent_and_theirs_without_ours() {
    let node = Node::new();
    let agent = node.agent(good);
    let config = node.config(json!({"runtimeConfig": ours()}));
    assert_eq!(node.call("CHECK", "c1", &config).code(), 7);
    let result = node.call("ADD", "c1", &config).ok().json();
    agent.requests();
    let config = node.config(json!({"runtimeConfig": ours(), "prevResult": result}));
    assert_eq!(node.call("CHECK", "c1", &config).ok().stdout, "");
    let requests = agent.requests();
    let [Request::Check(check)] = &requests[..] else {
        panic!("{requests:?}")
    };
    assert_eq!(check.interfaces, common::attached().interfaces);
    let stdin: Value = serde_json::from_str(&node.read("lo.CHECK.stdin")).unwrap();
    assert_eq!(
        stdin["prevResult"]["interfaces"],
        json!([{"name": "lo", "sandbox": "/proc/self/ns/net"}])
    );
    assert_eq!(
        stdin["prevResult"]["ips"],
        json!([{"address": "127.0.0.1/8", "interface": 0}])
    );

    drop(agent);
    let _agent = node.agent(|_| failure(FailureKind::Broken));
    assert_eq!(
        node.call("CHECK", "c1", &config).code(),
        u64::from(ratchet_plugin::code::BROKEN)
    );
}

/// The addresses of an interface in a result; of none: those without an interface.
fn addresses(result: &Value, interface: Option<&str>) -> Vec<String> {
    let interfaces = result["interfaces"].as_array().unwrap();
    let place = interface.map(|name| interfaces.iter().position(|it| it["name"] == name).unwrap());
    let ips = result["ips"].as_array().unwrap().iter();
    ips.filter(|ip| ip["interface"] == json!(place))
        .map(|ip| ip["address"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_links_addresses_are_in_the_result_if_the_config_says_so() {
    let node = Node::new();
    let _agent = node.agent(good);
    let keys = json!({"runtimeConfig": ours(), "report_addresses": true});
    let config = node.config(keys.clone());
    let result = node.call("ADD", "c1", &config).ok().json();
    assert_eq!(addresses(&result, Some("in1")), ["192.168.2.100/24"]);
    let both = ["192.168.3.100/24", "fd00::1/64"];
    assert_eq!(addresses(&result, Some("in2")), both);
    // A runtime needs an address of eth0 here, since the boot network gives none.
    assert_eq!(addresses(&result, None), ["192.168.2.100/24"]);

    // Embedded plugins are asked for what they have made.
    let mut again = config.clone();
    again["prevResult"] = result;
    node.call("CHECK", "c1", &again).ok();
    let stdin: Value = serde_json::from_str(&node.read("lo.CHECK.stdin")).unwrap();
    let own = json!([{"address": "127.0.0.1/8", "interface": 0}]);
    assert_eq!(stdin["prevResult"]["ips"], own);
    node.call("DEL", "c1", &config).ok();

    // Beside eth0 nobody needs one. Without the key, and before 0.3.0, there are none.
    let mut env = node.env("ADD", "c2");
    env.set("CNI_IFNAME", "net1");
    let result = call(&env, &config).ok().json();
    assert_eq!(addresses(&result, Some("in2")), both);
    assert_eq!(addresses(&result, None), [""; 0]);
    let without = node.config(json!({"runtimeConfig": ours()}));
    let result = node.call("ADD", "c3", &without).ok().json();
    assert_eq!(addresses(&result, Some("in1")), [""; 0]);
    let of_old = |mut keys: Value| {
        keys["cniVersion"] = json!("0.2.0");
        let result = node.call("ADD", "c4", &node.config(keys.clone())).ok();
        node.call("DEL", "c4", &node.config(keys)).ok();
        result.stdout
    };
    assert_eq!(of_old(keys), of_old(json!({"runtimeConfig": ours()})));
}

#[test]
fn check_of_a_pod_that_is_not_ours_calls_only_the_delegate() {
    let node = Node::new();
    let result = node.call("ADD", "c1", &node.config(json!({}))).ok().json();
    let config = node.config(json!({"prevResult": result}));
    node.call("CHECK", "c1", &config).ok();
    node.plugin("bridge", r#"echo '{"code":78,"msg":"gone"}'; exit 1"#);
    assert_eq!(node.call("CHECK", "c1", &config).code(), 78);
    // In a chain, nothing is ours.
    node.call("CHECK", "c2", &chained(&node, json!({}))).ok();
}

#[test]
fn gc_removes_what_is_not_named_and_only_in_this_network() {
    let node = Node::new();
    let agent = node.agent(good);
    let other = node.config(json!({"name": "other"}));
    for id in ["keep", "c1", "c2"] {
        node.call("ADD", id, &node.config(json!({}))).ok();
    }
    node.call("ADD", "c3", &node.config(json!({"runtimeConfig": ours()})))
        .ok();
    node.call("ADD", "c1", &other).ok();
    node.calls();
    agent.requests();
    let gc = |valid: Value| {
        node.call(
            "GC",
            "",
            &node.config(json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid})),
        )
    };
    let absent = node.call("GC", "", &node.config(json!({"cniVersion": "1.1.0"})));
    assert_eq!((absent.code(), node.calls().len()), (7, 0));

    // One of them cannot be removed now. It is kept, and the others are removed.
    node.plugin("lo", "[ $CNI_COMMAND != DEL ]");
    let valid =
        json!([{"containerID": "keep", "ifname": "eth0"}, {"containerID": "c1", "ifname": "eth9"}]);
    assert_eq!(gc(valid.clone()).code(), 100);
    assert_eq!(
        sorted(node.calls()),
        ["DEL bridge", "DEL bridge", "DEL lo", "GC bridge", "GC lo"]
    );
    assert_eq!(agent.asked(), ["collect"]);
    assert!(
        node.read("bridge.DEL.env")
            .contains("CNI_ARGS=K8S_POD_NAMESPACE=ns")
    );
    assert!(node.read("bridge.DEL.env").contains("CNI_NETNS=\n"));
    node.plugin("lo", "exit 0");
    gc(valid.clone()).ok();
    assert_eq!(sorted(node.calls()), ["DEL lo", "GC bridge", "GC lo"]);
    gc(valid).ok();
    assert_eq!(sorted(node.calls()), ["GC bridge", "GC lo"]);
    let left: Vec<_> = sorted(node.state())
        .into_iter()
        .filter(|path| path.ends_with("json"))
        .collect();
    assert_eq!(left, ["net/keep/eth0.json", "other/c1/eth0.json"]);
    gc(Value::Null).ok();
    assert_eq!(node.state().len(), 2);
}

#[test]
fn status_tells_what_is_missing() {
    let node = Node::new();
    let status = |more: Value| {
        let mut config = node.config(json!({"cniVersion": "1.1.0"}));
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        node.call("STATUS", "", &config)
    };
    assert_eq!(status(json!({})).code(), 50);
    {
        let agent = node.agent(good);
        assert_eq!(status(json!({})).ok().stdout, "");
        assert_eq!(agent.asked(), ["status"]);
        assert_eq!(status(json!({"delegate": {"type": "gone"}})).code(), 50);
        node.plugin("lo", r#"echo '{"code":51,"msg":"half"}'; exit 1"#);
        assert_eq!(status(json!({})).code(), 51);
        // Plugins of older versions get no STATUS.
        status(json!({"boot_network": {"type": "lo", "cniVersion": "1.0.0"}})).ok();
    }
    let _agent = node.agent(|_| failure(FailureKind::TryLater));
    assert_eq!(status(json!({"boot_network": null})).code(), 50);
    assert!(node.state().is_empty());
}

#[test]
fn status_is_quick_with_an_agent_that_hangs() {
    let node = Node::new();
    let _agent = node.agent(|_| {
        std::thread::sleep(Duration::from_secs(3));
        None
    });
    let begun = Instant::now();
    let config = node.config(json!({"cniVersion": "1.1.0", "boot_network": null}));
    assert_eq!(node.call("STATUS", "", &config).code(), 50);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}
