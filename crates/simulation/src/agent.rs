//! One incarnation of a node's agent: the engine on a simulated node. The only place that knows the
//! engine's interface.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use ratchet_engine::{Clock, Command, Declared, Engine, NewSandbox, NoEvents, Setup, StateDir};
use ratchet_model::{
    NodeName, PodKey, SandboxId, WiringKind,
    declaration::{Declaration, DeclarationError, declare},
};
use ratchet_protocol::{Attachment, Check, Collect, Detach, Failure, Reply, Settings};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{oneshot, watch},
};

use crate::{
    clock::VirtualClock,
    declaration::{Texts, namespace, pod_name},
    disk::{Files, MemoryDisk},
    network::{Network, NodeNumber, PARENT, PodNumber, SimulatedKernel},
    points::Points,
    store::Shared,
};

/// After this long without a sign of life a node counts as lost.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(120);

/// CNI's name of the network, and of the interface in it.
const NETWORK: &str = "ratchet";
const INTERFACE: &str = "eth0";

/// So many times the runtime's tasks get their turn before an agent counts as waiting.
const TURNS: usize = 6;

/// What an agent runs on; it outlives the agent.
#[derive(Clone)]
pub struct Machine {
    /// The node.
    pub node: NodeNumber,
    /// How often it was started.
    pub boots: u32,
    /// How its config says that links are wired.
    pub wiring: WiringKind,
    /// Its kernel's network.
    pub network: Network,
    /// The cluster's store.
    pub store: Shared,
    /// Its state directory.
    pub files: Files,
    /// The cluster's clock.
    pub clock: VirtualClock,
}

/// Where the answer to a call comes.
pub type Answered = oneshot::Receiver<Result<Reply, Failure>>;

/// An agent that runs.
pub struct Agent {
    engine: Engine,
    inbox: mpsc::Receiver<Command>,
    commands: mpsc::Sender<Command>,
    runtime: Runtime,
    points: Points,
    clock: VirtualClock,
}

/// What came of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// There was nothing to do.
    Idle,
    /// Something was done.
    Worked,
    /// The agent crashed.
    Crashed,
}

/// A sandbox, for calls about it.
pub struct Target<'t> {
    /// Its id.
    pub id: &'t SandboxId,
    /// The path of its namespace.
    pub netns: &'t Path,
}

impl Agent {
    /// Starts an agent that crashes after so many points, if at all; `None` when it did so already.
    pub fn start(machine: &Machine, crash_after: Option<u32>) -> Option<Self> {
        let points = Points::default();
        if let Some(after) = crash_after {
            points.crash_after(after);
        }
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing of the system");
        let (commands, inbox) = mpsc::channel();
        let setup = setup(machine, &points, &runtime, commands.clone());
        let engine = points.catch(|| {
            let mut engine = Engine::new(setup).expect("the simulated disk can always be listed");
            engine.start();
            engine
        })?;
        let mut agent = Self {
            engine,
            inbox,
            commands,
            runtime,
            points,
            clock: machine.clock.clone(),
        };
        agent.drain();
        (!agent.points.has_crashed()).then_some(agent)
    }

    /// Stops it in good order.
    pub fn stop(self) {
        drop(self.engine);
    }

    /// Its points.
    pub fn points(&self) -> &Points {
        &self.points
    }

    /// Deals with one command, and with what is due.
    pub fn turn(&mut self) -> Turn {
        self.drain();
        let command = self.inbox.try_recv().ok();
        if command.is_none() && self.engine.next_due() > self.clock.now() {
            return self.turned(Turn::Idle);
        }
        let engine = &mut self.engine;
        self.points.catch(|| {
            if let Some(command) = command {
                engine.handle(command);
            }
            engine.work();
        });
        self.drain();
        self.turned(Turn::Worked)
    }

    fn turned(&self, turn: Turn) -> Turn {
        if self.points.has_crashed() {
            Turn::Crashed
        } else {
            turn
        }
    }

