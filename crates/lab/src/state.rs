//! `/run/ratchet/lab/NAME`: what a lab is made of, written before each thing is made.

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
/// A unix socket's path must fit into sockaddr_un with its final zero.
const MAX_SOCKET_PATH: usize = 107;

/// A lab as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub name: String,
    /// Random, in the environment of every process of the lab.
    pub id: String,
    /// The manifest it was made from.
    pub file: String,
    /// The binary that is agent and plugin.
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
    /// Its agent, once started.
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
    /// Set before its ADD: from then on it takes a DEL.
    pub attached: bool,
    pub mounts: Vec<Mount>,
    /// Whether it has a script to run.
    pub has_script: bool,
}

/// A ConfigMap volume, or a file of one, and where the pod sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// Below the pod's directory.
    pub source: PathBuf,
    pub target: PathBuf,
}

impl Pod {
    /// The name a user calls it by: the namespace only where it is not the default one.
    pub fn title(&self) -> String {
        if self.namespace == "default" {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

impl State {
    /// All namespaces of the lab, innermost first: pods, nodes, underlay.
    pub fn namespaces(&self) -> Vec<&Netns> {
        let pods = self.pods.iter().map(|pod| &pod.netns);
        pods.chain(self.nodes.iter().map(|node| &node.netns))
            .chain([&self.underlay])
            .collect()
    }

    /// The node that a pod runs on.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

/// A lab's directory. Holding one from [`LabDir::create`] or [`LabDir::lock`] is holding the lab's
/// lock.
#[derive(Debug)]
pub(crate) struct LabDir {
    path: PathBuf,
    _lock: Option<Flock<File>>,
}

impl LabDir {
    /// Where a lab of this name is, made or not.
    pub fn at(name: &str) -> Self {
        Self {
            path: Path::new(BASE).join(name),
            _lock: None,
        }
    }

    /// Makes and locks the directory; an error that says how to go on when there is one already.
    pub fn create(name: &str) -> Result<Self> {
        let mut dir = Self::at(name);
        // Another lab's `down` may take the empty parent away between our two steps.
        for _ in 0..100 {
            make_dir(Path::new(BASE))?;
            match DirBuilder::new().mode(0o700).create(&dir.path) {
                Ok(()) => {
                    dir._lock = Some(dir.try_lock()?);
                    return Ok(dir);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    bail!(dir.already_there())
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot make {}", dir.path.display()));
                }
            }
        }
        bail!(
            "cannot make {}: its parent directory keeps vanishing",
            dir.path.display()
        )
    }

    /// Opens and locks the directory of a lab that must be there.
    pub fn lock(name: &str) -> Result<Self> {
        let mut dir = Self::existing(name)?;
        // Of an `up` that was killed, a child may hold the lock for a moment more, between its fork
        // and its exec. Holding the lock so proves as well that every such child has come to its
        // exec, and can be found.
        let deadline = Instant::now() + LOCK_TIMEOUT;
        dir._lock = Some(loop {
            match dir.try_lock() {
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(10)),
                result => break result?,
            }
        });
        Ok(dir)
    }

    /// The directory of a lab that must be there, to look only.
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
        let there_are = if others.is_empty() {
            "none".into()
        } else {
            others.join(", ")
        };
        bail!("there is no lab '{name}' on this machine (labs there are: {there_are})")
    }

    /// The error for a second `up`.
    pub fn already_there(&self) -> String {
        let name = self.name();
        let unfinished = match self.load() {
            Ok(Some(state)) if state.complete => "",
            _ => " (its `up` has not finished)",
        };
        format!(
            "the lab '{name}' is there already{unfinished}: remove it with `ratchet lab down{}`, \
            or choose another \
             --name",
            name_option(&name)
        )
    }

    fn try_lock(&self) -> Result<Flock<File>> {
        let file = File::open(&self.path)
            .with_context(|| format!("cannot open {}", self.path.display()))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            anyhow::anyhow!(
                "another `ratchet lab up` or `down` is at work on lab '{}': wait for it, or stop \
                 it with Ctrl-C",
                self.name()
            )
        })
    }

    /// Whether the lab is there.
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

    /// The record; none when `up` was killed before it wrote one, and so before it made anything.
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
                "cannot understand {}: use the ratchet that made this lab to remove it",
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
        // No namespace holds an underscore, so no two pods share a directory.
        self.path
            .join("pods")
            .join(format!("{}_{}", pod.namespace, pod.name))
    }

    /// The output of a pod's script.
    pub fn pod_log(&self, pod: &Pod) -> PathBuf {
        self.pod(pod).join("run.log")
    }

    /// Checks that a node's socket can have the path it is to have.
    pub fn check_socket(&self, node: &str) -> Result<()> {
        let path = self.socket(node);
        let length = path.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            bail!(
                "the agent's socket {} would have {length} bytes, and a unix socket's path ends at \
                {MAX_SOCKET_PATH}: \
                 use a shorter --name or node name",
                path.display()
            );
        }
        Ok(())
    }

    /// Removes the lab's files, and the directories above when they are empty.
    pub fn remove(self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot remove {}", self.path.display()));
            }
            _ => {}
        }
        // Other labs, or an agent of the host, may live there: then this fails, as it should.
        let base = Path::new(BASE);
        let _ = fs::remove_dir(base).and_then(|()| base.parent().map_or(Ok(()), fs::remove_dir));
        Ok(())
    }
}

/// Makes a directory for root alone, and those above it.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}
