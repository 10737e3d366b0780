//! The cluster and its state: the node of each pod, and the current faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{
    random::Random,
    support::{Netns, Node, Sandbox, etcd::EtcdCluster},
    topology::{PODS, STILL, Topology},
};

pub const NODES: usize = 5;

/// How long the cluster may take until everything is as declared. An agent that was cut off notices
/// it within 15 s (keepalive).
const TIMEOUT: Duration = Duration::from_secs(90);

/// A sandbox and its node.
pub struct Instance {
    pub node: usize,
    pub sandbox: Sandbox,
}

pub struct World {
    pub all: EtcdCluster,
    pub topology: Topology,
    pub random: Random,
    /// By pod.
    pub living: BTreeMap<usize, Instance>,
    /// Sandboxes that were replaced and had no DEL yet.
    pub stale: Vec<Instance>,
    /// Nodes that are cut off, and for how many more bursts.
    pub cut: BTreeMap<usize, usize>,
    /// For how many more bursts etcd stays stopped.
    pub etcd_off: usize,
    pub counts: BTreeMap<String, usize>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self {
            all: EtcdCluster::with_agents(NODES),
            topology: Topology::new(&mut random),
            random,
            living: BTreeMap::new(),
            stale: Vec::new(),
            cut: BTreeMap::new(),
            etcd_off: 0,
            counts: BTreeMap::new(),
        }
    }

    pub fn node(&self, number: usize) -> &Node {
        &self.all.cluster.nodes[number]
    }

    /// Adds all pods, eight at a time.
    pub fn add_all(&mut self) {
        // The first two are on one node, the next two on two nodes that are never cut off from each
        // other.
        let fixed = [2, 2, 0, 1];
        let instances: Vec<(usize, Instance)> = (0..PODS)
            .map(|pod| {
                let node = fixed
                    .get(pod)
                    .copied()
                    .unwrap_or_else(|| self.random.below(NODES));
                (
                    pod,
                    Instance {
                        node,
                        sandbox: self.topology.pod(pod).sandbox(),
                    },
                )
            })
            .collect();
        let queue = Mutex::new(instances.iter());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while let Some((_, instance)) = { queue.lock().unwrap().next() } {
                        self.node(instance.node).add(&instance.sandbox);
                    }
                });
            }
        });
        self.living.extend(instances);
    }

    /// Namespaces, and the addresses to ping from there over links that no event touches.
    pub fn undisturbed(&self) -> [(&Netns, String); 2] {
        const { assert!(STILL >= 4) };
        [0, 1].map(|link| {
            let link = &self.topology.links[link];
            (&self.living[&link.ends[0].0].sandbox.netns, link.address(1))
        })
    }

    /// Ends all faults and calls the DELs that are due.
    pub fn end_faults(&mut self) {
        for node in std::mem::take(&mut self.cut).into_keys() {
            self.node(node).reconnect();
        }
        if !self.all.etcd.is_running() {
            self.all.etcd.start_again();
        }
        for instance in std::mem::take(&mut self.stale) {
            self.node(instance.node).del(&instance.sandbox);
        }
    }

    #[track_caller]
    pub fn wait_until_as_declared(&self, when: &str) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let problems = self.problems();
            if problems.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                let shown = &problems[..problems.len().min(30)];
                panic!(
                    "{when}: {} problems after {TIMEOUT:?}: {shown:#?}",
                    problems.len()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Pings over every link between living pods, from both ends.
    pub fn ping_everything(&self) {
        let lines: Vec<(usize, String)> = (0..PODS)
            .filter(|pod| self.living.contains_key(pod))
            .map(|pod| {
                let far_ends = self.topology.of(pod).flat_map(|link| {
                    let own = [0, 1].into_iter().filter(|end| link.ends[*end].0 == pod);
                    own.filter(|end| self.living.contains_key(&link.ends[1 - end].0))
                        .map(|end| link.address(1 - end))
                });
                let far_ends: BTreeSet<String> = far_ends.collect();
                // The first request may be lost while the neighbour is resolved.
                let pings = far_ends.iter().map(|address| {
                    format!("ping -qc3 -i0.2 -W1 {address} >/dev/null || echo {address}")
                });
                (pod, pings.collect::<Vec<_>>().join("; "))
            })
            .collect();
        let queue = Mutex::new(lines.iter());
        let silent: Vec<String> = std::thread::scope(|scope| {
            let work = || {
                let mut silent = Vec::new();
                while let Some((pod, line)) = { queue.lock().unwrap().next() } {
                    let output = self.living[pod].sandbox.netns.sh(line);
                    silent.extend(
                        output
                            .lines()
                            .map(|address| format!("pod {pod} to {address}")),
                    );
                }
                silent
            };
            let workers: Vec<_> = (0..16).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap())
                .collect()
        });
        assert!(silent.is_empty(), "no answer: {silent:#?}");
    }

    /// Deletes all pods. Nothing may be left.
    pub fn del_all(&mut self) {
        for instance in std::mem::take(&mut self.living).into_values() {
            self.node(instance.node).del(&instance.sandbox);
        }
        self.all.etcd.wait_until_empty();
        self.all.cluster.assert_nothing_left();
    }

    pub fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    pub fn tally(&self) -> String {
        let counts: Vec<String> = self
            .counts
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        counts.join(", ")
    }
}
