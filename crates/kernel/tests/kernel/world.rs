//! A node with pods: anonymous network namespaces and a [`Kernel`] that lives in the first.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};
use ratchet_kernel::{Kernel, Look, NetnsHandle, NodeKey, Outcome};
use ratchet_model::{
    device::{Alias, At, Netns, NewDevice, Observed, Operation, Part, Step, Tunnel},
    link::End,
    names::{LinkId, SandboxId},
};

/// A new network namespace.
pub fn fresh() -> NetnsHandle {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        NetnsHandle::current().unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

/// Runs something in a namespace.
pub fn within<T: Send>(netns: &NetnsHandle, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

/// Runs a command line in a namespace; returns whether it succeeded, and what it printed.
pub fn run(netns: &NetnsHandle, line: &str) -> (bool, String) {
    let words: Vec<&str> = line.split(' ').collect();
    let output = within(netns, || {
        Command::new(words[0]).args(&words[1..]).output().unwrap()
    });
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

/// Runs a command line that must succeed.
pub fn sh(netns: &NetnsHandle, line: &str) -> String {
    let (success, text) = run(netns, line);
    assert!(success, "{line}: {text}");
    text
}

/// Tries until it succeeds or five seconds are over.
pub fn eventually(what: &str, mut attempt: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !attempt() {
        assert!(Instant::now() < deadline, "not within 5 s: {what}");
        std::thread::yield_now();
    }
}

pub struct World {
    pub node: NetnsHandle,
    pub kernel: Kernel,
    pub pods: Vec<NetnsHandle>,
}

impl World {
    /// A node with so many pods, whose sandboxes are called s0, s1 …
    pub fn new(pods: usize) -> Self {
        Self::on(fresh(), pods)
    }

    pub fn on(node: NetnsHandle, pods: usize) -> Self {
        let key = NodeKey::random().unwrap();
        let mut kernel = within(&node, || Kernel::new().unwrap().with_key(key));
        let pods: Vec<NetnsHandle> = (0..pods).map(|_| fresh()).collect();
        for (number, pod) in pods.iter().enumerate() {
            kernel.register(sandbox(number), pod.clone());
        }
        Self { node, kernel, pods }
    }

    /// Executes operations for link 1; all must succeed.
    pub fn do_all(&self, operations: impl IntoIterator<Item = Operation>) {
        for (number, outcome) in self.attempt(operations).into_iter().enumerate() {
            outcome.unwrap_or_else(|error| panic!("step {number}: {error}"));
        }
    }

    pub fn attempt(&self, operations: impl IntoIterator<Item = Operation>) -> Vec<Outcome> {
        let steps: Vec<Step> = operations
            .into_iter()
            .map(|operation| Step {
                link: link(1),
                operation,
            })
            .collect();
        self.kernel.execute(&steps)
    }

    /// All devices of a namespace but `lo`.
    pub fn all(&self, netns: Netns) -> Vec<Observed> {
        let mut found = self.look(netns, Look::All);
        found.retain(|device| device.name != "lo");
        found
    }

    pub fn look(&self, netns: Netns, look: Look) -> Vec<Observed> {
        self.kernel
            .observe(&BTreeMap::from([(netns, look)]), |_| true)
            .unwrap()
    }

    pub fn one(&self, at: &At) -> Observed {
        let mut found = self.look(at.netns.clone(), Look::Names([at.name.clone()].into()));
        assert_eq!(found.len(), 1, "{at}");
        found.remove(0)
    }
}

pub fn sandbox(number: usize) -> SandboxId {
    format!("s{number}").parse().unwrap()
}

pub fn pod(number: usize) -> Netns {
    Netns::Sandbox(sandbox(number))
}

pub fn at(netns: Netns, name: &str) -> At {
    At {
        netns,
        name: name.into(),
    }
}

pub fn link(number: u64) -> LinkId {
    format!("{number:016x}").parse().unwrap()
}

pub fn alias(end: End, sandbox: Option<usize>) -> Alias {
    Alias {
        link: link(1),
        end,
        part: Part::Pod,
        sandbox: sandbox.map(self::sandbox),
        config: 7,
    }
}

/// A device to be created, with a MAC address that ends in `last`.
pub fn new_device(at: &At, last: u16) -> NewDevice {
    let mac = format!("02:00:00:00:{:02x}:{:02x}", last >> 8, last & 0xff)
        .parse()
        .unwrap();
    NewDevice {
        at: at.clone(),
        mac,
        mtu: 1450.try_into().unwrap(),
        index: None,
    }
}

pub fn tunnel(vni: u32, local: &str, remote: &str, parent: u32) -> Tunnel {
    Tunnel {
        vni: vni.try_into().unwrap(),
        remote: remote.parse().unwrap(),
        local: local.parse().unwrap(),
        parent,
        port: 4789,
    }
}
