//! The engine: the one owner of the node's state, on a thread of its own.
//!
//! Commands come in through a channel and are dealt with one after another; each ends in
//! [`Engine::reconcile`]. Kernel work blocks this thread and nobody else.

mod adopt;
mod announce;
mod apply;
mod attach;
mod command;
mod detach;
mod inspect;
mod leftovers;
mod nodes;
mod offline;
mod pods;
mod reconcile;
mod report;
mod restore;
mod resync;
mod sandboxes;
mod sync;
#[cfg(test)]
mod testing;
mod tracked;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use ratchet_model::{LinkId, SandboxId, Vni};
use ratchet_protocol::{Detach, Failure, FailureKind, Reply, Settings};
use ratchet_store::{Interest, Store};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use crate::{
    clock::Clock, effective::Effective, events::Events, facts::Known, kernel::Kernel, memory,
    store::OpenStore, watcher::News,
};
use announce::Announcements;
pub use command::{Answer, Command, Commands, Declared, NewSandbox, Setup};
use leftovers::Leftovers;
use nodes::Nodes;
use offline::Offline;
use restore::RestoredLinks;
use resync::{PERIOD, Resync};
use sandboxes::Sandboxes;
use tracked::TrackedLinks;
pub(crate) use tracked::{LinkFailure, Tracked};

/// How long after a failure it is tried again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), PERIOD);

/// How long a detach of many links waits for those of the pods at their other ends: a hundredth of
/// what it takes itself.
const LINGER: Duration = Duration::from_millis(10);

/// The owner of a node's links. Lives on one thread; kernel work blocks that thread and no other.
pub struct Engine {
    asked: Settings,
    managed: bool,
    boot_id: String,
    kernel: Box<dyn Kernel>,
    clock: Arc<dyn Clock>,
    open_store: OpenStore,
    events: Box<dyn Events>,
    runtime: Handle,
    commands: Commands,
    progress: watch::Sender<u64>,

    effective: Result<Effective, Failure>,
    store: Option<Arc<dyn Store>>,
    store_trouble: Option<String>,
    offline: Option<Offline>,
    watcher: Option<JoinHandle<()>>,
    news: Arc<News>,
    interest: watch::Sender<Interest>,

    sandboxes: Sandboxes,
    leftovers: Leftovers,
    known: Known,
    /// Whether `known` holds what the store says about all of this node's pods; without that
    /// nothing is removed.
    informed: bool,
    links: TrackedLinks,
    /// Links that insist on a VNI which is another link's.
    taken_vnis: BTreeMap<LinkId, (Vni, LinkId)>,
    /// Leaving sandboxes in which nothing of ours is left.
    swept: BTreeSet<SandboxId>,
    announcements: Announcements,
    nodes: Nodes,
    restored: RestoredLinks,
    /// By pod as Kubernetes names it: what it declares and could not be written down.
    unwritten: BTreeMap<(String, String), Declared>,
    /// The look at everything that is under way.
    resync: Option<Resync>,
    retry: Duration,
    next_look: Instant,
}

impl Engine {
    /// An engine that has read what is on disk and done nothing yet.
    pub fn new(setup: Setup) -> std::io::Result<Self> {
        let now = setup.clock.now();
        let leftovers = Leftovers::load(setup.states.clone());
        let sandboxes = Sandboxes::load(setup.states)?;
        Ok(Self {
            asked: setup.settings,
            managed: setup.managed,
            boot_id: setup.boot_id,
            kernel: setup.kernel,
            clock: setup.clock,
            open_store: setup.open_store,
            events: setup.events,
            runtime: setup.runtime,
            commands: setup.commands,
            progress: setup.progress,
            effective: Err(Failure::new(FailureKind::TryLater, "the agent is starting")),
            store: None,
            store_trouble: None,
            offline: None,
            watcher: None,
            news: Arc::default(),
            interest: watch::Sender::new(Interest::default()),
            sandboxes,
            leftovers,
            known: Known::default(),
            informed: false,
            links: TrackedLinks::default(),
            taken_vnis: BTreeMap::new(),
            swept: BTreeSet::new(),
            announcements: Announcements::default(),
            nodes: Nodes::new(now),
            restored: RestoredLinks::default(),
            unwritten: BTreeMap::new(),
            resync: None,
            retry: RETRY.0,
            next_look: now,
        })
    }

    /// Works until it is told to stop.
    pub fn run(mut self, commands: &mpsc::Receiver<Command>) {
        self.start();
        // Commands that were taken from the channel to see whether they could be dealt with
        // together.
        let mut taken = VecDeque::new();
        while self.turn(commands, &mut taken) {}
        self.stop();
    }

    /// The first resync, in one go. To be called before anything else.
    pub fn start(&mut self) {
        self.begin_resync();
        while self.resync.is_some() {
            self.continue_resync();
            self.kernel.forget_all();
        }
        memory::give_back();
    }

