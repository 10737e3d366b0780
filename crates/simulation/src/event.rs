//! What happens in a history.
//!
//! An event does not depend on what happened before: where it makes no sense it does nothing. So
//! any event can be left out when a history is shrunk.

use std::fmt;

use crate::{
    declaration::{Declaration, pod_name},
    network::{Forgery, NodeNumber, PodNumber},
};

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The runtime starts a new sandbox of a pod: ADD.
    Add {
        /// The pod.
        pod: PodNumber,
        /// Where.
        node: NodeNumber,
        /// What is written on it.
        declaration: Declaration,
        /// Whether the plugin says before that it is coming.
        is_expected: bool,
    },
    /// The runtime ends a sandbox of a pod: DEL, and the namespace goes when that has worked.
    Del {
        /// The pod.
        pod: PodNumber,
        /// The newest of its sandboxes; else the oldest.
        newest: bool,
    },
    /// The runtime gives up on the ADD of a pod's newest sandbox before it was answered: DEL.
    Abort {
        /// The pod.
        pod: PodNumber,
    },
    /// The DEL of a sandbox that has gone comes once more.
    DelAgain {
        /// The pod.
        pod: PodNumber,
    },
    /// The ADD of a pod's newest sandbox comes once more.
    AddAgain {
        /// The pod.
        pod: PodNumber,
    },
    /// The ADD of a sandbox that has gone comes once more.
    AddLate {
        /// The pod.
        pod: PodNumber,
    },
    /// The namespace of a pod's newest sandbox ends before its DEL.
    Vanish {
        /// The pod.
        pod: PodNumber,
    },
    /// What is written on a running pod changes.
    Change {
        /// The pod.
        pod: PodNumber,
        /// To this.
        declaration: Declaration,
    },
    /// CHECK of a pod's newest sandbox.
    Check {
        /// The pod.
        pod: PodNumber,
    },
    /// GC on a node.
    Collect(NodeNumber),
    /// A device that is not Ratchet's takes the place of an end.
    Stranger {
        /// The pod.
        pod: PodNumber,
        /// The number of the interface.
        interface: u8,
    },
    /// Somebody deletes a device of Ratchet's.
    DeleteDevice {
        /// The pod in whose newest sandbox it is.
        pod: PodNumber,
        /// The number of the interface.
        interface: u8,
    },
    /// The root of a pod does something to its devices.
    Forge {
        /// The pod, in whose newest sandbox it is.
        pod: PodNumber,
        /// What.
        forgery: Forgery,
    },
    /// The agent stops, and the node's key is lost.
    LoseKey(NodeNumber),
    /// The agent is stopped and started again.
    Restart(NodeNumber),
    /// The agent is stopped, and started again with the other `wiring` in its config.
    Rewire(NodeNumber),
    /// The agent crashes at the n-th point that it passes from now on.
    Crash {
        /// Where.
        node: NodeNumber,
        /// After so many points.
        after: u32,
    },
    /// The node starts again: nothing is left in its kernel.
    Reboot(NodeNumber),
    /// The node cannot reach the store any more.
    Offline(NodeNumber),
    /// The node can reach neither the store nor the API any more.
    CutOff(NodeNumber),
    /// The store takes the node for lost, although it can be reached.
    EndSession(NodeNumber),
    /// The parent interface of the node has no address any more.
    LoseUnderlay(NodeNumber),
    /// Another program removes all rules of the node's packet filter (`nft flush ruleset`).
    FlushFilter(NodeNumber),
    /// The node's kernel refuses to read and change the source filter.
    RefuseFilter(NodeNumber),
    /// The node can reach the store and the API again, quickly and with every answer, has its
    /// address, and can change its filter.
    Online(NodeNumber),
    /// The next calls of the node to the store take long.
    Slow(NodeNumber),
    /// The next changes that the node makes to the store are made, but not answered.
    Unanswered(NodeNumber),
    /// The next reads of the node are answered with what the store had so many changes ago.
    Stale {
        /// The node.
        node: NodeNumber,
        /// So many reads.
        reads: u32,
        /// So many changes ago.
        age: usize,
    },
    /// The node's watch on the store ends.
    BreakWatch(NodeNumber),
    /// The store loses everything.
    Wipe,
    /// The node's disk is full.
    FillDisk(NodeNumber),
    /// There is room again.
    FreeDisk(NodeNumber),
    /// The agent stops, and its state directory is lost.
    LoseState {
        /// The node.
        node: NodeNumber,
        /// All of it; else one sandbox's file.
        all: bool,
    },
    /// The node's agent does not hear of changes on pods.
    ApiOffline(NodeNumber),
    /// Time passes.
    Advance {
        /// So many milliseconds.
        millis: u64,
    },
    /// All faults end, and all that is under way comes to its end. Then the oracle is asked.
    Settle,
}

