//! The life of an agent: it is started on demand once per node, replaced by another agent, has
//! other settings than the config, is killed.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
};

use ratchet_protocol::{Attach, Attachment, Client, LinkState, Prepare, Reply, Request, Settings};

use support::{Cluster, DEADLINE, Node, Pinger, Pod, RATCHET, Sandbox, eventually};

fn pair() -> [Sandbox; 2] {
    let link =
        "[{interface: eth1, peer: r2, addresses: [10.0.0.1/24], peerAddresses: [10.0.0.2/24]}]";
    [
        Pod::with_links("r1", link).sandbox(),
        Pod::with_links("r2", "[]").sandbox(),
    ]
}

/// Processes whose command line has all of these words.
fn processes(words: &[&str]) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        words
            .iter()
            .all(|word| arguments.contains(&word.as_bytes()))
    })
    .collect()
}

/// The agent's answer to `Hello`.
fn hello(node: &Node) -> ratchet_protocol::Hello {
    match Client::call(&node.socket, &Request::Hello, DEADLINE) {
        Ok(Reply::Hello(hello)) => *hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn fifty_plugins_start_one_agent() {
    let mut cluster = Cluster::new(1);
    let sandboxes: Vec<Sandbox> = (0..50)
        .map(|n| {
            Pod::with_links(
                &format!("p{n}"),
                &format!("[{{interface: eth1, peer: p{}/eth2}}]", (n + 1) % 50),
            )
            .sandbox()
        })
        .collect();
    let node = &cluster.nodes[0];
    std::thread::scope(|scope| {
        for sandbox in &sandboxes {
            scope.spawn(move || node.add(sandbox));
        }
    });
    let socket = node.socket.to_str().unwrap().to_owned();
    assert_eq!(processes(&["agent", &socket]).len(), 1);
    assert!(!hello(node).managed);
    node.wait_for_links(50);
    // The agent inherits no files of the plugin that started it.
    let pid = node.agent_pid().unwrap();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
        let target = target.to_str().unwrap();
        let own = target.starts_with(cluster.dir.path().to_str().unwrap());
        let kernel = ["socket:", "anon_inode:", "net:", "/dev/null"]
            .iter()
            .any(|kind| target.starts_with(kind));
        assert!(own || kernel, "the agent has {target} open");
    }
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&node.socket), mode(node.socket.parent().unwrap())),
        (0o600, 0o700)
    );
    std::thread::scope(|scope| {
        for sandbox in &sandboxes {
            scope.spawn(move || node.del(sandbox));
        }
    });
    cluster.assert_nothing_left();
    cluster.nodes[0].stop_agent();
    assert_eq!(processes(&["agent", &socket]), Vec::<u32>::new());
}

#[test]
fn an_agent_on_demand_outwaits_one_that_is_dying() {
    let mut cluster = Cluster::new(1);
    let node = &mut cluster.nodes[0];
    std::fs::create_dir_all(&node.state_dir).unwrap();
    // As a killed process does for a moment: it holds the lock but does not listen any more.
    let lock = std::fs::File::create(node.state_dir.join("agent.lock")).unwrap();
    lock.lock().unwrap();
    node.spawn_agent(&["--on-demand"]);
    let pid = node.agent.as_ref().unwrap().id();
    eventually("a second agent that has opened the lock", || {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut paths = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        paths
            .any(|path| path.ends_with("agent.lock"))
            .then_some(())
            .ok_or_else(|| "not yet".into())
    });
    drop(lock);
    eventually("the agent", || {
        node.agent_pid()
            .filter(|found| *found == pid)
            .ok_or_else(|| node.log_text())
    });
}

