//! A cluster: nodes with agents, a runtime that starts and ends sandboxes, and the faults between
//! them. It knows what is true, whatever the agents believe.

mod apply;
mod runtime;
mod settle;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    time::Duration,
};

use ratchet_model::{SandboxId, WiringKind};

use crate::{
    agent::{Agent, Answered, Machine, Turn, node_name},
    clock::VirtualClock,
    declaration::Declaration,
    disk::Files,
    history::Wrong,
    network::{Inner, NetnsId, Network, NodeNumber, PodNumber},
    oracle::{frames::SharedFrames, indexes::Indexes},
    store::Shared,
};

/// What the runtime knows of a sandbox.
#[derive(Debug)]
pub enum State {
    /// Its ADD has not been answered.
    Adding,
    /// Its ADD has succeeded.
    Attached,
    /// Its ADD or its DEL has failed: it must be deleted.
    Failed,
    /// Its DEL has not been answered.
    Leaving(Answered),
    /// Its DEL has succeeded.
    Gone,
}

/// A sandbox that the runtime has made.
#[derive(Debug)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// Its pod.
    pub pod: PodNumber,
    /// Where it is.
    pub node: NodeNumber,
    /// Its namespace.
    pub netns: NetnsId,
    /// The path of that.
    pub path: PathBuf,
    /// How far it is.
    pub state: State,
    /// Where the answer to its ADD comes, as long as there is none.
    pub added: Option<Answered>,
    /// What its pod declares.
    pub declaration: Declaration,
    /// Orders the sandboxes of a pod by when their ADDs were answered: it is then that the cluster
    /// knows which of two is the newer one. The last possible one while there is no answer.
    pub order: u64,
    /// Whether that has changed since its ADD, which only the API can have told.
    pub has_changed: bool,
    /// Whether nobody can say that its pod lives in it. Its ADD was under way when another one of
    /// its pod failed: what the failed one had done by then may count as later, and a sandbox that
    /// was superseded stays so. Or it was unknown, and there was another ADD of it. Or its
    /// declaration has changed, and its agent may not have heard of it while there was a newer one.
    pub is_unsure: bool,
    /// Whether nobody can know of it any more: its state was lost when it had no device of ours.
    pub is_unknown: bool,
}

impl Sandbox {
    /// Whether its pod lives in it: its links must be there.
    pub fn lives(&self, network: &Inner) -> bool {
        matches!(self.state, State::Attached) && network.namespace(self.netns).is_some()
    }
}

/// A node.
pub struct Node {
    machine: Machine,
    agent: Option<Agent>,
    /// Whether it hears of changes on pods.
    hears: bool,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Crashes of agents.
    pub crashes: u64,
    /// Turns of agents.
    pub turns: u64,
    /// Links that carried frames when everything had settled.
    pub links: u64,
}

/// All of it.
pub struct Cluster {
    /// The clock.
    pub clock: VirtualClock,
    /// The network.
    pub network: Network,
    /// The store.
    pub store: Shared,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// All sandboxes that there were, in the order in which they were made.
    pub sandboxes: Vec<Sandbox>,
    /// What has happened.
    pub figures: Figures,
    /// What frames may do, and what they did.
    pub frames: SharedFrames,
    /// What indexes were when everything had settled the last time.
    pub indexes: Indexes,
    /// The first ADD that failed and must not have.
    pub wrong_add: Option<Wrong>,
    /// How many ADDs were answered.
    answered: u64,
    /// Whether agents hear of all pods of their node when they start, as in Kubernetes.
    kubernetes: bool,
}