    /// Runs the runtime's tasks until they wait.
    fn drain(&mut self) {
        self.runtime.block_on(async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Lets the time pass for what waits on the runtime.
    pub fn advance(&mut self, by: Duration) {
        self.runtime.block_on(tokio::time::advance(by));
    }

    /// CNI's ADD, or, with `expected`, what the plugin says before it. A pod whose declaration
    /// cannot be read is refused before the engine hears of it: no answer comes.
    pub fn attach(
        &self,
        target: &Target<'_>,
        pod: PodNumber,
        texts: &Texts,
        expected: bool,
    ) -> Answered {
        let Ok(Some(declaration)) = read(pod, texts, true) else {
            return oneshot::channel().1;
        };
        let sandbox = Box::new(NewSandbox {
            attachment: attachment(target.id),
            netns: PathBuf::from(target.netns),
            settings: Settings::default(),
            kubernetes: (namespace(pod).to_owned(), pod_name(pod)),
            use_labels: true,
            declaration,
        });
        if expected {
            self.send(|answer| Command::Expect(sandbox, answer))
        } else {
            self.send(|answer| Command::Attach(sandbox, answer))
        }
    }

    /// The plugin that had a sandbox expected has gone.
    pub fn unexpect(&self, id: &SandboxId) {
        drop(self.commands.send(Command::Unexpect(id.clone())));
    }

    /// CNI's DEL.
    pub fn detach(&self, id: &SandboxId, netns: Option<&Path>) -> Answered {
        let detach = Detach {
            attachment: attachment(id),
            netns: netns.map(Path::to_owned),
        };
        self.send(|answer| Command::Detach(detach, answer))
    }

    /// CNI's CHECK.
    pub fn check(&self, target: &Target<'_>) -> Answered {
        let check = Check {
            attachment: attachment(target.id),
            netns: target.netns.to_owned(),
            interfaces: Vec::new(),
        };
        self.send(|answer| Command::Check(check, answer))
    }

    /// CNI's GC: all sandboxes but these are to be undone.
    pub fn collect(&self, valid: &[&SandboxId]) -> Answered {
        let valid = valid
            .iter()
            .map(|id| (id.to_string(), INTERFACE.to_owned()));
        let collect = Collect {
            network: NETWORK.to_owned(),
            valid: valid.collect(),
        };
        self.send(|answer| Command::Collect(collect, answer))
    }

    /// The API says what is on a pod.
    pub fn hear(&self, pod: PodNumber, texts: &Texts) {
        let declared = Declared {
            kubernetes: (namespace(pod).to_owned(), pod_name(pod)),
            with_labels: read(pod, texts, true),
            annotations_only: read(pod, texts, false),
        };
        drop(self.commands.send(Command::Declared(Box::new(declared))));
    }

    fn send(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<Reply, Failure>>) -> Command,
    ) -> Answered {
        let (answer, answered) = oneshot::channel();
        drop(self.commands.send(command(answer)));
        answered
    }
}

fn setup(
    machine: &Machine,
    points: &Points,
    runtime: &Runtime,
    commands: mpsc::Sender<Command>,
) -> Setup {
    let kernel = SimulatedKernel::new(machine.network.clone(), machine.node, points.clone());
    let disk = MemoryDisk::new(machine.files.clone(), points.clone());
    let (store, client, of_store) = (machine.store.clone(), machine.node, points.clone());
    let seconds = u32::try_from(NODE_TIMEOUT.as_secs()).unwrap_or(u32::MAX);
    Setup {
        settings: Settings {
            node: Some(node_name(machine.node)),
            // Declared VNIs are also those that links get which declare none.
            declared_vni_range: "1-16777215".parse().ok(),
            parent_interface: Some(PARENT.to_owned()),
            node_timeout: Some(seconds),
            wiring: Some(machine.wiring),
            ..Settings::default()
        },
        managed: true,
        states: StateDir::new(Arc::new(disk)),
        boot_id: format!("boot-{}", machine.boots),
        kernel: Box::new(kernel),
        clock: Arc::new(machine.clock.clone()),
        open_store: Arc::new(move |_| {
            let opened = store.open(client, of_store.clone());
            Box::pin(async move { opened })
        }),
        events: Box::new(NoEvents),
        runtime: runtime.handle().clone(),
        commands,
        progress: watch::Sender::new(0),
    }
}

fn attachment(id: &SandboxId) -> Attachment {
    Attachment {
        network: NETWORK.to_owned(),
        container_id: id.clone(),
        interface: INTERFACE.to_owned(),
    }
}

/// What is written on a pod.
fn read(
    pod: PodNumber,
    texts: &Texts,
    use_labels: bool,
) -> Result<Option<Declaration>, DeclarationError> {
    let pod = PodKey::new(namespace(pod), &pod_name(pod));
    let pod = pod.expect("the simulation's pods have good names");
    let no_labels = BTreeMap::new();
    let labels = if use_labels {
        &texts.labels
    } else {
        &no_labels
    };
    declare(&pod, labels, &texts.annotations)
}

/// The name of a node.
pub fn node_name(node: NodeNumber) -> NodeName {
    format!("n{node}")
        .parse()
        .expect("a letter and digits make a name")
}
