//! Points 26, 27 and 29: an ADD that fails or is killed at any step leaves nothing behind.
//!
//! Steps are made to fail from outside: by plugins, by a foreign device, by limits and locks.
//! crates/plugin/tests/failpoints.rs and crates/ratchet/tests/kills kill the plugin at every step.

use std::{
    fs,
    io::Write,
    process::{Child, Stdio},
};

use serde_json::{Value, json};

use crate::{
    bench::{Bench, answering, hold, link, release, sandbox_of},
    support::{RATCHET, Sandbox, eventually},
};

/// A config of the real ptp with host-local, whose leases are in the bench. Unlike bridge, it
/// leaves no device on the node.
fn ptp(bench: &Bench) -> Value {
    let mut ptp = bench.bridge();
    ptp["type"] = json!("ptp");
    ptp
}

/// Asserts that nothing of this pod's ADD is left.
#[track_caller]
fn assert_undone(bench: &Bench, pod: &Sandbox, what: &str) {
    assert_eq!(
        pod.netns.links().into_keys().collect::<Vec<_>>(),
        Vec::<String>::new(),
        "{what}"
    );
    assert_eq!((bench.leases(), bench.state()), (vec![], vec![]), "{what}");
    let kept: Vec<_> = bench
        .sandboxes()
        .into_iter()
        .filter(|path| path.to_string_lossy().contains(&pod.id))
        .collect();
    assert!(kept.is_empty(), "{what}: {kept:?}");
    assert!(
        !bench.cluster.store_rows().contains(&pod.id),
        "{what}: {}",
        bench.cluster.store_rows()
    );
}

#[test]
fn p26_faults_at_each_step() {
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    // The peer exists, so that the ADD of `a` makes the link. The peer's state stays, so it has
    // another network.
    let peer = bench.ours("[]", json!({"name": "peers"}));
    bench.run("ADD", &b, &peer).json();
    let peer_state = bench.state();
    let moved: Vec<_> = peer_state
        .iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    let root = bench.node().state_dir.join("attachments");
    fs::remove_dir_all(&root).unwrap();

    let boot = json!({"boot_network": ptp(&bench)});
    let config = bench.ours(&link("eth1", "b"), boot.clone());
    let works = |what: &str| {
        assert_undone(&bench, &a, what);
        bench.run("DEL", &a, &config).silent();
        bench.run("ADD", &a, &config).json();
        assert!(
            a.netns.ping("192.168.7.2"),
            "{what}: {:#?} {:#?}",
            a.netns.links(),
            b.netns.links()
        );
        bench.run("DEL", &a, &config).silent();
        assert_undone(&bench, &a, what);
    };

    // boot: the second plugin of the list fails.
    bench.fake("bad", "[ $CNI_COMMAND = ADD ] || exit 0; exit 1");
    let list = json!({"name": "test-net", "cniVersion": "1.0.0", "plugins": [ptp(&bench),
        {"type": "bad"}]});
    bench
        .run(
            "ADD",
            &a,
            &bench.ours(&link("eth1", "b"), json!({"boot_network": list})),
        )
        .failed(100);
    works("boot");
    // link: the interface name is in use.
    a.netns.sh("ip link add eth1 type bridge");
    bench.run("ADD", &a, &config).failed(7);
    a.netns.sh("ip link del eth1");
    works("link");
    // address, route: the kernel refuses them.
    let pairs = [
        ("address", "addresses: [192.168.7.1/24, 'ff02::5/64']"),
        (
            "route",
            "addresses: [192.168.7.1/24], routes: [{dst: 10.0.0.0/8, via: 172.31.0.1}]",
        ),
    ];
    for (what, wrong) in pairs {
        let links = format!(
            "[{{interface: eth1, peer: b/eth1, peerAddresses: [192.168.7.2/24], {wrong}}}]"
        );
        bench
            .run("ADD", &a, &bench.ours(&links, boot.clone()))
            .error();
        works(what);
    }
    // state: no directory can be made. Then the disk is full: before the boot network runs, and
    // after the links were made.
    let _ = fs::remove_dir(&root);
    fs::write(&root, "").unwrap();
    let text = bench.run("ADD", &a, &config).failed(5);
    assert!(text.contains("state_dir"), "{text}");
    assert!(a.netns.links().is_empty() && bench.leases().is_empty());
    fs::remove_file(&root).unwrap();
    works("state directory");
    bench.run("ADD", &a, &config).json();
    let size = fs::metadata(bench.state_file(&a)).unwrap().len();
    bench.run("DEL", &a, &config).silent();
    for limit in [16, size - 1] {
        let mut limited = bench.node().netns.command("prlimit");
        limited
            .arg(format!("--fsize={limit}"))
            .args(["env", "--ignore-signal=XFSZ", RATCHET]);
        let call = bench.call("ADD", &a, &config);
        limited.envs(
            call.command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let call = crate::bench::Call {
            command: limited,
            stdin: call.stdin,
        };
        call.run().failed(5);
        works(&format!("a disk with space for {limit} of {size} bytes"));
    }
    // store: another process holds its lock during the whole ADD.
    let holder = hold(&bench.dir().join("store.db"));
    bench.run("ADD", &a, &config).failed(11);
    assert!(a.netns.links().is_empty() && bench.leases().is_empty());
    release(holder);
    eventually("a deregistered sandbox", || {
        let kept = bench
            .sandboxes()
            .into_iter()
            .filter(|path| path.to_string_lossy().contains(&a.id))
            .count();
        if kept == 0 {
            Ok(())
        } else {
            Err(bench.node().log_text())
        }
    });
    works("store");
    // print: the result cannot be written.
    let mut call = bench.call("ADD", &a, &config);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut child = call
        .command
        .stdin(Stdio::piped())
        .stdout(full)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&call.stdin).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    works("print");

    for (path, bytes) in moved {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    bench.run("DEL", &b, &peer).silent();
    bench.assert_clean();
}

#[test]
fn p27_results_without_form() {
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    bench.run("ADD", &b, &bench.ours("[]", json!({}))).json();
    bench.calls();
    // A delegate's result without addresses cannot be expressed in 0.2.0.
    let layer2 = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"$CNI_NETNS"}]}"#;
    bench.fake("l2", &answering(layer2));
    let more = json!({"cniVersion": "0.2.0", "delegate": {"type": "l2"}});
    bench.run("ADD", &a, &bench.config(more.clone())).failed(1);
    assert_eq!(bench.calls(), ["ADD l2", "DEL l2"]);
    assert!(!bench.state_file(&a).exists());
    // For a pod of Ratchet it can: the result has a link's address, so that the pod starts. 0.2.0
    // has no interfaces, so the links are made but not reported.
    let config = bench.ours(&link("eth1", "b"), more);
    let result = bench.run("ADD", &a, &config).json();
    assert_eq!(
        result,
        json!({"cniVersion": "0.2.0", "ip4": {"ip": "192.168.7.1/24"}, "dns": {}})
    );
    assert!(a.netns.ping("192.168.7.2"));
    bench.run("DEL", &a, &config).silent();
    bench.calls();
    // An address without a family cannot be expressed either: the ADD fails and the links are
    // removed, too.
    bench.fake(
        "l2",
        &answering(r#"{"cniVersion":"0.4.0","ips":[{"address":"10.1.0.2/24"}]}"#),
    );
    bench.run("ADD", &a, &config).failed(1);
    assert_eq!(bench.calls(), ["ADD l2", "DEL l2"]);
    assert!(a.netns.links().is_empty() && !bench.state_file(&a).exists());
    bench.run("DEL", &b, &config).silent();
    bench.assert_clean();
}

