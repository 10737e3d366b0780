//! The engine receives commands and dispatches them.
//!
//! What it owns is divided among [`ThisNode`] (settings, name, underlay), [`Session`] (the store
//! and what is known because of it), [`Sandboxes`] (on disk and in memory), [`Wires`] (links and
//! their devices) and [`Schedule`] (when to look at everything). Its own files tell the stories
//! that need several of them: a sandbox comes, a sandbox goes, a reconcile, a resync. Kernel work
//! blocks this thread and no other.

mod adopt;
mod attach;
mod carriers;
mod command;
mod declared;
mod detach;
mod facts;
mod given;
mod inspect;
mod names;
mod nodes;
mod reconcile;
mod report;
mod resync;
mod schedule;
#[cfg(test)]
mod testing;
mod vnis;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use ratchet_protocol::{Detach, Failure, Reply, Settings};
use tokio::sync::watch;

pub use command::{Answer, Command, Commands, Declared, NewSandbox, Setup, Vitals};

use crate::{
    clock::Clock,
    events::Outbox,
    kernel::Kernel,
    memory,
    node::{Agreement, ThisNode},
    retry::{Retry, Tried},
    sandboxes::Sandboxes,
    session::{Session, Surroundings},
    wires::Wires,
};
use resync::Resync;
use schedule::Schedule;

/// How long a detach of many links waits for those of the pods at their other ends: a hundredth of
/// what it takes itself.
const LINGER: Duration = Duration::from_millis(10);

/// The owner of a node's links. Lives on one thread.
pub struct Engine {
    boot_id: String,
    kernel: Box<dyn Kernel>,
    clock: Arc<dyn Clock>,
    events: Outbox,
    progress: watch::Sender<u64>,
    /// Up to which progress the store was told of links.
    reported: u64,
    surroundings: Surroundings,

    node: ThisNode,
    session: Session,
    sandboxes: Sandboxes,
    wires: Wires,
    schedule: Schedule,
    /// By pod as Kubernetes names it: what it declares and could not be written down.
    unwritten: BTreeMap<(String, String), Declared>,
    /// The resync that is under way.
    resync: Option<Resync>,
}

impl Engine {
    /// An engine that has read what is on disk and done nothing yet.
    ///
    /// # Errors
    /// When the state directory cannot be read.
    pub fn new(setup: Setup) -> std::io::Result<Self> {
        let surroundings = Surroundings {
            open_store: setup.open_store,
            runtime: setup.runtime,
            commands: setup.commands,
            clock: setup.clock.clone(),
        };
        let node = ThisNode::new(setup.settings, setup.managed);
        Ok(Self {
            boot_id: setup.boot_id,
            kernel: setup.kernel,
            events: Outbox::new(setup.events),
            progress: setup.progress,
            reported: 0,
            session: Session::new(surroundings.clone(), node.settings()),
            surroundings,
            node,
            wires: Wires::load(setup.states.clone()),
            sandboxes: Sandboxes::load(setup.states)?,
            schedule: Schedule::new(setup.clock.now()),
            clock: setup.clock,
            unwritten: BTreeMap::new(),
            resync: None,
        })
    }