impl Cluster {
    /// A cluster without pods, whose agents run.
    pub fn new(nodes: usize, kubernetes: bool) -> Self {
        let clock = VirtualClock::new();
        let network = Network::default();
        let store = Shared::new(nodes, clock.clone());
        let of_nodes = store.clone();
        let frames = SharedFrames::new(Box::new(move |node, link, vni| {
            of_nodes.has_lost(&node_name(node), vni, link)
        }));
        let followed = frames.clone();
        network.lock().on_change = Some(Box::new(move |network, step| {
            followed.lock().follow(network, step);
        }));
        let node = |_| Node {
            machine: Machine {
                node: network.lock().add_node(),
                boots: 0,
                wiring: WiringKind::default(),
                network: network.clone(),
                store: store.clone(),
                files: Files::default(),
                clock: clock.clone(),
            },
            agent: None,
            hears: true,
        };
        let mut cluster = Self {
            nodes: (0..nodes).map(node).collect(),
            clock: clock.clone(),
            network: network.clone(),
            store: store.clone(),
            sandboxes: Vec::new(),
            figures: Figures::default(),
            frames,
            indexes: Indexes::default(),
            wrong_add: None,
            answered: 0,
            kubernetes,
        };
        (0..nodes).for_each(|node| cluster.start(node, None));
        cluster
    }

    /// The state directory of a node.
    pub fn files(&self, node: NodeNumber) -> &Files {
        &self.nodes[node].machine.files
    }

    /// Starts a node's agent, if none runs.
    fn start(&mut self, node: NodeNumber, crash_after: Option<u32>) {
        let of = &mut self.nodes[node];
        if of.agent.is_some() {
            return;
        }
        let contents = self.store.contents();
        self.indexes
            .forget_undeclared(node, &self.network.lock(), &contents);
        of.agent = Agent::start(&of.machine, crash_after);
        if of.agent.is_none() {
            self.figures.crashes += 1;
        } else {
            self.tell_of_pods(node);
        }
    }

    /// The agent ends, in good order or not; whoever waits for an answer gets none.
    fn end_agent(&mut self, node: NodeNumber, in_good_order: bool) {
        if let Some(agent) = self.nodes[node].agent.take()
            && in_good_order
        {
            agent.stop();
        }
        self.store.renew_leases();
        self.take_answers();
    }

    /// A node's agent gets a turn; returns whether it had something to do.
    fn turn(&mut self, node: NodeNumber) -> bool {
        let Some(agent) = &mut self.nodes[node].agent else {
            return false;
        };
        self.figures.turns += 1;
        let turn = agent.turn();
        if turn == Turn::Crashed {
            self.crashed(node);
        } else {
            self.take_answers();
        }
        turn != Turn::Idle
    }

    /// A node's agent has crashed.
    fn crashed(&mut self, node: NodeNumber) {
        self.figures.crashes += 1;
        self.end_agent(node, false);
    }

    /// Lets time pass.
    fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.store.renew_leases();
        for node in 0..self.nodes.len() {
            let Some(agent) = &mut self.nodes[node].agent else {
                continue;
            };
            agent.advance(by);
            // Its tasks pass points, too.
            if agent.points().has_crashed() {
                self.crashed(node);
            }
        }
    }

    /// The newest sandbox of a pod of those that have not gone.
    pub fn newest(&self, pod: PodNumber) -> Option<&Sandbox> {
        self.newest_at(pod).map(|at| &self.sandboxes[at])
    }

    fn newest_at(&self, pod: PodNumber) -> Option<usize> {
        let sandboxes = self.sandboxes.iter().enumerate();
        let of_pod = sandboxes
            .filter(|(_, sandbox)| sandbox.pod == pod && !matches!(sandbox.state, State::Gone));
        let newest = of_pod.max_by_key(|(at, sandbox)| (sandbox.order, *at));
        newest.map(|(at, _)| at)
    }

    /// Whether a sandbox's namespace is there.
    pub fn has_netns(&self, sandbox: &Sandbox) -> bool {
        self.network.lock().namespace(sandbox.netns).is_some()
    }

    /// A number that two runs of one history have in common.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let frames = self.frames.lock().followed;
        let figures = (self.figures.turns, self.figures.crashes, self.figures.links);
        (frames, figures, self.clock.passed()).hash(&mut hasher);
        hasher.finish()
    }
}
