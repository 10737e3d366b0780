//! A Kubernetes API on a node's loopback that hangs until a test has it answer.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{Shutdown, shutdown},
};

use super::{Cluster, eventually};

const VERSION: &str = r#"{"major": "1", "minor": "33", "gitVersion": "v1.33.0", "gitCommit": "",
    "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}"#;
const NO_PODS: &str = r#"{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
    "metadata": {"resourceVersion": "1"}, "items": []}"#;
const NOT_FOUND: &str = r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure",
    "message": "not found", "reason": "NotFound", "code": 404}"#;

/// The API. It accepts connections and reads requests all the time, and knows of no pod but those
/// that it is given.
pub struct Api {
    pub kubeconfig: PathBuf,
    listener: TcpListener,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    answers: AtomicBool,
    /// The paths that were asked for.
    asked: Mutex<Vec<String>>,
    /// A pod's name, and its metadata as JSON.
    pod: Mutex<Option<(String, String)>>,
}

impl Api {
    /// An API that hangs, on the cluster's first node.
    pub fn hanging(cluster: &Cluster) -> Self {
        let netns = File::open(cluster.nodes[0].netns.path()).unwrap();
        let listen = move || {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind("127.0.0.1:0").unwrap()
        };
        let listener = thread::spawn(listen).join().unwrap();
        let port = listener.local_addr().unwrap().port();
        let kubeconfig = cluster.dir.path().join("kubeconfig");
        let text = format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{{"name": "c", "cluster": {{"server": "http://127.0.0.1:{port}"}}}}],
            "users": [{{"name": "u", "user": {{"token": "t"}}}}],
            "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}]}}"#
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let state = Arc::new(State::default());
        let (accepts, shared) = (listener.try_clone().unwrap(), state.clone());
        thread::spawn(move || {
            // Until the listener is shut down.
            for stream in accepts.incoming().map_while(Result::ok) {
                let state = shared.clone();
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self {
            kubeconfig,
            listener,
            state,
        }
    }

    /// From now on it answers, and has this pod. Requests that hang go on hanging.
    pub fn answer_with(&self, pod: &str, labels: &str) {
        let metadata = format!(
            r#"{{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata":
            {{"namespace": "default", "name": "{pod}", "uid": "1", "resourceVersion": "1",
            "labels": {labels}}}}}"#
        );
        *self.state.pod.lock().unwrap() = Some((pod.to_owned(), metadata));
        self.state.answers.store(true, Ordering::SeqCst);
    }

    /// Waits until it is asked for a pod.
    #[track_caller]
    pub fn wait_for_request(&self, pod: &str) {
        let path = format!("/api/v1/namespaces/default/pods/{pod}");
        eventually(&format!("a request for {pod}"), || {
            let asked = self.state.asked.lock().unwrap();
            let is_asked = asked.iter().any(|asked| asked.starts_with(&path));
            is_asked.then_some(()).ok_or_else(|| format!("{asked:?}"))
        });
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

/// One connection, until the client closes it.
fn serve(mut stream: TcpStream, state: &State) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(request)) = lines.next() {
        while lines
            .next()
            .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
        {}
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        state.asked.lock().unwrap().push(path.clone());
        // A request that has to wait for an answer waits for good, and so does a watch.
        if state.answers.load(Ordering::SeqCst) && !path.contains("watch=") {
            let (status, body) = answer(&path, state);
            let head = "content-type: application/json\r\ncontent-length:";
            let answer = format!("HTTP/1.1 {status}\r\n{head} {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn answer(path: &str, state: &State) -> (&'static str, String) {
    let pod = state.pod.lock().unwrap().clone();
    if path.starts_with("/version") {
        return ("200 OK", VERSION.to_owned());
    }
    if path.starts_with("/api/v1/pods") {
        return ("200 OK", NO_PODS.to_owned());
    }
    match pod {
        Some((name, metadata)) if path.split('?').next().unwrap().ends_with(&name) => {
            ("200 OK", metadata)
        }
        _ => ("404 Not Found", NOT_FOUND.to_owned()),
    }
}