#[test]
fn a_managed_agent_takes_over_without_dropping_a_frame() {
    let mut cluster = Cluster::new(1);
    let [a, z] = pair();
    cluster.nodes[0].add(&a);
    cluster.nodes[0].add(&z);
    let first = hello(&cluster.nodes[0]).pid;
    let before = (a.netns.links(), z.netns.links());
    let pinger = Pinger::start(&a.netns, "10.0.0.2");
    cluster.nodes[0].start_agent();
    eventually("the managed agent", || {
        match Client::call(&cluster.nodes[0].socket, &Request::Hello, DEADLINE) {
            Ok(Reply::Hello(hello)) if hello.managed => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    eventually("the end of the first agent", || {
        if Path::new(&format!("/proc/{first}")).exists() {
            Err("it still runs".into())
        } else {
            Ok(())
        }
    });
    cluster.nodes[0].wait_for_links(1);
    pinger.assert_no_loss();
    let index = |links: &std::collections::BTreeMap<String, serde_json::Value>| {
        links["eth1"]["ifindex"].clone()
    };
    assert_eq!(index(&before.0), index(&a.netns.links()));
    assert_eq!(index(&before.1), index(&z.netns.links()));
    // A second managed agent is refused, and its error names the first.
    let node = &cluster.nodes[0];
    let refused = node
        .netns
        .command(RATCHET)
        .args([
            "agent",
            "--socket",
            node.socket.to_str().unwrap(),
            "--state-dir",
            node.state_dir.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("a managed agent (pid"),
        "{text}"
    );
    node.del(&a);
    node.del(&z);
    cluster.assert_nothing_left();
}

#[test]
fn a_managed_agent_that_disagrees_with_the_config_says_so() {
    let mut cluster = Cluster::new(1);
    cluster.nodes[0].start_agent();
    let [a, _] = pair();
    let node = &cluster.nodes[0];
    let mut config = node.config();
    config["runtimeConfig"] =
        serde_json::json!({"io.kubernetes.cri.pod-annotations": a.pod.annotations});
    config["node"] = "another-node".into();
    config["mtu"] = 1300.into();
    let output = node.plugin("ADD", &a, &config);
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 7, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("node is node1 for the agent and another-node in the config"),
        "{text}"
    );
    assert!(
        text.contains("mtu is not set for the agent and 1300 in the config"),
        "{text}"
    );
    assert_eq!(node.links().links, []);
}

#[test]
fn an_agent_on_demand_adopts_the_settings_of_the_config() {
    let mut cluster = Cluster::new(1);
    let [a, z] = pair();
    cluster.nodes[0].add(&a);
    cluster.nodes[0]
        .netns
        .sh("ip addr add 10.91.0.77/24 dev eth0");
    cluster.nodes[0].address = "10.91.0.77".into();
    cluster.nodes[0].add(&z);
    let node = &cluster.nodes[0];
    assert_eq!(
        hello(node).settings.parent_address.unwrap().to_string(),
        "10.91.0.77"
    );
    node.wait_for_links(1);
    assert!(a.netns.ping("10.0.0.2"));
    // The store can change, too: the pods of this node are published in the new one.
    let elsewhere = format!("sqlite:{}", cluster.dir.path().join("other.db").display());
    cluster.nodes[0].set_store(&elsewhere);
    let pod = Pod::with_links(
        "r3",
        "[{interface: eth3, peer: r1/eth3, addresses: [10.3.0.1/24], \
          peerAddresses: [10.3.0.2/24]}]",
    )
    .sandbox();
    cluster.nodes[0].add(&pod);
    cluster.nodes[0].wait_for_links(2);
    assert!(pod.netns.ping("10.3.0.2") && a.netns.ping("10.0.0.2"));
}

#[test]
fn the_socket_accepts_its_protocol_and_nothing_else() {
    let cluster = Cluster::with_agents(1);
    let send = |line: &str| {
        let mut stream = UnixStream::connect(&cluster.nodes[0].socket).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    // A client of a later release, with a field that this release does not have.
    let answer =
        send("{\"protocol\":1,\"request\":\"links\",\"watch\":false,\"of_tomorrow\":[1]}\n");
    assert!(answer.contains("\"links\":{\"node\":\"node1\""), "{answer}");
    assert!(send("{\"protocol\":99,\"request\":\"hello\"}\n").contains("[1] are understood"));
    assert!(send("not json\n").contains("not a request"));
    assert_eq!(send(""), "");
    cluster.nodes[0].wait_for_agent();
}

#[test]
fn a_sandbox_that_was_expected_and_never_comes_leaves_nothing() {
    let mut cluster = Cluster::with_agents(1);
    let sandbox = Pod::with_links("r1", "[]").sandbox();
    let expect = Request::Expect(Attach {
        attachment: Attachment {
            network: "net".into(),
            container_id: "c1".parse().unwrap(),
            interface: "eth0".into(),
        },
        netns: sandbox.netns.path(),
        prepare: Prepare {
            pod: ratchet_protocol::Pod {
                namespace: "default".into(),
                name: "r1".into(),
                uid: None,
            },
            labels: [("ratchet".to_owned(), "true".to_owned())].into(),
            annotations: [].into(),
            annotations_passed: true,
            use_labels: true,
            settings: Settings::default(),
            interface: "eth0".into(),
        },
    });
    let expected = |node: &Node| {
        let mut client = Client::ask(&node.socket, &expect, DEADLINE).unwrap();
        assert_eq!(client.receive().unwrap(), Reply::Done);
        assert!(node.state_dir.join("sandboxes/c1.leaving").exists());
        // The sandbox is not registered yet, so no other node may find the pod here.
        assert_eq!(cluster.store_rows().matches("r1").count(), 0);
        client
    };
    // The plugin dies, or its embedded plugin fails.
    drop(expected(&cluster.nodes[0]));
    cluster.assert_nothing_left();
    // The agent dies.
    let client = expected(&cluster.nodes[0]);
    cluster.nodes[0].kill_agent();
    drop(client);
    assert!(
        cluster.nodes[0]
            .state_dir
            .join("sandboxes/c1.leaving")
            .exists()
    );
    cluster.nodes[0].start_agent();
    cluster.assert_nothing_left();
}

#[test]
fn watching_the_links_reports_every_change() {
    let cluster = Cluster::with_agents(1);
    let node = &cluster.nodes[0];
    let mut client = Client::ask(&node.socket, &Request::Links { watch: true }, DEADLINE).unwrap();
    let mut next = || match client.receive().unwrap() {
        Reply::Links(links) => links.links,
        other => panic!("{other:?}"),
    };
    assert_eq!(next(), []);
    let [a, z] = pair();
    node.add(&a);
    assert_eq!(next()[0].state, LinkState::Pending);
    node.add(&z);
    let mut links = next();
    while links[0].state != LinkState::Up {
        links = next();
    }
    assert_eq!(links[0].kind.as_deref(), Some("veth"));
}

#[test]
fn under_its_name_of_2017_the_binary_is_the_agent() {
    let mut cluster = Cluster::new(1);
    let child = cluster.dir.path().join("ratchet-child");
    std::os::unix::fs::symlink(RATCHET, &child).unwrap();
    let [a, z] = pair();
    let node = &mut cluster.nodes[0];
    node.set("child_path", child.to_str().unwrap().into());
    node.add(&a);
    node.add(&z);
    assert!(a.netns.ping("10.0.0.2"));
    let line =
        std::fs::read_to_string(format!("/proc/{}/cmdline", node.agent_pid().unwrap())).unwrap();
    assert!(line.starts_with(child.to_str().unwrap()), "{line}");
    node.del(&a);
    node.del(&z);
    cluster.assert_nothing_left();
}

#[test]
fn with_the_store_offline_links_stay_and_a_del_leaves_the_survivor_its_end() {
    let mut cluster = Cluster::with_agents(1);
    let [a, z] = pair();
    cluster.nodes[0].add(&a);
    cluster.nodes[0].add(&z);
    let index = z.netns.links()["eth1"]["ifindex"].clone();
    // Retries cannot open the store: a directory has replaced the file.
    cluster.nodes[0].kill_agent();
    let store = cluster.dir.path().join("store.db");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::rename(
            format!("{}{suffix}", store.display()),
            format!("{}{suffix}.moved", store.display()),
        );
    }
    std::fs::create_dir(&store).unwrap();
    cluster.nodes[0].start_agent();
    assert!(a.netns.ping("10.0.0.2"));
    cluster.nodes[0].del(&a);
    assert_eq!(a.netns.links().len(), 0);
    assert_eq!(z.netns.links()["eth1"]["ifindex"], index);
    assert!(
        cluster.nodes[0]
            .links()
            .notices
            .iter()
            .any(|notice| notice.contains("store.db"))
    );
    // The store returns, and so does the pod.
    std::fs::remove_dir(&store).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::rename(
            format!("{}{suffix}.moved", store.display()),
            format!("{}{suffix}", store.display()),
        );
    }
    let again = a.pod.sandbox();
    eventually("an ADD after the store has returned", || {
        cluster.nodes[0].try_add(&again).map_err(|e| e.to_string())
    });
    assert!(again.netns.ping("10.0.0.2"));
    assert_eq!(z.netns.links()["eth1"]["ifindex"], index);
    cluster.nodes[0].del(&again);
    cluster.nodes[0].del(&z);
    eventually("a store without pods", || {
        let left = cluster.store_rows();
        if left.contains("default/") {
            Err(left)
        } else {
            Ok(())
        }
    });
    cluster.assert_nothing_left();
}

/// With the Kubernetes API offline, the annotations that the runtime passes decide. If it passes
/// none, the ADD fails and is tried again.
#[test]
fn with_the_kubernetes_api_offline_annotations_decide_or_the_pod_waits() {
    let mut cluster = Cluster::new(1);
    let kubeconfig = cluster.dir.path().join("kubeconfig");
    // Port 9 (discard), where no program listens.
    let text = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}"#;
    std::fs::write(&kubeconfig, text).unwrap();
    cluster.nodes[0].set("kubeconfig", serde_json::json!(kubeconfig));
    let node = &cluster.nodes[0];

    let unknown = Pod::new("unknown").sandbox();
    let mut config = unknown.pod.configure(node.config());
    config.as_object_mut().unwrap().remove("runtimeConfig");
    let output = node.plugin("ADD", &unknown, &config);
    let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let says = error.to_string();
    assert_eq!(error["code"], 11, "{says}");
    for words in [
        "pod default/unknown",
        "the Kubernetes API",
        "its labels are not known",
        "io.kubernetes.cri.pod-annotations",
    ] {
        assert!(says.contains(words), "expected {words:?} in: {says}");
    }
    assert!(node.plugin("DEL", &unknown, &config).status.success());

    let [a, z] = pair();
    node.add(&a);
    node.add(&z);
    node.wait_for_links(1);
    eventually("an answer", || {
        if a.netns.ping("10.0.0.2") {
            Ok(())
        } else {
            Err("none".into())
        }
    });
    // None of the annotations is Ratchet's, so this pod has no links.
    let plain = Pod::new("plain").sandbox();
    assert_eq!(node.add(&plain)["interfaces"][0]["name"], "lo");
    [&a, &z, &plain]
        .iter()
        .for_each(|sandbox| node.del(sandbox));
    cluster.assert_nothing_left();
}

#[test]
fn a_pod_with_more_peers_than_an_agent_may_open_files_gets_its_links() {
    const PEERS: usize = 40;
    let mut cluster = Cluster::new(1);
    // While the pod's links are made, each peer's namespace is open, with a socket in it.
    cluster.nodes[0].open_files = Some(64);
    cluster.nodes[0].start_agent();
    let node = &cluster.nodes[0];
    let peers: Vec<Sandbox> = (0..PEERS)
        .map(|n| Pod::with_links(&format!("p{n}"), "[]").sandbox())
        .collect();
    for peer in &peers {
        node.add(peer);
    }
    let links: Vec<String> = (0..PEERS)
        .map(|n| format!("{{interface: e{n}, peer: p{n}/e0}}"))
        .collect();
    let hub = Pod::with_links("hub", &format!("[{}]", links.join(", "))).sandbox();
    node.add(&hub);
    assert_eq!(hub.netns.links().len(), PEERS);
}
