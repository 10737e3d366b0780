//! Watches for changes: one stream with one watcher for each key or index of interest.
//!
//! No revision is used across connections: an etcd that was restored or wiped counts again from the
//! start, and one that was compacted has lost old revisions. When the stream breaks, all watchers
//! are created again, and then everything is reported as perhaps changed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ratchet_model::{DeclaredLink, LinkId, PodKey, Vni, record::Facts};
use tokio::{
    sync,
    time::{self, Instant},
};

use super::{
    Etcd,
    keys::after,
    proto::{WatchAction, WatchCancel, WatchCreate, WatchNews, WatchRequest},
    rpc::WatchStream,
};
use crate::{Change, Interest, StoreError, Watch};

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);

/// The links of own pods that had no VNI when they were last read, and the revision of that read. A
/// link's VNI does not change once it has one, so only these are watched.
#[derive(Debug, Default, Clone)]
pub(crate) struct Unnumbered {
    pods: BTreeMap<PodKey, BTreeSet<LinkId>>,
    revision: i64,
}

impl Unnumbered {
    /// Takes what was read for these pods. Returns whether it differs from what was known.
    pub(super) fn update(&mut self, own: &BTreeSet<PodKey>, facts: &Facts, revision: i64) -> bool {
        let mut found: BTreeMap<PodKey, BTreeSet<LinkId>> = own
            .iter()
            .map(|pod| (pod.clone(), BTreeSet::new()))
            .collect();
        for link in facts.records.values().flat_map(|record| &record.links) {
            for pod in [&link.local.pod, &link.remote.pod] {
                if let Some(links) = found.get_mut(pod)
                    && !facts.vnis.contains_key(&DeclaredLink::id(link))
                {
                    links.insert(link.id());
                }
            }
        }
        self.revision = revision;
        let mut changed = false;
        for (pod, links) in found {
            changed |= self.pods.get(&pod).unwrap_or(&BTreeSet::new()) != &links;
            match links.is_empty() {
                true => self.pods.remove(&pod),
                false => self.pods.insert(pod, links),
            };
        }
        changed
    }
}

/// What a watcher watches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// Nothing. A stream begins with it, because etcd sends nothing before the first request.
    Stream,
    /// A pod's record.
    Record(PodKey),
    /// The pods that declare a link with a pod.
    Declarers(PodKey),
    /// A link's VNI.
    Vni(LinkId),
    /// Whose a VNI is.
    Number(Vni),
}

/// A running watch.
pub(super) struct EtcdWatch {
    etcd: Arc<Etcd>,
    unnumbered: sync::watch::Receiver<Unnumbered>,
    /// Changes when etcd has ended our lease. Then others may have removed our pods.
    lapsed: sync::watch::Receiver<u64>,
    interest: Interest,
    stream: Option<Watchers>,
    /// The next attempt to connect is not before this.
    retry: Instant,
    pending: BTreeSet<PodKey>,
    all: bool,
}

/// The watchers of one stream.
struct Watchers {
    stream: WatchStream,
    ids: BTreeMap<Subject, i64>,
    subjects: BTreeMap<i64, Subject>,
    last_id: i64,
    outbox: VecDeque<WatchRequest>,
    /// Watchers that were requested and are not confirmed yet.
    unconfirmed: BTreeSet<i64>,
    /// Watchers that were confirmed since. Their subjects are reported when all are confirmed: a
    /// pod of interest has two watchers.
    confirmed: BTreeSet<Subject>,
    /// Whether to report everything once all are confirmed.
    report_all: bool,
}

impl EtcdWatch {
    /// Starts to watch.
    pub(super) async fn start(
        etcd: Arc<Etcd>,
        unnumbered: sync::watch::Receiver<Unnumbered>,
        lapsed: sync::watch::Receiver<u64>,
    ) -> Result<Self, StoreError> {
        let (interest, pending, retry) = (Interest::default(), BTreeSet::new(), Instant::now());
        let mut watch = Self {
            etcd,
            unnumbered,
            lapsed,
            interest,
            stream: None,
            retry,
            pending,
            all: false,
        };
        watch.connect().await?;
        Ok(watch)
    }

