//! What a watch has seen last, and how the store differs from it now.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, PodKey, PodRecord, Vni};
use rusqlite::Connection;

use super::{database::Database, error::Failure, records, vnis};
use crate::{Change, Interest};

/// The records in the file, and the changes to those of interest that were not fetched yet.
///
/// Every write of a record assigns a new, higher number (`pods.change`). So a look reads only the
/// records above the highest number seen, and its cost depends on what has changed and not on what
/// there is. Removals leave no number; the count of records shows them. The file keeps nothing for
/// watchers, and a watcher that was stopped misses nothing.
#[derive(Default)]
pub(super) struct Snapshot {
    interest: Interest,
    /// All records of the file, with the pods that each declares links with.
    records: BTreeMap<PodKey, BTreeSet<PodKey>>,
    /// The highest `pods.change` seen.
    changed: i64,
    /// The links of own pods. They are read when they are first needed after a change.
    links: BTreeMap<PodKey, BTreeSet<LinkId>>,
    /// The highest `vnis.change` seen.
    claimed: i64,
    /// The awaited VNIs that are free, which has been reported.
    free: BTreeSet<Vni>,
    /// The opening of the file that all of this is from.
    generation: u64,
    /// The connection's version at the last look.
    seen: Option<Moment>,
    pending: BTreeSet<PodKey>,
    all: bool,
}

/// As long as this does not change, no other connection has changed anything.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Moment {
    generation: u64,
    data_version: i64,
}

