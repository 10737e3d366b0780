//! A node for tests of the engine: a namespace of its own, with real kernel and store.

use std::{
    path::{Path, PathBuf},
    process::Command as Process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use ratchet_kernel::NodeKey;
use ratchet_protocol::Settings;
use tokio::{runtime::Runtime, sync::watch};

use super::{Command, Engine, Setup};
use crate::{
    clock::SystemClock,
    events::NoEvents,
    state::{StateDir, boot_id},
    store::open_store,
};

#[track_caller]
pub(super) fn ip(arguments: &str) -> String {
    let output = Process::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A named network namespace, gone on drop.
pub(super) struct Netns(String);

impl Netns {
    pub fn new(pod: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rt-{}-engine-{number}-{pod}", std::process::id());
        ip(&format!("netns add {name}"));
        Self(name)
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    pub fn devices(&self) -> Vec<String> {
        devices(&ip(&format!("-n {} -o link show", self.0)))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Process::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// The devices in a listing that are not there from the beginning.
pub(super) fn devices(listing: &str) -> Vec<String> {
    let names = listing
        .lines()
        .filter_map(|line| line.split([':', '@']).nth(1))
        .map(|name| name.trim().to_owned());
    names
        .filter(|name| !["lo", "u0", "u1"].contains(&name.as_str()))
        .collect()
}

/// A node whose engine is made when it is wanted.
pub(super) struct Node {
    pub dir: tempfile::TempDir,
    pub runtime: Runtime,
    pub settings: Settings,
    pub progress: watch::Sender<u64>,
    key: NodeKey,
}

impl Node {
    /// To be called on a thread of its own: its network namespace is the node's from now on.
    pub fn new() -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        ip("link add u0 type veth peer name u1");
        ip("address add 10.0.0.1/24 dev u0");
        ip("link set u0 up");
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            store: Some(format!("sqlite:{}", dir.path().join("store.db").display())),
            node: Some("n1".parse().unwrap()),
            parent_interface: Some("u0".into()),
            ..Settings::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            key: NodeKey::random().unwrap(),
            dir,
            runtime,
            settings,
            progress: watch::Sender::new(0),
        }
    }

    /// An engine that has read what is on disk.
    pub fn engine(&self, commands: &mpsc::Sender<Command>) -> Engine {
        Engine::new(self.setup(commands)).unwrap()
    }

    /// What an engine of this node is made with.
    pub fn setup(&self, commands: &mpsc::Sender<Command>) -> Setup {
        Setup {
            settings: self.settings.clone(),
            managed: true,
            states: StateDir::open(self.dir.path()).unwrap(),
            boot_id: boot_id().unwrap(),
            kernel: Box::new(
                ratchet_kernel::Kernel::new()
                    .unwrap()
                    .with_key(self.key.clone()),
            ),
            clock: Arc::new(SystemClock),
            open_store: Arc::new(|settings| Box::pin(open_store(settings))),
            events: Box::new(NoEvents),
            runtime: self.runtime.handle().clone(),
            commands: commands.clone(),
            progress: self.progress.clone(),
        }
    }
}