    /// Works until it is told to stop.
    pub fn run(mut self, commands: &mpsc::Receiver<Command>) {
        self.start();
        // Commands that were taken from the channel to see whether they could be dealt with
        // together.
        let mut taken = VecDeque::new();
        while self.turn(commands, &mut taken) {}
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

    /// When there is something to do although no command comes.
    pub fn next_due(&self) -> Instant {
        if self.resync.is_some() {
            return self.clock.now();
        }
        let due = [
            self.wires.next_announcement(),
            self.next_warning(),
            self.events.due(),
            self.session.next_removal(),
            Some(self.session.next_check()),
        ];
        due.into_iter()
            .flatten()
            .fold(self.schedule.next(), Instant::min)
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
        if self.resync.is_none() && self.schedule.next() <= self.clock.now() {
            self.begin_resync();
        }
        self.continue_resync();
        let now = self.clock.now();
        self.wires.announce(&mut *self.kernel, &self.sandboxes, now);
        self.warn_of_what_takes_long();
        self.events.post_due(now);
        self.check_lost_nodes();
        if self.session.take_removal() {
            let removed = self.finish_removals();
            self.expect_retry(removed);
        }
        // Namespaces that were opened for any of this may die now.
        self.kernel.forget_all();
        if was_resyncing && self.resync.is_none() {
            memory::give_back();
        }
        self.report_to_store();
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
        // The client may have gone meanwhile; what was done is done.
        match command {
            Command::Prepare(settings, answer) => drop(answer.send(self.prepare(&settings))),
            Command::Expect(sandbox, answer) => drop(answer.send(self.expect(&sandbox))),
            Command::Unexpect(id) => self.sandboxes.forget_expected(&id),
            Command::Attach(sandbox, answer) => drop(answer.send(self.attach(&sandbox))),
            Command::Detach(detach, answer) => self.detach_all(vec![(detach, answer)]),
            Command::Check(check, answer) => drop(answer.send(self.check(&check))),
            Command::Collect(collect, answer) => drop(answer.send(self.collect(&collect))),
            Command::Status(settings, answer) => drop(answer.send(self.status(&settings))),
            Command::Links(answer) => drop(answer.send(Ok(self.report()))),
            Command::Vitals(answer) => drop(answer.send(self.vitals())),
            Command::Settings(answer) => drop(answer.send(Ok(self.node.settings()))),
            Command::ForgetNode(forget, answer) => drop(answer.send(self.forget_node(&forget))),
            Command::Changed => self.take_news(),
            Command::StoreBack => self.store_is_back(),
            Command::StoreLost(trouble) => {
                self.session.watch_broke(trouble);
                self.schedule.retry(self.clock.now());
                self.tell();
            }
            Command::Carriers(news) => self.take_carriers(news),
            Command::Declared(declared) => self.declared(&declared),
            // As if the engine itself had: the agent ends with an error, and another one starts.
            Command::Panicked(what) => panic!("{what} has panicked"),
            Command::Stop => {}
        }
    }

    /// Holds the settings of a network's config against the agent's. Settings that are taken over
    /// begin a resync, and another session when they name another store.
    fn agree_on(&mut self, network: &str, asked: &Settings) -> Result<(), Failure> {
        let sandboxes = &self.sandboxes;
        let is_used = |network: &str| sandboxes.is_attached_by(network);
        let asked = (network, asked);
        let agreed = self.node.agree_on(asked, is_used, &*self.kernel)?;
        if let Agreement::TakenOver { other_store } = agreed {
            if other_store {
                self.session = Session::new(self.surroundings.clone(), self.node.settings());
            }
            // What pods accept is a matter of the settings, too.
            self.sandboxes.set_all_unsaid();
            self.begin_resync();
        }
        Ok(())
    }

    /// What has to be tried again is tried by a resync soon.
    fn expect_retry(&mut self, tried: Tried) {
        if let Err(retry) = tried {
            log_retry(&retry);
            self.schedule.retry(self.clock.now());
        }
    }

    /// The store answers again.
    fn store_is_back(&mut self) {
        if self.session.is_back() {
            tracing::info!("the store is back");
            self.session.forget_held();
            self.begin_resync();
        }
    }

    /// Tells those who watch the links that something may have changed.
    fn tell(&self) {
        self.progress.send_modify(|count| *count += 1);
    }
}

/// Logs why something is tried again. What went wrong with a single link is in the log already.
fn log_retry(retry: &Retry) {
    match retry {
        Retry::Kernel(_) => {}
        Retry::Store(_) | Retry::Node(_) | Retry::StateDir(_) => {
            tracing::warn!(reason = %retry, "trying again");
        }
        Retry::Vnis | Retry::NotSwept(_) | Retry::Unsettled(_) => {
            tracing::info!(reason = %retry, "trying again");
        }
    }
}

#[cfg(test)]
mod tests;
