//! `/run/ratchet/lab/NAME`: the record of a lab, written before each thing is made.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{ErrorKind, Write},
    net::IpAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{cli::name_option, netns::Netns, process::ProcessId};

const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const BASE: &str = "/run/ratchet/lab";
/// The longest path of a unix socket: sun_path of sockaddr_un has 108 bytes, the last one is zero
/// (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// The record of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub name: String,
    /// A random id, in the environment of every process of the lab.
    pub id: String,
    /// The manifest it was made from.
    pub file: String,
    /// The binary that runs as agent and as plugin.
    pub ratchet: PathBuf,
    pub cni_path: String,
    /// Set when `up` has finished.
    pub complete: bool,
    pub cidr: IpNet,
    pub underlay: Netns,
    pub nodes: Vec<Node>,
    pub pods: Vec<Pod>,
}

/// A simulated node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub address: IpAddr,
    pub netns: Netns,
    /// Its agent, set once it was started.
    pub agent: Option<ProcessId>,
}

/// A pod's sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pod {
    pub namespace: String,
    pub name: String,
    pub node: String,
    pub netns: Netns,
    pub container_id: String,
    pub uid: String,
    /// Set before its ADD: from then on it needs a DEL.
    pub attached: bool,
    pub mounts: Vec<Mount>,
    /// Whether it has a script to run.
    pub has_script: bool,
}

/// A ConfigMap volume, or a file of one, and its path in the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// Below the pod's directory.
    pub source: PathBuf,
    pub target: PathBuf,
}

impl Pod {
    /// The name for users: NAMESPACE/NAME, or NAME in the default namespace.
    pub fn title(&self) -> String {
        if self.namespace == "default" {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

impl State {
    /// All network namespaces of the lab: pods, nodes, underlay.
    pub fn namespaces(&self) -> Vec<&Netns> {
        let pods = self.pods.iter().map(|pod| &pod.netns);
        pods.chain(self.nodes.iter().map(|node| &node.netns))
            .chain([&self.underlay])
            .collect()
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

/// A lab's directory. A value from [`LabDir::create`] or [`LabDir::lock`] holds the lab's lock.
#[derive(Debug)]
pub(crate) struct LabDir {
    path: PathBuf,
    _lock: Option<Flock<File>>,
}

impl LabDir {
    /// The directory of the lab of this name, whether it exists or not.
    pub fn at(name: &str) -> Self {
        Self {
            path: Path::new(BASE).join(name),
            _lock: None,
        }
    }

    /// Makes and locks the directory.
    ///
    /// # Errors
    /// When it exists already; the error says what to do.
    pub fn create(name: &str) -> Result<Self> {
        let mut dir = Self::at(name);
        // Another lab's `down` may remove the empty parent between the two steps.
        for _ in 0..100 {
            make_dir(Path::new(BASE))?;
            match DirBuilder::new().mode(0o700).create(&dir.path) {
                Ok(()) => {
                    dir._lock = Some(dir.try_lock()?);
                    return Ok(dir);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    bail!(dir.already_exists())
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot make {}", dir.path.display()));
                }
            }
        }
        bail!(
            "cannot make {}: another process keeps removing its parent directory; run the command \
             again",
            dir.path.display()
        )
    }

    /// Opens and locks the directory of an existing lab.
    pub fn lock(name: &str) -> Result<Self> {
        let mut dir = Self::existing(name)?;
        // After an `up` was killed, a child of it still holds the lock between its fork and its
        // exec. So the lock also proves that every child has reached its exec, where it has the
        // lab's mark and can be found.
        let deadline = Instant::now() + LOCK_TIMEOUT;
        dir._lock = Some(loop {
            match dir.try_lock() {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(10)),
                result => break result?,
            }
        });
        Ok(dir)
    }

    /// The directory of an existing lab, without its lock: for reading only.
    pub fn existing(name: &str) -> Result<Self> {
        let dir = Self::at(name);
        if dir.path.is_dir() {
            return Ok(dir);
        }
        let mut others: Vec<_> = fs::read_dir(BASE).into_iter().flatten().flatten().collect();
        others.sort_by_key(fs::DirEntry::file_name);
        let others: Vec<_> = others
            .iter()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        if others.is_empty() {
            bail!("there is no lab '{name}' on this machine, and no other lab");
        }
        bail!(
            "there is no lab '{name}' on this machine: choose with --name one of {}",
            others.join(", ")
        )
    }

    /// The error for a second `up`.
    pub fn already_exists(&self) -> String {
        let name = self.name();
        let unfinished = match self.load() {
            Ok(Some(state)) if state.complete => "",
            _ => " (its `up` has not finished)",
        };
        format!(
            "the lab '{name}' exists already{unfinished}: remove it with `ratchet lab down{}`, or \
             choose another --name",
            name_option(&name)
        )
    }

    fn try_lock(&self) -> Result<Flock<File>> {
        let file = File::open(&self.path)
            .with_context(|| format!("cannot open {}", self.path.display()))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            anyhow::anyhow!(
                "another `ratchet lab up` or `down` is running for the lab '{}': wait for it, or \
                 stop it with Ctrl-C",
                self.name()
            )
        })
    }

    /// Whether the lab exists.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// The lab's name.
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// The record; an error when there is none yet.
    pub fn recorded(&self) -> Result<State> {
        match self.load()? {
            Some(state) => Ok(state),
            None => {
                let name = self.name();
                bail!(
                    "nothing of the lab '{name}' has been made yet: wait for its `ratchet lab up`; \
                     if that was killed, run `ratchet lab down{}`",
                    name_option(&name)
                )
            }
        }
    }

    /// The record; `None` when `up` has not written it yet, and so has not made anything else.
    pub fn load(&self) -> Result<Option<State>> {
        let path = self.path.join("lab.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let state = serde_json::from_slice(&text).with_context(|| {
            format!(
                "cannot parse {}: remove this lab with the version of ratchet that made it",
                path.display()
            )
        })?;
        Ok(Some(state))
    }

    /// Replaces the record in one step.
    pub fn save(&self, state: &State) -> Result<()> {
        let write = || -> Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            serde_json::to_writer_pretty(&mut file, state)?;
            file.flush()?;
            file.persist(self.path.join("lab.json"))?;
            Ok(())
        };
        write().with_context(|| format!("cannot write the lab's record in {}", self.path.display()))
    }

