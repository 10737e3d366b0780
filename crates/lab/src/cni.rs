//! Calls the plugin as a container runtime does.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    agent::tail,
    interrupt,
    process::{MARK, PidFd},
    state::{LabDir, Node, Pod, State},
};

const ADD_TIMEOUT: Duration = Duration::from_secs(60);
const DEL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a plugin may take to undo its work after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Checks that `cni_path` has the plugin `loopback`, which sets up the lab's pods.
pub(crate) fn check_loopback(cni_path: &str) -> Result<()> {
    if cni_path
        .split(':')
        .any(|dir| Path::new(dir).join("loopback").is_file())
    {
        return Ok(());
    }
    bail!(
        "there is no CNI plugin `loopback` in {cni_path}: install it (Debian: \
         containernetworking-plugins), or name its directory with --cni-path"
    )
}

/// The CNI calls for one pod; their config is in the pod's directory.
#[derive(Debug)]
pub(crate) struct Calls<'a> {
    pub state: &'a State,
    pub node: &'a Node,
    pub pod: &'a Pod,
    pub dir: &'a LabDir,
}

impl Calls<'_> {
    /// Calls ADD. The result is kept for the DEL, as a runtime does.
    pub fn add(&self) -> Result<()> {
        self.call(
            "ADD",
            &self.file("cni.json"),
            &self.file("add.json"),
            ADD_TIMEOUT,
            || interrupt::check().is_err(),
        )
    }

    /// Calls DEL, with the result of the ADD as `prevResult` if there is one.
    pub fn del(&self) -> Result<()> {
        let config = self.file("cni.json");
        let read =
            |path: &Path| -> Option<Value> { serde_json::from_slice(&fs::read(path).ok()?).ok() };
        let mut value =
            read(&config).with_context(|| format!("cannot read {}", config.display()))?;
        if let Some(result) =
            read(&self.file("add.json")).filter(|result| result.get("code").is_none())
        {
            value["prevResult"] = result;
        }
        let config = self.file("del-config.json");
        fs::write(&config, value.to_string())
            .with_context(|| format!("cannot write {}", config.display()))?;
        self.call("DEL", &config, &self.file("del.json"), DEL_TIMEOUT, || {
            false
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.pod(self.pod).join(name)
    }

    fn call(
        &self,
        command: &str,
        config: &Path,
        result: &Path,
        timeout: Duration,
        stop: impl Fn() -> bool + Send,
    ) -> Result<()> {
        let what = || {
            let (namespace, pod, node) = (&self.pod.namespace, &self.pod.name, &self.node.name);
            format!("{command} of pod {namespace}/{pod} on {node} failed")
        };
        let status = self
            .node
            .netns
            .run(|| self.execute(command, config, result, timeout, stop))
            .with_context(what)?;
        if status.success() {
            Ok(())
        } else {
            Err(anyhow!(self.failure(status, result)).context(what()))
        }
    }

    /// Runs the plugin in the calling thread's namespace. Its standard streams are files and not
    /// pipes, so that nothing blocks on them when the plugin leaves a process in the background.
    fn execute(
        &self,
        command: &str,
        config: &Path,
        result: &Path,
        timeout: Duration,
        stop: impl Fn() -> bool,
    ) -> Result<ExitStatus> {
        let open = |path: &Path, file: std::io::Result<File>| {
            file.with_context(|| path.display().to_string())
        };
        let log = self.file("plugin.log");
        let mut child = Command::new(&self.state.ratchet)
            .envs(
                self.environment(command)
                    .iter()
                    .map(|(key, value)| (*key, value.as_os_str())),
            )
            .current_dir("/")
            .process_group(0)
            .stdin(open(config, File::open(config))?)
            .stdout(open(result, File::create(result))?)
            .stderr(open(
                &log,
                File::options().create(true).append(true).open(&log),
            )?)
            .spawn()
            .with_context(|| format!("cannot start {}", self.state.ratchet.display()))?;
        let pid = i32::try_from(child.id())?;
        let handle = PidFd::open(pid)?;
        let deadline = Instant::now() + timeout;
        while !handle.wait(Duration::from_millis(100)) {
            let late = Instant::now() > deadline;
            if !late && !stop() {
                continue;
            }
            // It is not reaped yet, so its pid and its group's id cannot have been reused.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGTERM);
            handle.wait(STOP_TIMEOUT);
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            child.wait()?;
            interrupt_or_timeout(late, timeout, tail(&log))?;
        }
        Ok(child.wait()?)
    }

    fn environment(&self, command: &str) -> Vec<(&'static str, std::ffi::OsString)> {
        let pod = self.pod;
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};\
             K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            pod.namespace, pod.name, pod.container_id, pod.uid
        );
        vec![
            ("CNI_COMMAND", command.into()),
            ("CNI_CONTAINERID", OsStr::new(&pod.container_id).into()),
            ("CNI_NETNS", pod.netns.path().into()),
            ("CNI_IFNAME", "eth0".into()),
            ("CNI_PATH", OsStr::new(&self.state.cni_path).into()),
            ("CNI_ARGS", args.into()),
            (MARK, OsStr::new(&self.state.id).into()),
        ]
    }

    /// Why the plugin failed: CNI's error object, or what the plugin printed if there is none.
    fn failure(&self, status: ExitStatus, result: &Path) -> String {
        let output = fs::read(result).unwrap_or_default();
        let text = |error: &Value, key: &str| {
            error
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        if let Ok(error) = serde_json::from_slice::<Value>(&output)
            && let Some(code) = error.get("code").and_then(Value::as_u64)
        {
            let details = text(&error, "details");
            let details = if details.is_empty() {
                details
            } else {
                format!(" ({details})")
            };
            return format!("code {code}: {}{details}", text(&error, "msg"));
        }
        let printed = [tail(result), tail(&self.file("plugin.log"))]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>();
        let printed = if printed.is_empty() {
            "    nothing".to_owned()
        } else {
            printed.join("\n")
        };
        format!("{status}, without a CNI error object; the plugin printed:\n{printed}")
    }
}

fn interrupt_or_timeout(late: bool, timeout: Duration, log: Option<String>) -> Result<()> {
    if !late {
        interrupt::check()?;
    }
    let log = log
        .map(|log| format!("; it printed:\n{log}"))
        .unwrap_or_default();
    bail!(
        "the plugin did not finish within {} s and was killed{log}",
        timeout.as_secs()
    )
}