    /// Ends what runs on the runtime on behalf of this engine.
    pub fn stop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
    }

    /// When there is something to do although no command comes.
    pub fn next_due(&self) -> Instant {
        if self.resync.is_some() {
            return self.clock.now();
        }
        let due = [
            self.announcements.due(),
            self.next_warning(),
            Some(self.nodes.next_check()),
        ];
        due.into_iter().flatten().fold(self.next_look, Instant::min)
    }

    /// One command, if there is one, and what is due. Returns whether to go on.
    fn turn(&mut self, commands: &mpsc::Receiver<Command>, taken: &mut VecDeque<Command>) -> bool {
        let wait = self.next_due().saturating_duration_since(self.clock.now());
        let command = taken
            .pop_front()
            .map_or_else(|| commands.recv_timeout(wait), Ok);
        match command {
            Ok(Command::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            Ok(Command::Detach(detach, answer)) => {
                let all = self.with_those_that_wait((detach, answer), commands, taken);
                self.detach_all(all);
            }
            Ok(command) => self.handle(command),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        self.work();
        true
    }

    /// Does what is due: of a resync no more than a portion, so that no command waits for all of
    /// it.
    pub fn work(&mut self) {
        let was_resyncing = self.resync.is_some();
        if self.resync.is_none() && self.next_look <= self.clock.now() {
            self.begin_resync();
        }
        self.continue_resync();
        self.announce();
        self.warn_of_what_takes_long();
        self.check_lost_nodes();
        // Namespaces that were opened for any of this may die now.
        self.kernel.forget_all();
        if was_resyncing && self.resync.is_none() {
            memory::give_back();
        }
    }

    /// A detach, and those that come right behind it.
    fn with_those_that_wait(
        &self,
        first: (Detach, Answer<Reply>),
        commands: &mpsc::Receiver<Command>,
        taken: &mut VecDeque<Command>,
    ) -> Vec<(Detach, Answer<Reply>)> {
        if taken.is_empty() && self.is_worth_waiting_for_more(&first.0) {
            taken.extend(commands.recv_timeout(LINGER));
        }
        taken.extend(commands.try_iter());
        let mut all = vec![first];
        while let Some(command) = taken.pop_front() {
            match command {
                Command::Detach(detach, answer) => all.push((detach, answer)),
                other => {
                    taken.push_front(other);
                    break;
                }
            }
        }
        all
    }

    /// Deals with one command.
    pub fn handle(&mut self, command: Command) {
        // Whoever asked may have gone meanwhile; what was done is done.
        match command {
            Command::Prepare(settings, answer) => drop(answer.send(self.prepare(&settings))),
            Command::Expect(attach, answer) => drop(answer.send(self.expect(&attach))),
            Command::Unexpect(id) => self.sandboxes.forget_expected(&id),
            Command::Attach(attach, answer) => drop(answer.send(self.attach(&attach))),
            Command::Detach(detach, answer) => self.detach_all(vec![(detach, answer)]),
            Command::Check(check, answer) => drop(answer.send(self.check(&check))),
            Command::Collect(collect, answer) => drop(answer.send(self.collect(&collect))),
            Command::Status(settings, answer) => drop(answer.send(self.status(&settings))),
            Command::Links(answer) => drop(answer.send(Ok(self.report()))),
            Command::Settings(answer) => {
                let settings = self
                    .effective
                    .as_ref()
                    .map_or(&self.asked, |effective| &effective.settings);
                drop(answer.send(Ok(settings.clone())));
            }
            Command::ForgetNode(forget, answer) => drop(answer.send(self.forget_node(&forget))),
            Command::Changed => {
                if let Some(change) = self.news.take() {
                    self.changed(change);
                }
            }
            Command::StoreBack => self.store_is_back(),
            Command::StoreLost(trouble) => {
                self.store_trouble = Some(trouble);
                self.look_again_soon();
                self.tell();
            }
            Command::Declared(declared) => self.declared(&declared),
            Command::Stop => {}
        }
    }

    fn look_again_soon(&mut self) {
        self.next_look = self.next_look.min(self.clock.now() + self.retry);
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    /// Looks at the node anew; an underlay that has changed changes links.
    fn refresh_effective(&mut self) {
        let now = Effective::resolve(&self.asked, &*self.kernel);
        if now != self.effective {
            match &now {
                Ok(effective) => tracing::info!(settings = ?effective.settings, "this node"),
                Err(failure) => tracing::error!(%failure, "cannot work on this node yet"),
            }
        }
        self.effective = now;
    }

    fn effective(&self) -> Result<&Effective, Failure> {
        self.effective.as_ref().map_err(Clone::clone)
    }

    /// Holds a config's settings against the agent's. A managed agent refuses what differs; one
    /// that was started on demand takes it over.
    fn agree_on(&mut self, asked: &Settings) -> Result<(), Failure> {
        if self.effective.is_err() {
            self.refresh_effective();
        }
        let have = self
            .effective
            .as_ref()
            .map_or(&self.asked, |effective| &effective.settings);
        let differences = have.differences(asked);
        if differences.is_empty() {
            return self.effective().map(|_| ());
        }
        let list: Vec<String> = differences.iter().map(ToString::to_string).collect();
        let differences = list.join(", ");
        if self.managed {
            return Err(Failure::new(
                FailureKind::Invalid,
                format!(
                    "this node's agent (pid {}, started with its own settings) and the CNI config \
                     disagree: {differences}; make them agree and restart the agent",
                    std::process::id(),
                ),
            ));
        }
        let next = Effective::resolve(&self.asked.overridden_by(asked), &*self.kernel)?;
        tracing::info!(differences, "the config has changed; taking it over");
        if !self
            .effective
            .as_ref()
            .is_ok_and(|effective| effective.settings.same_store(&next.settings))
        {
            self.close_store();
        }
        self.asked = self.asked.overridden_by(asked);
        self.effective = Ok(next);
        self.begin_resync();
        Ok(())
    }

    /// Lets whoever watches know that something may have changed.
    fn tell(&self) {
        self.progress.send_modify(|count| *count += 1);
    }
}