impl Snapshot {
    /// An empty snapshot. The first change is [`Change::All`].
    pub(super) fn new() -> Self {
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Replaces the interest. New pods in it count as changed: they may have changed between the
    /// caller's read and this call.
    pub(super) fn set_interest(&mut self, interest: Interest) {
        let added =
            |pod: &PodKey| !self.interest.own.contains(pod) && !self.interest.peers.contains(pod);
        self.pending
            .extend(interest.own.difference(&self.interest.own).cloned());
        self.pending
            .extend(interest.peers.iter().filter(|pod| added(pod)).cloned());
        let waiting = interest.awaited.iter();
        let new = waiting.filter(|(vni, pods)| self.interest.awaited.get(vni) != Some(pods));
        self.pending.extend(new.flat_map(|(_, pods)| pods).cloned());
        self.free.retain(|vni| interest.awaited.contains_key(vni));
        self.pending
            .retain(|pod| interest.own.contains(pod) || interest.peers.contains(pod));
        self.links.retain(|pod, _| interest.own.contains(pod));
        self.interest = interest;
    }

    /// What has changed since the last call.
    pub(super) fn take(&mut self) -> Option<Change> {
        let pending = std::mem::take(&mut self.pending);
        if std::mem::take(&mut self.all) {
            Some(Change::All)
        } else {
            (!pending.is_empty()).then_some(Change::Pods(pending))
        }
    }

    /// Looks for changes. Returns which opening of the file it has read.
    pub(super) fn look(&mut self, database: &mut Database) -> Result<u64, Failure> {
        let connection = database.connection()?;
        let data_version = connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        let moment = Moment {
            generation: database.generation(),
            data_version,
        };
        if self.seen != Some(moment) {
            if self.generation != moment.generation {
                // Another file: its versions cannot be compared with those seen so far.
                *self = Self {
                    interest: std::mem::take(&mut self.interest),
                    generation: moment.generation,
                    ..Self::new()
                };
            }
            self.compare(database.connection()?)?;
            self.seen = Some(moment);
        }
        Ok(moment.generation)
    }

    /// Changes go straight to `pending`, so that an error half way loses none.
    fn compare(&mut self, connection: &mut Connection) -> Result<(), Failure> {
        // One transaction, so that all is from the same moment.
        let transaction = connection.transaction()?;
        self.compare_records(&transaction)?;
        self.compare_vnis(&transaction)?;
        self.compare_awaited(&transaction)
    }

    fn compare_records(&mut self, connection: &Connection) -> Result<(), Failure> {
        let mut statement = connection.prepare_cached(
            "SELECT change, pod, body FROM pods WHERE change > ?1 ORDER BY change",
        )?;
        let mut rows = statement.query([self.changed])?;
        while let Some(row) = rows.next()? {
            let (change, name, body): (i64, String, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            self.changed = change;
            // A record that cannot be read is reported when it is needed.
            let Ok(pod) = name.parse() else { continue };
            let peers = serde_json::from_str::<PodRecord>(&body)
                .map(|record| record.peers().into_iter().cloned().collect());
            self.note(pod, Some(peers.unwrap_or_default()));
        }
        let count: i64 = connection
            .prepare_cached("SELECT count(*) FROM pods")?
            .query_row([], |row| row.get(0))?;
        if usize::try_from(count) != Ok(self.records.len()) {
            let mut statement = connection.prepare_cached("SELECT pod FROM pods")?;
            let left = statement
                .query_map([], |row| row.get::<_, String>(0))?
                .collect::<Result<BTreeSet<_>, _>>()?;
            let gone: Vec<PodKey> = self
                .records
                .keys()
                .filter(|pod| !left.contains(&pod.to_string()))
                .cloned()
                .collect();
            gone.into_iter().for_each(|pod| self.note(pod, None));
        }
        Ok(())
    }

    /// Takes a record as it is now; `None` if it was removed. It concerns its pod and the own pods
    /// with which it declares links or did so before.
    fn note(&mut self, pod: PodKey, peers: Option<BTreeSet<PodKey>>) {
        let before = self.records.remove(&pod).unwrap_or_default();
        let mut own: BTreeSet<&PodKey> = before.iter().chain(peers.iter().flatten()).collect();
        own.insert(&pod);
        own.retain(|pod| self.interest.own.contains(*pod));
        own.iter().for_each(|pod| drop(self.links.remove(*pod)));
        self.pending.extend(own.into_iter().cloned());
        if self.interest.peers.contains(&pod) {
            self.pending.insert(pod.clone());
        }
        self.records.extend(peers.map(|peers| (pod, peers)));
    }

    /// Tells of VNIs that are waited for and have become free.
    fn compare_awaited(&mut self, connection: &Connection) -> Result<(), Failure> {
        for (vni, pods) in &self.interest.awaited {
            if vnis::is_taken(connection, *vni)? {
                self.free.remove(vni);
            } else if self.free.insert(*vni) {
                self.pending.extend(pods.iter().cloned());
            }
        }
        Ok(())
    }

    /// Only new VNIs matter: one is freed only when a record that has the link changes as well.
    fn compare_vnis(&mut self, connection: &Connection) -> Result<(), Failure> {
        let claimed = claimed_since(connection, self.claimed)?;
        let Some(newest) = claimed.values().copied().max() else {
            return Ok(());
        };
        self.find_links(connection)?;
        for (pod, links) in &self.links {
            if claimed.keys().any(|link| links.contains(link)) {
                self.pending.insert(pod.clone());
            }
        }
        self.claimed = newest;
        Ok(())
    }

    /// Fills in the links of the own pods whose records have changed since they were last filled
    /// in.
    fn find_links(&mut self, connection: &Connection) -> Result<(), Failure> {
        let missing: BTreeSet<&PodKey> = self
            .interest
            .own
            .iter()
            .filter(|pod| !self.links.contains_key(*pod))
            .collect();
        let mut records = BTreeMap::new();
        for pod in &missing {
            records::collect_declared(connection, pod, &mut records)?;
        }
        let mut found: BTreeMap<PodKey, BTreeSet<LinkId>> = missing
            .into_iter()
            .map(|pod| (pod.clone(), BTreeSet::new()))
            .collect();
        for link in records.values().flat_map(|record| &record.links) {
            for pod in [&link.local.pod, &link.remote.pod] {
                if let Some(links) = found.get_mut(pod) {
                    links.insert(link.id());
                }
            }
        }
        self.links.extend(found);
        Ok(())
    }
}

fn claimed_since(connection: &Connection, change: i64) -> Result<BTreeMap<LinkId, i64>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT link, change FROM vnis WHERE change > ?1")?;
    let mut rows = statement.query([change])?;
    let mut claimed = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let link: String = row.get(0)?;
        claimed.insert(vnis::parse_link(&link)?, row.get(1)?);
    }
    Ok(claimed)
}