    /// The SQLite file that the lab's agents share.
    pub fn store(&self) -> String {
        format!("sqlite:{}", self.path.join("store/ratchet.db").display())
    }

    /// A node's directory: socket, state, logs.
    pub fn node(&self, node: &str) -> PathBuf {
        self.path.join("nodes").join(node)
    }

    /// The socket of a node's agent.
    pub fn socket(&self, node: &str) -> PathBuf {
        self.node(node).join("agent.sock")
    }

    /// The log of a node's agent.
    pub fn agent_log(&self, node: &str) -> PathBuf {
        self.node(node).join("agent.log")
    }

    /// A pod's directory: CNI config and results, volumes, its /run, its script's log.
    pub fn pod(&self, pod: &Pod) -> PathBuf {
        // No namespace has an underscore in its name, so no two pods share a directory.
        self.path
            .join("pods")
            .join(format!("{}_{}", pod.namespace, pod.name))
    }

    /// The output of a pod's script.
    pub fn pod_log(&self, pod: &Pod) -> PathBuf {
        self.pod(pod).join("run.log")
    }

    /// Checks that the path of a node's socket is not too long.
    pub fn check_socket(&self, node: &str) -> Result<()> {
        let path = self.socket(node);
        let length = path.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            bail!(
                "the path of the agent's socket {} would have {length} bytes, expected at most \
                 {MAX_SOCKET_PATH}: use a shorter --name or node name",
                path.display()
            );
        }
        Ok(())
    }

    /// Removes the lab's files, and the directories above it if they are empty.
    pub fn remove(self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot remove {}", self.path.display()));
            }
            _ => {}
        }
        // This fails, as it should, if they have files of other labs or of the machine's own agent.
        let base = Path::new(BASE);
        let _ = fs::remove_dir(base).and_then(|()| base.parent().map_or(Ok(()), fs::remove_dir));
        Ok(())
    }
}

/// Makes a directory that only root can read, and its parents.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}
