//! The events of a storm: bursts, whose events happen at the same time.

use std::{collections::BTreeSet, fmt, sync::Mutex};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    support::etcd::Cut,
    topology::{PODS, STILL},
    world::{Instance, NODES, World},
};

/// CNI: try again later.
const TRY_LATER: u64 = 11;

/// The calls for one pod in a burst.
enum Act {
    Add(Instance),
    Del(Instance),
    /// DEL on the old node, then ADD on the new one.
    Move(Instance, Instance),
    /// ADD of the new sandbox; the old one's DEL follows in a later burst.
    Replace(Instance, Instance),
    /// The DEL of a sandbox that was replaced in an earlier burst.
    LateDel(Instance),
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place =
            |instance: &Instance| format!("{} on node{}", instance.sandbox.id, instance.node + 1);
        match self {
            Self::Add(new) => write!(f, "ADD {}", place(new)),
            Self::Del(old) => write!(f, "DEL {}", place(old)),
            Self::Move(old, new) => write!(f, "DEL {}, ADD {}", place(old), place(new)),
            Self::Replace(old, new) => write!(f, "ADD {} before DEL {}", place(new), place(old)),
            Self::LateDel(old) => write!(f, "late DEL {}", place(old)),
        }
    }
}

/// The sandboxes of a pod after an act.
struct Outcome {
    pod: usize,
    living: Option<Instance>,
    stale: Option<Instance>,
    refused: bool,
}

impl World {
    /// Runs one to six events at the same time. Returns how many.
    pub fn burst(&mut self) -> usize {
        let mut acts = Vec::new();
        let mut busy = BTreeSet::new();
        for _ in 0..=self.random.below(5) {
            if let Some((pod, act)) = self.choose(&busy) {
                println!("  p{pod}: {act}");
                busy.insert(pod);
                acts.push((pod, act));
            }
        }
        let fault = self.inject_fault();
        let victim = self.random.percent(12).then(|| self.random.below(NODES));
        let count = acts.len() + usize::from(fault) + usize::from(victim.is_some());
        let outcomes = self.all_at_once(acts, victim);
        if let Some(victim) = victim {
            self.count("agents killed");
            let node = &mut self.all.cluster.nodes[victim];
            // The plugin may have started another agent. Then this one takes over.
            node.agent.take().unwrap().wait().unwrap();
            node.start_agent();
        }
        for outcome in outcomes {
            if outcome.refused {
                self.count("ADDs refused");
            }
            self.living
                .extend(outcome.living.map(|instance| (outcome.pod, instance)));
            self.stale.extend(outcome.stale);
        }
        count
    }

    /// Chooses a pod that is not busy, and an act for it.
    fn choose(&mut self, busy: &BTreeSet<usize>) -> Option<(usize, Act)> {
        let pod = STILL + self.random.below(PODS - STILL);
        if busy.contains(&pod) {
            return None;
        }
        let late = self
            .stale
            .iter()
            .position(|instance| instance.sandbox.pod.name == crate::topology::name(pod));
        if let Some(late) = late.filter(|_| self.random.percent(50)) {
            self.count("late DELs");
            return Some((pod, Act::LateDel(self.stale.remove(late))));
        }
        let new = Instance {
            node: self.random.below(NODES),
            sandbox: self.topology.pod(pod).sandbox(),
        };
        let Some(old) = self.living.remove(&pod) else {
            self.count("ADDs");
            return Some((pod, Act::Add(new)));
        };
        let act = match self.random.below(10) {
            0..4 => ("DELs", Act::Del(old)),
            4..7 => ("moves", Act::Move(old, new)),
            _ => ("ADDs before the old DEL", Act::Replace(old, new)),
        };
        self.count(act.0);
        Some((pod, act.1))
    }

    /// Ends the faults whose time is over, and may stop etcd or cut a node off. Returns whether it
    /// did.
    fn inject_fault(&mut self) -> bool {
        for node in self.cut.keys().copied().collect::<Vec<_>>() {
            let left = self.cut[&node];
            if left == 0 {
                println!("  node{} is reconnected", node + 1);
                self.cut.remove(&node);
                self.node(node).reconnect();
            } else {
                self.cut.insert(node, left - 1);
            }
        }
        if !self.all.etcd.is_running() {
            if self.etcd_off == 0 {
                println!("  etcd is started");
                self.all.etcd.start_again();
            } else {
                self.etcd_off -= 1;
            }
        }
        if self.random.percent(4) && self.all.etcd.is_running() {
            println!("  etcd is killed");
            self.count("stops of etcd");
            self.all.etcd.stop();
            self.etcd_off = 1 + self.random.below(3);
            return true;
        }
        let node = self.random.below(NODES);
        if self.random.percent(8) && !self.cut.contains_key(&node) {
            // The pings between the first two nodes must not be interrupted.
            let cut = match self.random.below(3) {
                0 => Cut::Etcd,
                1 => Cut::Answers,
                _ if node < 2 => Cut::Etcd,
                _ => Cut::Underlay,
            };
            println!("  node{} is cut off: {cut:?}", node + 1);
            self.count("cuts");
            self.node(node).cut(cut);
            let bursts = 1 + self.random.below(3);
            self.cut.insert(node, bursts);
            return true;
        }
        false
    }

    /// Performs all acts at the same time, and kills the agent of a node.
    fn all_at_once(&self, acts: Vec<(usize, Act)>, victim: Option<usize>) -> Vec<Outcome> {
        let outcomes = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for (pod, act) in acts {
                let outcomes = &outcomes;
                scope.spawn(move || {
                    let outcome = self.perform(pod, act);
                    outcomes.lock().unwrap().push(outcome);
                });
            }
            if let Some(victim) = victim {
                println!("  the agent of node{} is killed", victim + 1);
                let pid = self.node(victim).agent.as_ref().unwrap().id();
                kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
            }
        });
        outcomes.into_inner().unwrap()
    }

    fn perform(&self, pod: usize, act: Act) -> Outcome {
        let mut outcome = Outcome {
            pod,
            living: None,
            stale: None,
            refused: false,
        };
        match act {
            Act::Add(new) => self.try_add(new, &mut outcome),
            Act::Del(old) | Act::LateDel(old) => self.node(old.node).del(&old.sandbox),
            Act::Move(old, new) => {
                self.node(old.node).del(&old.sandbox);
                drop(old);
                self.try_add(new, &mut outcome);
            }
            Act::Replace(old, new) => {
                outcome.stale = Some(old);
                self.try_add(new, &mut outcome);
            }
        }
        outcome
    }

    /// Calls ADD, and DEL if it fails, as a runtime does.
    fn try_add(&self, new: Instance, outcome: &mut Outcome) {
        let node = self.node(new.node);
        match node.try_add(&new.sandbox) {
            Ok(_) => outcome.living = Some(new),
            Err(error) => {
                assert_eq!(error["code"], TRY_LATER, "{error}");
                println!("    {} is refused: {error}", new.sandbox.id);
                outcome.refused = true;
                node.del(&new.sandbox);
            }
        }
    }
}
