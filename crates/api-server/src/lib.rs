//! A real Kubernetes API server with an etcd of its own, without nodes and controllers. For tests.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends when its server does not start"
)]

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams},
    core::Request,
    runtime::{conditions, wait::await_condition},
};
use serde_json::json;
use tempfile::TempDir;

/// The administrator's token.
pub const TOKEN: &str = "token-of-this-test";
const DEADLINE: Duration = Duration::from_secs(120);

/// The processes. They end when it is dropped.
pub struct Server {
    processes: Vec<Child>,
    directory: TempDir,
    api: u16,
    /// A client with all rights.
    pub client: Client,
}

/// The folder of Kubernetes' programs, which are built if they are missing. `None` without Go,
/// where that is allowed.
pub fn programs() -> Option<PathBuf> {
    built("programs", &[])
}

/// A program of `tests/kubernetes/build`, such as helm, which is built if it is missing. `None`
/// without Go, where that is allowed.
pub fn tool(name: &str) -> Option<PathBuf> {
    built("tool", &[name])
}

/// What a script of `tests/kubernetes/build` prints: the path of what it has built.
fn built(script: &str, arguments: &[&str]) -> Option<PathBuf> {
    if Command::new("go").arg("version").output().is_err() {
        let missing = "the test on a real API server needs Go 1.24 or later, which is missing";
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        println!("SKIPPED: {missing}");
        return None;
    }
    let build = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/kubernetes/build");
    let output = Command::new(Path::new(build).join(script))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{script} {arguments:?} failed");
    Some(String::from_utf8(output.stdout).unwrap().trim().into())
}

impl Server {
    /// Starts both and waits until the API server is ready.
    pub async fn start(programs: &Path) -> Self {
        let mut log = String::new();
        // Another process may take a port before etcd or the API server does.
        for _try in 0..3 {
            match Self::start_once(programs).await {
                Ok(server) => return server,
                Err(of_this_try) => log = of_this_try,
            }
        }
        panic!("the API server does not start: {log}");
    }

    async fn start_once(programs: &Path) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let [etcd, peer, api] = free_ports();
        let mut processes = Processes(Vec::new());
        let at = directory.path();
        let etcd_url = format!("http://127.0.0.1:{etcd}");
        processes.start(at, "etcd", |command| {
            command
                .args(["etcd", "--unsafe-no-fsync", "--log-level=error"])
                .arg(format!("--data-dir={}", at.join("data").display()))
                .arg(format!("--listen-client-urls={etcd_url}"))
                .arg(format!("--advertise-client-urls={etcd_url}"))
                .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"));
        });
        processes.start(at, "apiserver", |command| {
            api_server(command, programs, at, &etcd_url, api);
        });
        let client = client(api, TOKEN);
        let deadline = Instant::now() + DEADLINE;
        while !is_ready(&client).await {
            if processes.one_has_ended() || Instant::now() > deadline {
                return Err(fs::read_to_string(at.join("apiserver.log")).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(Self {
            processes: std::mem::take(&mut processes.0),
            directory,
            api,
            client,
        })
    }
}

impl Server {
    /// A kubeconfig with all rights, as JSON.
    pub fn kubeconfig(&self) -> String {
        let server = format!("https://127.0.0.1:{}", self.api);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{
                "name": "test", "cluster": {"server": server, "insecure-skip-tls-verify": true},
            }],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        config.to_string()
    }

    /// Runs kubectl as the administrator. Returns what it prints; a warning is a failure, too.
    pub fn kubectl(&self, programs: &Path, arguments: &[&str]) -> String {
        let output = Command::new(programs.join("kubectl"))
            .args(["--kubeconfig=/dev/null", "--insecure-skip-tls-verify"])
            .arg(format!("--server=https://127.0.0.1:{}", self.api))
            .arg(format!("--token={TOKEN}"))
            .arg(format!("--cache-dir={}", self.directory.path().display()))
            .args(arguments)
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A client that shows a token.
    pub fn client_of(&self, token: &str) -> Client {
        client(self.api, token)
    }

    /// Starts the controllers of Kubernetes with these names, each with an account of its own.
    pub fn start_controllers(&mut self, programs: &Path, names: &str) {
        let at = self.directory.path();
        let file = |name: &str| at.join(name).display().to_string();
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.api),
                "certificate-authority": file("certificates/apiserver.crt"),
            }}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "admin"}}],
        });
        fs::write(file("kubeconfig"), kubeconfig.to_string()).unwrap();
        let mut processes = Processes(std::mem::take(&mut self.processes));
        processes.start(at, "controllers", |command| {
            command
                .arg(programs.join("kube-controller-manager"))
                .arg(format!("--kubeconfig={}", file("kubeconfig")))
                .arg(format!("--controllers={names}"))
                .arg(format!("--flex-volume-plugin-dir={}", file("none")))
                .arg(format!("--cert-dir={}", file("of-controllers")))
                .arg(format!(
                    "--service-account-private-key-file={}",
                    file("key")
                ))
                .args([
                    "--leader-elect=false",
                    "--secure-port=0",
                    "--use-service-account-credentials",
                ]);
        });
        self.processes = std::mem::take(&mut processes.0);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        Processes(std::mem::take(&mut self.processes));
    }
}