    async fn connect(&mut self) -> Result<(), StoreError> {
        time::sleep_until(self.retry).await;
        self.retry = Instant::now() + RETRY;
        let (id, subject) = (1, Subject::Stream);
        let stream = self
            .etcd
            .rpc
            .watch(create(&self.etcd, &subject, id, 0))
            .await?;
        self.stream = Some(Watchers {
            stream,
            ids: [(subject.clone(), id)].into(),
            subjects: [(id, subject)].into(),
            last_id: id,
            outbox: VecDeque::new(),
            unconfirmed: [id].into(),
            confirmed: BTreeSet::new(),
            report_all: true,
        });
        self.choose();
        Ok(())
    }

    /// Adapts the watchers to the interest. Sends nothing yet.
    fn choose(&mut self) {
        let Some(watchers) = &mut self.stream else {
            return;
        };
        let unnumbered = self.unnumbered.borrow_and_update();
        let links = self
            .interest
            .own
            .iter()
            .filter_map(|pod| unnumbered.pods.get(pod))
            .flatten();
        let records = self.interest.own.iter().chain(&self.interest.peers);
        let wanted: BTreeSet<Subject> = [Subject::Stream]
            .into_iter()
            .chain(records.cloned().map(Subject::Record))
            .chain(self.interest.own.iter().cloned().map(Subject::Declarers))
            .chain(links.copied().map(Subject::Vni))
            .chain(self.interest.awaited.keys().copied().map(Subject::Number))
            .collect();
        for (subject, id) in watchers
            .ids
            .extract_if(.., |subject, _| !wanted.contains(subject))
        {
            tracing::trace!(?subject, "watched no longer");
            watchers.subjects.remove(&id);
            watchers.unconfirmed.remove(&id);
            watchers.confirmed.remove(&subject);
            watchers
                .outbox
                .push_back(request(WatchAction::Cancel(WatchCancel { watch_id: id })));
        }
        for subject in wanted {
            // A VNI may have been written since the read. The others are read after their watcher
            // is confirmed.
            let from = if matches!(subject, Subject::Vni(_)) {
                unnumbered.revision + 1
            } else {
                0
            };
            if !watchers.ids.contains_key(&subject) {
                watchers.add(&self.etcd, subject, from);
            }
        }
    }

    /// Reports a subject as changed.
    fn changed(&mut self, subject: &Subject) {
        match subject {
            Subject::Stream => {}
            Subject::Record(pod) | Subject::Declarers(pod) => {
                self.pending.insert(pod.clone());
            }
            Subject::Vni(link) => {
                let unnumbered = self.unnumbered.borrow();
                let own = self.interest.own.iter().filter(|pod| {
                    unnumbered
                        .pods
                        .get(*pod)
                        .is_some_and(|links| links.contains(link))
                });
                self.pending.extend(own.cloned());
            }
            Subject::Number(vni) => {
                let waiting = self.interest.awaited.get(vni).into_iter().flatten();
                self.pending.extend(waiting.cloned());
            }
        }
    }

