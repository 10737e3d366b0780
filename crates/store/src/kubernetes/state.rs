//! What the store's tasks and its callers share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ratchet_api::{LinkEndStatus, NodeUnderlaySpec};
use ratchet_model::{NodeName, PodKey, SandboxId};
use tokio::{
    sync::{Notify, watch},
    time::sleep_until,
};

use super::{
    backlog::{Backlog, Item, Written},
    known::Side,
    links::{EndKey, Links, Reports},
};
use crate::{Change, EndReport, Interest, StoreError, Watch};

/// After a change, the next ones are gathered for this time. Links come one at a time, and with
/// each report the agent looks at all links of a pod and writes down what the pod declares.
const REST: Duration = Duration::from_millis(100);

/// For how long after a Link others are likely to come.
const A_MOMENT: Duration = Duration::from_secs(2);

/// How many statuses are taken to be written at once.
const PORTION: usize = 64;

/// Whether the API's Links are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// Not all have been listed yet; the reason why, if that failed.
    Starting(Option<String>),
    /// They are known. What is known may be stale if the API is silent.
    Known,
}

/// Shared by the store, its watches and its tasks.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Whether reads can be answered.
    pub reach: watch::Sender<Reach>,
    /// Something is to be written.
    pub to_write: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub links: Links,
    reports: Reports,
    /// Statuses that are to be written.
    outgoing: BTreeMap<EndKey, LinkEndStatus>,
    /// Statuses that were written last, until the watch shows them.
    sent: BTreeMap<EndKey, LinkEndStatus>,
    /// This node's underlay, and whether it is still to be written.
    underlay: Option<(NodeUnderlaySpec, bool)>,
    /// When a Link came or changed last.
    links_came: Option<Instant>,
    watches: Vec<Weak<Pending>>,
    /// What is to be written, and for how long.
    pub backlog: Backlog,
}

