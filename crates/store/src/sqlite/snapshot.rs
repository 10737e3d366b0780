//! What a watch has seen last, and how that differs from what is there now.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, PodKey};
use rusqlite::{Connection, OptionalExtension};

use super::{database::Database, error::Failure, records, vnis};
use crate::{Change, Interest};

/// The state of everything of interest at the last look, and the changes that nobody has fetched yet.
///
/// A look compares states instead of reading a log: it costs a few index look-ups a pod of interest, nothing has to be
/// kept for watchers in the file, and a watcher that was away misses nothing.
#[derive(Default)]
pub(super) struct Snapshot {
    interest: Interest,
    own: BTreeMap<PodKey, Own>,
    peers: BTreeMap<PodKey, Version>,
    /// The newest VNI seen.
    claimed: i64,
    /// The opening of the file that all this was seen in.
    generation: u64,
    /// Of the connection, when it last looked.
    seen: Option<Moment>,
    pending: BTreeSet<PodKey>,
    all: bool,
}

/// `pods.change`; none: there is no record.
type Version = Option<i64>;

/// An own pod's facts, by their versions.
#[derive(Default)]
struct Own {
    record: Version,
    declarers: Vec<(String, i64)>,
    /// Its links, found when first needed.
    links: Option<BTreeSet<LinkId>>,
}

/// As long as this stays the same, no other connection has changed anything.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Moment {
    generation: u64,
    data_version: i64,
}

impl Snapshot {
    /// Of nothing; the first change is everything.
    pub(super) fn new() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Replaces the interest. Pods that are new in it count as changed: something may have happened to them between
    /// the caller's reading and this call.
    pub(super) fn set_interest(&mut self, interest: Interest) {
        let added = |pod: &PodKey| !self.interest.own.contains(pod) && !self.interest.peers.contains(pod);
        self.pending.extend(interest.own.difference(&self.interest.own).cloned());
        self.pending.extend(interest.peers.iter().filter(|pod| added(pod)).cloned());
        for (pod, own) in self.own.extract_if(.., |pod, _| !interest.own.contains(pod)) {
            // An own pod that is a peer's now: its record was looked at all along.
            self.peers.entry(pod).or_insert(own.record);
        }
        self.pending.retain(|pod| interest.own.contains(pod) || interest.peers.contains(pod));
        self.peers.retain(|pod, _| interest.peers.contains(pod));
        self.interest = interest;
        self.seen = None;
    }

    /// What has changed since it was last asked.
    pub(super) fn take(&mut self) -> Option<Change> {
        let pending = std::mem::take(&mut self.pending);
        if std::mem::take(&mut self.all) {
            Some(Change::All)
        } else {
            (!pending.is_empty()).then_some(Change::Pods(pending))
        }
    }

    /// Looks for changes. Says which opening of the file it looked at.
    pub(super) fn look(&mut self, database: &mut Database) -> Result<u64, Failure> {
        let connection = database.connection()?;
        let data_version = connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        let moment = Moment { generation: database.generation(), data_version };
        if self.seen != Some(moment) {
            if self.generation != moment.generation {
                // Another file: its versions have nothing to do with those seen so far.
                *self =
                    Self { interest: std::mem::take(&mut self.interest), generation: moment.generation, ..Self::new() };
            }
            self.compare(database.connection()?)?;
            self.seen = Some(moment);
        }
        Ok(moment.generation)
    }

    /// Changes go straight to `pending`, so that an error half way loses none.
    fn compare(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        // One transaction, so that all is of one moment.
        let transaction = connection.transaction()?;
        for pod in &self.interest.peers {
            let now = version(&transaction, pod)?;
            if self.peers.insert(pod.clone(), now).is_some_and(|before| before != now) {
                self.pending.insert(pod.clone());
            }
        }
        for pod in &self.interest.own {
            let now =
                Own { record: version(&transaction, pod)?, declarers: declarers(&transaction, pod)?, links: None };
            match self.own.get_mut(pod) {
                Some(before) if before.record == now.record && before.declarers == now.declarers => {}
                Some(before) => {
                    *before = now;
                    self.pending.insert(pod.clone());
                }
                None => {
                    self.own.insert(pod.clone(), now);
                }
            }
        }
        self.compare_vnis(&transaction)
    }

    /// Only new VNIs matter: one is freed only when a record that has the link changes as well.
    fn compare_vnis(&mut self, connection: &Connection) -> Result<(), Failure> {
        let claimed = claimed_since(connection, self.claimed)?;
        let Some(newest) = claimed.values().copied().max() else { return Ok(()) };
        self.find_links(connection)?;
        for (pod, own) in &self.own {
            if claimed.keys().any(|link| own.links.as_ref().is_some_and(|links| links.contains(link))) {
                self.pending.insert(pod.clone());
            }
        }
        self.claimed = newest;
        Ok(())
    }

    /// Fills in the links of the own pods whose records have changed since they were last filled in.
    fn find_links(&mut self, connection: &Connection) -> Result<(), Failure> {
        let mut records = BTreeMap::new();
        for (pod, own) in &mut self.own {
            if own.links.is_none() {
                records::collect_declared(connection, pod, &mut records)?;
            }
        }
        let mut found: BTreeMap<PodKey, BTreeSet<LinkId>> = BTreeMap::new();
        for link in records.values().flat_map(|record| &record.links) {
            for pod in [&link.local.pod, &link.remote.pod] {
                if self.own.get(pod).is_some_and(|own| own.links.is_none()) {
                    found.entry(pod.clone()).or_default().insert(link.id());
                }
            }
        }
        for (pod, own) in &mut self.own {
            own.links.get_or_insert_with(|| found.remove(pod).unwrap_or_default());
        }
        Ok(())
    }
}

fn version(connection: &Connection, pod: &PodKey) -> Result<Version, Failure> {
    let mut statement = connection.prepare_cached("SELECT change FROM pods WHERE pod = ?1")?;
    Ok(statement.query_row([pod.to_string()], |row| row.get(0)).optional()?)
}

fn declarers(connection: &Connection, pod: &PodKey) -> Result<Vec<(String, i64)>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT declared.declarer, pods.change FROM declared JOIN pods ON pods.pod = declared.declarer
         WHERE declared.peer = ?1 ORDER BY declared.declarer",
    )?;
    let found = statement.query_map([pod.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn claimed_since(connection: &Connection, change: i64) -> Result<BTreeMap<LinkId, i64>, Failure> {
    let mut statement = connection.prepare_cached("SELECT link, change FROM vnis WHERE change > ?1")?;
    let mut rows = statement.query([change])?;
    let mut claimed = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let link: String = row.get(0)?;
        claimed.insert(vnis::parse_link(&link)?, row.get(1)?);
    }
    Ok(claimed)
}
