//! A node with sandboxes on the real kernel.

use std::{collections::BTreeMap, process::Command};

use nix::sched::{CloneFlags, setns, unshare};
use ratchet_kernel::{Kernel, Look, NetnsHandle, NodeKey};
use ratchet_model::device::Observed;
use ratchet_simulation::network::PARENT;

use crate::compare::{SANDBOXES, VTEP, places, sandbox};

/// A node with sandboxes.
pub struct Real {
    node: NetnsHandle,
    sandboxes: Vec<NetnsHandle>,
    pub kernel: Kernel,
}

fn fresh() -> NetnsHandle {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        NetnsHandle::current().unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

fn within<T: Send>(netns: &NetnsHandle, work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
}

fn ip(netns: &NetnsHandle, line: &str) {
    let words = line.split(' ');
    let output = within(netns, || Command::new("ip").args(words).output().unwrap());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {line}: {text}");
}

impl Real {
    /// A node with a parent interface, index 2.
    pub fn new() -> Self {
        let node = fresh();
        // A bridge is the one device of its own that every kernel has.
        ip(&node, &format!("link add {PARENT} type bridge"));
        ip(&node, &format!("address add {VTEP}/24 dev {PARENT}"));
        ip(&node, &format!("link set {PARENT} up"));
        let key = NodeKey::random().unwrap();
        let mut kernel = within(&node, || Kernel::new().unwrap().with_key(key));
        let sandboxes: Vec<NetnsHandle> = (0..SANDBOXES).map(|_| fresh()).collect();
        for (number, handle) in sandboxes.iter().enumerate() {
            kernel.register(sandbox(number), handle.clone());
        }
        Self {
            node,
            sandboxes,
            kernel,
        }
    }

    /// Makes a device that is not Ratchet's; `None`: in the node's namespace.
    pub fn add_stranger(&self, sandbox: Option<usize>, name: &str) {
        let netns = sandbox.map_or(&self.node, |number| &self.sandboxes[number]);
        ip(netns, &format!("link add {name} type bridge"));
        ip(netns, &format!("link set {name} up"));
    }

    /// All devices but `lo`.
    pub fn observe(&self) -> Vec<Observed> {
        let looks: BTreeMap<_, _> = places().map(|netns| (netns, Look::All)).collect();
        let mut found = self.kernel.observe(&looks, |_| true).unwrap();
        found.retain(|device| device.name != "lo");
        found
    }
}
