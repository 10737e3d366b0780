//! The label source with the real client and a small API server.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use ratchet_protocol::{Pod, Prepare};
use tokio::{runtime::Handle, sync::watch};

use super::{
    super::{Labels, Setup},
    *,
};

const VERSION: &str = r#"{"major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "",
    "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}"#;
const NO_PODS: &str = r#"{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
    "metadata": {"resourceVersion": "1"}, "items": []}"#;
const POD: &str = r#"{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata":
    {"namespace": "default", "name": "NAME", "uid": "1", "resourceVersion": "1",
    "labels": {"ratchet": "true", "ratchet.pod_name": "router"}}}"#;
const UNAUTHORIZED: &str = r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure",
    "message": "Unauthorized", "reason": "Unauthorized", "code": 401}"#;

/// An API that accepts one token.
struct Server {
    address: SocketAddr,
    listener: TcpListener,
    token: Arc<Mutex<String>>,
}

impl Server {
    fn start(token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let token = Arc::new(Mutex::new(token.to_owned()));
        let (accepts, shared) = (listener.try_clone().unwrap(), token.clone());
        thread::spawn(move || {
            for stream in accepts.incoming().map_while(Result::ok) {
                let token = shared.clone();
                thread::spawn(move || serve(stream, &token));
            }
        });
        Self {
            address: listener.local_addr().unwrap(),
            listener,
            token,
        }
    }

    fn accept_only(&self, token: &str) {
        token.clone_into(&mut self.token.lock().unwrap());
    }

    /// Writes a kubeconfig with a token, at once, as a renewal does.
    fn write(&self, kubeconfig: &Path, token: &str) {
        let text = format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{{"name": "c", "cluster": {{"server": "http://{}"}}}}],
            "users": [{{"name": "u", "user": {{"token": "{token}"}}}}],
            "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}]}}"#,
            self.address
        );
        let new = kubeconfig.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, kubeconfig).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends `incoming` of the other thread.
        let listener = std::os::fd::AsRawFd::as_raw_fd(&self.listener);
        let _ = nix::sys::socket::shutdown(listener, nix::sys::socket::Shutdown::Both);
    }
}

/// One connection, until the client closes it.
fn serve(mut stream: TcpStream, token: &Mutex<String>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(request)) = lines.next() {
        let mut bearer = String::new();
        for line in lines.by_ref().map_while(Result::ok) {
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("authorization")
            {
                value.clone_into(&mut bearer);
            }
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (status, body) = if bearer != format!("Bearer {}", token.lock().unwrap()) {
            ("401 Unauthorized", UNAUTHORIZED.to_owned())
        } else if path.contains("watch=") {
            // Nothing happens.
            continue;
        } else if path.starts_with("/version") {
            ("200 OK", VERSION.to_owned())
        } else if path.starts_with("/api/v1/pods") {
            ("200 OK", NO_PODS.to_owned())
        } else {
            let name = path.rsplit('/').next().unwrap_or_default();
            ("200 OK", POD.replace("NAME", name))
        };
        let head = "content-type: application/json\r\ncontent-length:";
        let answer = format!("HTTP/1.1 {status}\r\n{head} {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn labels(kubeconfig: &Path) -> Labels {
    Labels::start(Setup {
        settings: Settings {
            kubeconfig: Some(kubeconfig.display().to_string()),
            node: Some("n".parse().unwrap()),
            ..Settings::default()
        },
        managed: true,
        connect: connector(),
        engine: mpsc::channel().0,
        progress: watch::Sender::new(0),
        runtime: Handle::current(),
    })
}

/// A call for a pod of which nothing is known yet, so that the API is asked.
fn call() -> Prepare {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    Prepare {
        pod: Pod {
            namespace: "default".to_owned(),
            name: format!("p{}", COUNT.fetch_add(1, Ordering::Relaxed)),
            uid: Some("1".to_owned()),
        },
        interface: "eth0".to_owned(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        annotations_passed: false,
        use_labels: true,
        settings: Settings::default(),
    }
}

async fn name(labels: &Labels) -> Result<String, String> {
    let resolved = labels.resolve(&call(), |resolved| resolved).await;
    resolved
        .map(|declaration| declaration.unwrap().pod.name().to_owned())
        .map_err(|failure| failure.message)
}

/// Tries until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_renewed_token_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let (kubeconfig, server) = (directory.path().join("kubeconfig"), Server::start("one"));
    server.write(&kubeconfig, "one");
    let labels = labels(&kubeconfig);
    until("the pods are listed", async || labels.failure().is_none()).await;
    assert_eq!(name(&labels).await.as_deref(), Ok("router"));

    // The watch goes on, as with the real API; the next request is refused.
    server.accept_only("two");
    until("a request is refused", async || {
        name(&labels).await.is_err()
    })
    .await;
    let refusal = name(&labels).await.unwrap_err();
    assert!(
        refusal.contains("refuses the credentials: Unauthorized"),
        "{refusal}"
    );
    server.write(&kubeconfig, "two");
    until("the new token is used", async || {
        name(&labels).await.is_ok()
    })
    .await;
    until("the watch is back", async || labels.failure().is_none()).await;
}

#[tokio::test]
async fn a_token_that_was_never_accepted_may_be_renewed() {
    let directory = tempfile::tempdir().unwrap();
    let (kubeconfig, server) = (directory.path().join("kubeconfig"), Server::start("two"));
    server.write(&kubeconfig, "one");
    let labels = labels(&kubeconfig);
    until("the token is refused", async || labels.failure().is_some()).await;
    server.write(&kubeconfig, "two");
    until("the new token is used", async || {
        name(&labels).await.is_ok()
    })
    .await;
}