    fn hear(&mut self, news: &WatchNews) -> Result<(), StoreError> {
        let Some(watchers) = &mut self.stream else {
            return Ok(());
        };
        // None: the watcher was cancelled while this message was under way.
        let Some(subject) = watchers.subjects.get(&news.watch_id).cloned() else {
            return Ok(());
        };
        if news.canceled {
            if news.compact_revision == 0 {
                let reason = if news.cancel_reason.is_empty() {
                    "no reason given"
                } else {
                    &news.cancel_reason
                };
                return Err(super::error::refused_watch(self.etcd.rpc.url(), reason));
            }
            // The watcher's first revision has been compacted.
            watchers.forget(news.watch_id, &subject);
            watchers.add(&self.etcd, subject.clone(), 0);
        }
        if news.created
            && watchers.unconfirmed.remove(&news.watch_id)
            && !matches!(subject, Subject::Vni(_))
        {
            watchers.confirmed.insert(subject.clone());
        }
        let confirmed = if watchers.unconfirmed.is_empty() {
            std::mem::take(&mut watchers.confirmed)
        } else {
            BTreeSet::new()
        };
        if watchers.unconfirmed.is_empty() && watchers.report_all {
            watchers.report_all = false;
            self.all = true;
        }
        confirmed.iter().for_each(|subject| self.changed(subject));
        if news.canceled || !news.events.is_empty() {
            self.changed(&subject);
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Change> {
        if self
            .stream
            .as_ref()
            .is_some_and(|watchers| watchers.report_all)
        {
            return None;
        }
        let pending = std::mem::take(&mut self.pending);
        if std::mem::take(&mut self.all) {
            return Some(Change::All);
        }
        (!pending.is_empty()).then_some(Change::Pods(pending))
    }
}

impl Watchers {
    fn add(&mut self, etcd: &Etcd, subject: Subject, from: i64) {
        self.last_id += 1;
        self.outbox
            .push_back(create(etcd, &subject, self.last_id, from));
        self.unconfirmed.insert(self.last_id);
        self.subjects.insert(self.last_id, subject.clone());
        self.ids.insert(subject, self.last_id);
    }

    fn forget(&mut self, id: i64, subject: &Subject) {
        self.subjects.remove(&id);
        self.unconfirmed.remove(&id);
        self.ids.remove(subject);
    }

    /// Sends the queue and waits for messages, both at the same time: etcd does not read from
    /// clients that do not read.
    async fn exchange(&mut self) -> Option<Result<WatchNews, tonic::Status>> {
        loop {
            tokio::select! {
                news = self.stream.news.message() => return news.transpose(),
                room = self.stream.requests.reserve(), if !self.outbox.is_empty() => {
                    // No await from here on, so that cancelling loses nothing.
                    let (Ok(room), Some(request)) = (room, self.outbox.pop_front()) else {
                        return None;
                    };
                    room.send(request);
                }
            }
        }
    }
}

fn create(etcd: &Etcd, subject: &Subject, watch_id: i64, start_revision: i64) -> WatchRequest {
    let (key, range_end) = match subject {
        Subject::Stream => (etcd.keys.root(), Vec::new()),
        Subject::Record(pod) => (etcd.keys.pod(pod), Vec::new()),
        Subject::Declarers(pod) => (etcd.keys.declarers(pod), after(&etcd.keys.declarers(pod))),
        Subject::Vni(link) => (etcd.keys.link(*link), Vec::new()),
        Subject::Number(vni) => (etcd.keys.number(*vni), Vec::new()),
    };
    request(WatchAction::Create(WatchCreate {
        key: key.into_bytes(),
        range_end,
        start_revision,
        watch_id,
    }))
}

fn request(action: WatchAction) -> WatchRequest {
    WatchRequest {
        action: Some(action),
    }
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn interest(&mut self, interest: Interest) -> Result<(), StoreError> {
        self.pending
            .retain(|pod| interest.own.contains(pod) || interest.peers.contains(pod));
        self.interest = interest;
        self.choose();
        Ok(())
    }

    async fn next(&mut self) -> Result<Change, StoreError> {
        loop {
            if let Some(change) = self.take() {
                return Ok(change);
            }
            let Some(watchers) = &mut self.stream else {
                self.connect().await?;
                continue;
            };
            let news = tokio::select! {
                news = watchers.exchange() => news,
                Ok(()) = self.unnumbered.changed() => {
                    self.choose();
                    continue;
                }
                Ok(()) = self.lapsed.changed() => {
                    self.all = true;
                    continue;
                }
            };
            let heard = match news {
                Some(Ok(news)) => self.hear(&news),
                Some(Err(status)) => Err(super::error::lost_watch(self.etcd.rpc.url(), &status)),
                None => Err(super::error::refused_watch(
                    self.etcd.rpc.url(),
                    "etcd has ended it",
                )),
            };
            if let Err(error) = heard {
                self.stream = None;
                return Err(error);
            }
        }
    }
}