/// Processes that end when they are dropped.
struct Processes(Vec<Child>);

impl Processes {
    /// Starts a program, which is also killed if the test is (`setpriv`).
    fn start(&mut self, at: &Path, name: &str, arguments: impl FnOnce(&mut Command)) {
        let log = File::create(at.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        arguments(&mut command);
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        self.0.push(child.unwrap());
    }

    fn one_has_ended(&mut self) -> bool {
        self.0
            .iter_mut()
            .any(|child| child.try_wait().unwrap().is_some())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.0.iter_mut().rev() {
            let _it_may_have_ended = child.kill();
            child.wait().unwrap();
        }
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn api_server(command: &mut Command, programs: &Path, at: &Path, etcd: &str, port: u16) {
    let file = |name: &str| at.join(name).display().to_string();
    fs::write(
        at.join("tokens"),
        format!("{TOKEN},admin,admin,system:masters"),
    )
    .unwrap();
    let key = Command::new("openssl")
        .args(["genrsa", "-out", &file("key"), "2048"])
        .stderr(Stdio::null())
        .status();
    assert!(key.unwrap().success());
    command
        .arg(programs.join("kube-apiserver"))
        .arg(format!("--etcd-servers={etcd}"))
        .arg(format!("--cert-dir={}", file("certificates")))
        .arg(format!("--secure-port={port}"))
        .arg(format!("--token-auth-file={}", file("tokens")))
        .arg(format!("--service-account-key-file={}", file("key")))
        .arg(format!(
            "--service-account-signing-key-file={}",
            file("key")
        ))
        .args([
            "--bind-address=127.0.0.1",
            "--advertise-address=192.0.2.1",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
        ]);
}

fn client(port: u16, token: &str) -> Client {
    let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    // The certificate is the server's own, made when it starts.
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(token.to_owned().into());
    Client::try_from(config).unwrap()
}

async fn is_ready(client: &Client) -> bool {
    // A list of this path is a GET.
    let request = Request::new("/readyz").list(&ListParams::default());
    let request = request.unwrap();
    client
        .request_text(request)
        .await
        .is_ok_and(|text| text == "ok")
}

/// Runs a test on a server of its own, with the folder of [`programs`]; or not, where these may be
/// missing.
pub fn on_a_server(test: impl AsyncFnOnce(Server, PathBuf)) {
    let Some(programs) = programs() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Server::start(&programs).await;
        test(server, programs).await;
    });
}

/// Creates the CustomResourceDefinitions, and waits until the server serves them.
pub async fn create_definitions(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in ratchet_api::crds() {
        let name = crd.metadata.name.clone().unwrap();
        if let Err(error) = api.create(&PostParams::default(), &crd).await {
            panic!("{name}: {error}");
        }
        await_condition(api.clone(), &name, conditions::is_crd_established())
            .await
            .unwrap();
    }
}