impl Shared {
    /// Of a node, before anything is known.
    pub fn of(node: NodeName) -> Self {
        Self {
            state: Mutex::new(State {
                links: Links::of(node),
                reports: Reports::new(),
                outgoing: BTreeMap::new(),
                sent: BTreeMap::new(),
                underlay: None,
                links_came: None,
                watches: Vec::new(),
                backlog: Backlog::default(),
            }),
            reach: watch::Sender::new(Reach::Starting(None)),
            to_write: Notify::new(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of Links. Those who watch hear of the pods that it returns.
    pub fn change(&self, change: impl FnOnce(&mut Links) -> BTreeSet<PodKey>) {
        let mut state = self.state();
        let pods = change(&mut state.links);
        if !pods.is_empty() {
            state.links_came = Some(Instant::now());
        }
        state.tell(&pods);
        self.settle(&mut state);
    }

    /// Forgets a sandbox of this node. Those who watch hear of it if its pod is elsewhere by now.
    pub fn remove_pod(&self, pod: &PodKey, sandbox: &SandboxId) {
        self.change(|links| match links.remove_pod(pod, sandbox) {
            true => links.of_moved(pod),
            false => BTreeSet::new(),
        });
    }

    /// Takes what the engine says of this node's ends.
    pub fn report(&self, ends: Vec<EndReport>) {
        let mut state = self.state();
        let reports = ends
            .into_iter()
            .map(|end| ((end.link, end.pod.clone()), end));
        let before = std::mem::replace(&mut state.reports, reports.collect());
        let State { links, reports, .. } = &mut *state;
        let gone = before.keys().filter(|key| !reports.contains_key(key));
        let new = reports
            .iter()
            .filter(|(key, end)| before.get(key) != Some(end));
        for (link, _) in gone.chain(new.map(|(key, _)| key)) {
            links.touch(*link);
        }
        self.settle(&mut state);
    }

    /// Has the node's underlay written.
    pub fn set_underlay(&self, underlay: NodeUnderlaySpec) {
        let mut state = self.state();
        if state
            .underlay
            .as_ref()
            .is_none_or(|(known, _)| *known != underlay)
        {
            state.underlay = Some((underlay, true));
            state.backlog.add(Item::Underlay, Instant::now());
            self.to_write.notify_one();
        }
    }

    /// Whether Links came a moment ago: then others are likely to come.
    pub fn links_come(&self) -> bool {
        let came = self.state().links_came;
        came.is_some_and(|came| came.elapsed() < A_MOMENT)
    }

    /// Whether statuses are to be written.
    pub fn has_outgoing(&self) -> bool {
        !self.state().outgoing.is_empty()
    }

    /// Takes what is to be written now: so many statuses at most, since those that wait may change
    /// meanwhile.
    pub fn take_outgoing(&self) -> (Option<NodeUnderlaySpec>, BTreeMap<EndKey, LinkEndStatus>) {
        let mut state = self.state();
        let rest = state.outgoing.keys().nth(PORTION).cloned();
        let rest = rest.map(|key| state.outgoing.split_off(&key));
        let outgoing = std::mem::replace(&mut state.outgoing, rest.unwrap_or_default());
        for (key, status) in &outgoing {
            state.sent.insert(key.clone(), status.clone());
            state.backlog.begin(Item::Status(key.clone()));
        }
        let underlay = state.underlay.as_mut();
        let underlay = underlay
            .and_then(|(underlay, is_new)| std::mem::take(is_new).then(|| underlay.clone()));
        (underlay, outgoing)
    }

    /// Takes the result of writing the underlay.
    pub fn end_underlay(&self, written: Written) {
        let mut state = self.state();
        state.backlog.end(&Item::Underlay, written);
        let is_changed = state.underlay.as_ref().is_some_and(|(_, is_new)| *is_new);
        if written == Written::Again {
            if let Some((_, is_new)) = &mut state.underlay {
                *is_new = true;
            }
            self.to_write.notify_one();
        } else if is_changed {
            state.backlog.add(Item::Underlay, Instant::now());
        }
    }

    /// Takes the result of writing a status. One that could not be written is written again if it
    /// still counts.
    pub fn end_status(&self, key: EndKey, written: Written) {
        let mut state = self.state();
        let item = Item::Status(key.clone());
        state.backlog.end(&item, written);
        if written == Written::Again {
            state.sent.remove(&key);
            self.settle_end(&mut state, key);
        } else if state.outgoing.contains_key(&key) {
            state.backlog.add(item, Instant::now());
        }
    }

    /// Finds out what is to be written.
    fn settle(&self, state: &mut State) {
        for link in state.links.take_touched() {
            for side in Side::BOTH {
                self.settle_end(state, (link.clone(), side));
            }
        }
    }

    fn settle_end(&self, state: &mut State, key: EndKey) {
        let item = Item::Status(key.clone());
        match state.links.unsaid(&key, &state.reports) {
            None => {
                state.backlog.drop(&item);
                state.outgoing.remove(&key);
                state.sent.remove(&key);
            }
            Some(status) if state.sent.get(&key) == Some(&status) => {
                state.backlog.drop(&item);
                state.outgoing.remove(&key);
            }
            Some(status) => {
                state.backlog.add(item, Instant::now());
                state.outgoing.insert(key, status);
                self.to_write.notify_one();
            }
        }
    }
}

impl State {
    fn tell(&mut self, pods: &BTreeSet<PodKey>) {
        self.watches.retain(|watch| watch.strong_count() > 0);
        if pods.is_empty() {
            return;
        }
        for watch in self.watches.iter().filter_map(Weak::upgrade) {
            watch.add(pods);
        }
    }

    /// A new watch.
    pub fn watch(&mut self) -> LinkWatch {
        let pending = Arc::new(Pending {
            change: Mutex::new(Some(Change::All)),
            changed: Notify::new(),
        });
        self.watches.push(Arc::downgrade(&pending));
        LinkWatch {
            pending,
            rests_until: Instant::now(),
        }
    }
}

/// What a watch has not reported yet.
#[derive(Debug)]
struct Pending {
    change: Mutex<Option<Change>>,
    changed: Notify,
}

impl Pending {
    fn change(&self) -> MutexGuard<'_, Option<Change>> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, pods: &BTreeSet<PodKey>) {
        let mut change = self.change();
        let more = Change::Pods(pods.clone());
        *change = Some(match change.take() {
            Some(before) => before.and(more),
            None => more,
        });
        self.changed.notify_one();
    }
}

/// A watch on the Links of the node. It reports all changes: there are no others.
pub(super) struct LinkWatch {
    pending: Arc<Pending>,
    rests_until: Instant,
}

#[async_trait]
impl Watch for LinkWatch {
    async fn interest(&mut self, _: Interest) -> Result<(), StoreError> {
        Ok(())
    }

    async fn next(&mut self) -> Result<Change, StoreError> {
        if Instant::now() < self.rests_until {
            sleep_until(self.rests_until.into()).await;
        }
        loop {
            if let Some(change) = self.pending.change().take() {
                self.rests_until = Instant::now() + REST;
                return Ok(change);
            }
            self.pending.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests;
