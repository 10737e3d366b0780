//! `/livez`, `/readyz` and `/metrics` of real agents and controllers.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ratchet_api_server::{Server, create_definitions, programs};
use serde_json::json;

use support::{Cluster, Netns, Pod, RATCHET, eventually, terminate};

/// Status and text of a page.
fn get(address: SocketAddr, path: &str) -> Result<(u16, String), String> {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer: String = ask().map_err(|error: std::io::Error| error.to_string())?;
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((status.ok_or(answer.clone())?, text.to_owned()))
}

/// Waits until a page has a status and its text has some words.
#[track_caller]
fn wait_for(address: SocketAddr, path: &str, status: u16, words: &str) {
    eventually(
        &format!("{status} and {words:?} of {path}"),
        || match get(address, path)? {
            (is, text) if is == status && text.contains(words) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// From here on, this thread, and what it starts, is in a namespace.
fn enter(netns: &Netns) {
    let netns = File::open(netns.path()).unwrap();
    nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
}

#[test]
fn an_agent_tells_how_it_and_its_links_are() {
    let mut cluster = Cluster::new(1);
    let node = &mut cluster.nodes[0];
    enter(&node.netns);
    let address = free_address();
    node.start_agent_with(&["--health", &address.to_string()]);
    wait_for(address, "/livez", 200, "ok");
    wait_for(address, "/readyz", 200, "ok");
    wait_for(address, "/metrics", 200, "ratchet_build_info{version=");
    wait_for(
        address,
        "/metrics",
        200,
        "\nratchet_links{state=\"up\"} 0\n",
    );
    wait_for(
        address,
        "/metrics",
        200,
        "\nratchet_resync_duration_seconds 0",
    );
    let one = Pod::with_links("r1", "[{interface: eth1, peer: r2}]").sandbox();
    let two = Pod::with_links("r2", "[]").sandbox();
    node.add(&one);
    wait_for(
        address,
        "/metrics",
        200,
        "\nratchet_links{state=\"pending\"} 1\n",
    );
    node.add(&two);
    wait_for(
        address,
        "/metrics",
        200,
        "\nratchet_links{state=\"up\"} 1\n",
    );
    node.del(&one);
    node.del(&two);
}

#[test]
fn an_agent_that_installs_itself_is_ready_when_the_runtime_calls_it() {
    let mut cluster = Cluster::new(1);
    let configs = cluster.dir.path().join("net.d");
    let programs = cluster.dir.path().join("bin");
    std::fs::create_dir(&configs).unwrap();
    let config = |name: &str| {
        let new = configs.join("new");
        let text = r#"{"cniVersion": "1.0.0", "name": "n", "type": "bridge"}"#;
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, configs.join(name)).unwrap();
    };
    let node = &mut cluster.nodes[0];
    enter(&node.netns);
    let address = free_address();
    node.start_agent_with(&[
        "--health",
        &address.to_string(),
        "--install",
        "--cni-dir",
        configs.to_str().unwrap(),
        "--cni-bin-dir",
        programs.to_str().unwrap(),
    ]);
    wait_for(address, "/readyz", 503, "there is no network config yet");
    wait_for(address, "/livez", 200, "ok");
    config("10-bridge.conf");
    wait_for(address, "/readyz", 200, "ok");
    config("00-a.conf");
    let why = "takes 00-a.conf, which does not call Ratchet";
    wait_for(address, "/readyz", 503, why);
    std::fs::remove_file(configs.join("00-a.conf")).unwrap();
    wait_for(address, "/readyz", 200, "ok");
}

#[test]
fn an_agent_without_the_setting_serves_nothing() {
    let mut cluster = Cluster::new(1);
    let node = &mut cluster.nodes[0];
    enter(&node.netns);
    node.start_agent();
    let listening = node.netns.sh("ss -Hltn");
    assert_eq!(listening, "");
}

#[test]
fn an_agent_whose_store_is_offline_lives_and_is_not_ready() {
    let mut cluster = Cluster::new(1);
    let node = &mut cluster.nodes[0];
    node.set_store("etcd://127.0.0.1:1");
    enter(&node.netns);
    let address = free_address();
    node.start_agent_with(&["--health", &address.to_string()]);
    let sandbox = Pod::with_links("r1", "[]").sandbox();
    node.try_add(&sandbox).unwrap_err();
    wait_for(address, "/readyz", 503, "the store is offline");
    wait_for(address, "/livez", 200, "ok");
    wait_for(address, "/metrics", 200, "\nratchet_store_offline 1\n");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn an_agent_of_kubernetes_is_ready_when_the_links_are_listed() {
    let Some(programs) = programs() else { return };
    let mut cluster = Cluster::new(1);
    let node = &mut cluster.nodes[0];
    enter(&node.netns);
    let kubeconfig = cluster.dir.path().join("kubeconfig");
    let address = free_address();
    let node = &mut cluster.nodes[0];
    node.set_store("kubernetes");
    let arguments = [
        "--health",
        &address.to_string(),
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
    ];
    node.start_agent_with(&arguments);
    wait_for(address, "/readyz", 503, "");
    wait_for(address, "/livez", 200, "ok");
    let server = runtime().block_on(async {
        let server = Server::start(&programs).await;
        create_definitions(&server.client).await;
        server
    });
    std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    wait_for(address, "/readyz", 200, "ok");
    wait_for(address, "/metrics", 200, "\nratchet_writes_total 1\n");
    let underlay = ["get", "nodeunderlays", "-o=jsonpath={.items[*].spec.vtep}"];
    assert_eq!(server.kubectl(&programs, &underlay), node.address);
}

/// A controller; it ends when this is dropped.
struct Controller(Child);

impl Controller {
    fn start(kubeconfig: &Path, health: SocketAddr) -> Self {
        let child = Command::new(RATCHET)
            .args(["controller", "--namespace=default", "--kubeconfig"])
            .arg(kubeconfig)
            .args(["--health", &health.to_string()])
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        terminate(self.0.id());
        self.0.wait().unwrap();
    }
}

#[test]
fn controllers_are_ready_who_lead_and_who_wait_but_not_without_the_api() {
    let Some(programs) = programs() else { return };
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let cluster = json!({"server": "https://127.0.0.1:1", "insecure-skip-tls-verify": true});
    let nowhere = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": cluster}],
        "users": [{"name": "x", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    });
    std::fs::write(&kubeconfig, nowhere.to_string()).unwrap();
    let address = free_address();
    let alone = Controller::start(&kubeconfig, address);
    wait_for(address, "/livez", 200, "ok");
    wait_for(address, "/readyz", 503, "the API does not show the Lease");
    drop(alone);
    let server = runtime().block_on(async {
        let server = Server::start(&programs).await;
        create_definitions(&server.client).await;
        server
    });
    std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let (one, two) = (free_address(), free_address());
    let leader = Controller::start(&kubeconfig, one);
    wait_for(one, "/metrics", 200, "\nratchet_leader 1\n");
    wait_for(one, "/readyz", 200, "ok");
    wait_for(one, "/metrics", 200, "\nratchet_links{state=\"up\"} 0\n");
    let waiting = Controller::start(&kubeconfig, two);
    wait_for(two, "/readyz", 200, "ok");
    wait_for(two, "/metrics", 200, "\nratchet_leader 0\n");
    drop(leader);
    wait_for(two, "/metrics", 200, "\nratchet_leader 1\n");
    wait_for(two, "/livez", 200, "ok");
    wait_for(two, "/readyz", 200, "ok");
    drop(waiting);
}