/// Something that happens, and whose turn it is after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happens.
    pub happening: Happening,
    /// The nodes whose agents get a turn, one after another.
    pub turns: Vec<NodeNumber>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.happening)?;
        if !self.turns.is_empty() {
            let turns: Vec<String> = self.turns.iter().map(|node| format!("n{node}")).collect();
            write!(f, "; turns: {}", turns.join(" "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settle => write!(f, "everything settles"),
            Self::Advance { millis } => write!(f, "{millis} ms pass"),
            Self::Wipe => write!(f, "the store loses everything"),
            _ if self.pod().is_some() => self.fmt_of_pod(f),
            _ => self.fmt_of_node(f),
        }
    }
}

impl Happening {
    /// The pod to which it happens, if it happens to one.
    pub fn pod(&self) -> Option<PodNumber> {
        match self {
            Self::Add { pod, .. }
            | Self::Del { pod, .. }
            | Self::Abort { pod }
            | Self::DelAgain { pod }
            | Self::AddAgain { pod }
            | Self::AddLate { pod }
            | Self::Vanish { pod }
            | Self::Change { pod, .. }
            | Self::Check { pod }
            | Self::Stranger { pod, .. }
            | Self::Forge { pod, .. }
            | Self::DeleteDevice { pod, .. } => Some(*pod),
            _ => None,
        }
    }

    fn fmt_of_pod(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |pod: &PodNumber| pod_name(*pod);
        match self {
            Self::Add {
                pod,
                node,
                declaration,
                is_expected,
            } => {
                let how = if *is_expected { "expected ADD" } else { "ADD" };
                write!(f, "{how} of {} on n{node}, {declaration}", name(pod))
            }
            Self::Del { pod, newest } => {
                let which = if *newest { "newest" } else { "oldest" };
                write!(f, "DEL of the {which} sandbox of {}", name(pod))
            }
            Self::Abort { pod } => write!(f, "DEL of {} before its ADD is answered", name(pod)),
            Self::DelAgain { pod } => write!(f, "another DEL of a gone sandbox of {}", name(pod)),
            Self::AddAgain { pod } => write!(f, "another ADD of the sandbox of {}", name(pod)),
            Self::AddLate { pod } => write!(f, "another ADD of a gone sandbox of {}", name(pod)),
            Self::Vanish { pod } => write!(f, "the namespace of {} vanishes", name(pod)),
            Self::Change { pod, declaration } => {
                write!(f, "{} now declares {declaration}", name(pod))
            }
            Self::Check { pod } => write!(f, "CHECK of {}", name(pod)),
            Self::Stranger { pod, interface } => {
                write!(
                    f,
                    "a device e{interface} that is not ours comes to {}",
                    name(pod)
                )
            }
            Self::Forge { pod, forgery } => write!(f, "the root of {}: {forgery:?}", name(pod)),
            Self::DeleteDevice { pod, interface } => {
                write!(f, "e{interface} in {} is deleted by hand", name(pod))
            }
            _ => Ok(()),
        }
    }

    fn fmt_of_node(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collect(node) => write!(f, "GC on n{node}"),
            Self::Restart(node) => write!(f, "the agent of n{node} is restarted"),
            Self::Rewire(node) => write!(f, "the agent of n{node} is restarted, wiring otherwise"),
            Self::Crash { node, after } => {
                write!(f, "the agent of n{node} crashes after {after} points")
            }
            Self::Reboot(node) => write!(f, "n{node} reboots"),
            Self::Offline(node) => write!(f, "n{node} is cut off from the store"),
            Self::CutOff(node) => write!(f, "n{node} is cut off from the store and the API"),
            Self::EndSession(node) => write!(f, "the store takes n{node} for lost"),
            Self::LoseUnderlay(node) => write!(f, "the parent interface of n{node} has no address"),
            Self::FlushFilter(node) => write!(f, "the filter of n{node} is removed"),
            Self::RefuseFilter(node) => write!(f, "n{node} cannot change its filter"),
            Self::Online(node) => write!(f, "n{node} reaches everything again"),
            Self::Slow(node) => write!(f, "the store is slow for n{node}"),
            Self::Unanswered(node) => write!(f, "the store does not answer n{node}'s changes"),
            Self::Stale { node, reads, age } => {
                write!(f, "{reads} reads of n{node} are {age} changes old")
            }
            Self::BreakWatch(node) => write!(f, "the watch of n{node} breaks"),
            Self::FillDisk(node) => write!(f, "the disk of n{node} is full"),
            Self::FreeDisk(node) => write!(f, "the disk of n{node} has room again"),
            Self::LoseKey(node) => write!(f, "n{node} loses its key"),
            Self::LoseState { node, all: true } => write!(f, "n{node} loses its state directory"),
            Self::LoseState { node, all: false } => write!(f, "n{node} loses one file of state"),
            Self::ApiOffline(node) => write!(f, "n{node} cannot reach the API"),
            _ => Ok(()),
        }
    }
}