#[test]
fn p29_killed() {
    let bench = Bench::with_agent();
    let [a, b] = [sandbox_of("a"), sandbox_of("b")];
    bench
        .run("ADD", &b, &bench.ours("[]", json!({"name": "peers"})))
        .json();
    // Killed while the delegate runs: the delegate ends with the plugin.
    bench.fake(
        "slow",
        "[ $CNI_COMMAND = ADD ] || exit 0; echo $$ >$S/pid; exec sleep 1000",
    );
    for config in [
        bench.config(json!({"delegate": {"type": "slow"}})),
        bench.ours("[]", json!({"boot_network": {"type": "slow"}})),
    ] {
        let mut plugin = start(&bench, &a, &config);
        let pid_file = bench.dir().join("seen/pid");
        let pid = eventually("the delegate", || {
            let text = fs::read_to_string(&pid_file).map_err(|error| error.to_string())?;
            text.trim()
                .parse::<u32>()
                .map_err(|error| error.to_string())
        });
        plugin.kill().unwrap();
        plugin.wait().unwrap();
        eventually("the end of the delegate", || {
            match fs::read_to_string(format!("/proc/{pid}/cmdline")) {
                Ok(line) if line.contains("sleep") => Err(line),
                _ => Ok(()),
            }
        });
        fs::remove_file(pid_file).unwrap();
        bench.run("DEL", &a, &config).silent();
        assert_eq!(bench.calls().last().unwrap(), "DEL slow");
        assert!(!bench.state_file(&a).exists());
    }
    // Killed at any other moment. (tests/kills does this a thousand times.)
    let config = bench.ours(&link("eth1", "b"), json!({"boot_network": ptp(&bench)}));
    for millis in 0..30 {
        let mut plugin = start(&bench, &a, &config);
        std::thread::sleep(std::time::Duration::from_millis(millis * 2));
        plugin.kill().unwrap();
        plugin.wait().unwrap();
        bench.run("DEL", &a, &config).silent();
        // The agent has finished or undone the work of the killed plugin.
        assert!(
            a.netns.links().is_empty(),
            "after {millis}: {:?}",
            a.netns.links()
        );
        assert_eq!(
            (bench.leases(), bench.sandboxes().len()),
            (vec![], 1),
            "after {millis}"
        );
        assert!(!bench.state_file(&a).parent().unwrap().exists());
    }
    bench.run("ADD", &a, &config).json();
    assert!(a.netns.ping("192.168.7.2"));
    bench.run("DEL", &a, &config).silent();
    bench
        .run("DEL", &b, &bench.ours("[]", json!({"name": "peers"})))
        .silent();
    bench.assert_clean();
}

fn start(bench: &Bench, pod: &Sandbox, config: &Value) -> Child {
    let mut call = bench.call("ADD", pod, config);
    let mut child = call
        .command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&call.stdin).unwrap();
    child
}
