//! What a watch has seen last, and how that differs from what is there now.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, PodKey, PodRecord};
use rusqlite::Connection;

use super::{database::Database, error::Failure, records, vnis};
use crate::{Change, Interest};

/// Which records the file has, and the changes to those of interest that nobody has fetched yet.
///
/// Every write of a record draws a new, higher number (`pods.change`), so a look asks for the
/// records beyond the highest one seen: it costs what has changed and not what there is. Only
/// removals leave no number behind; they are known by the count of records. Nothing has to be kept
/// for watchers in the file, and a watcher that was away misses nothing.
#[derive(Default)]
pub(super) struct Snapshot {
    interest: Interest,
    /// All records of the file, with the pods that each declares links with.
    records: BTreeMap<PodKey, BTreeSet<PodKey>>,
    /// The highest `pods.change` seen.
    changed: i64,
    /// The links of own pods, found when first needed after a change to them.
    links: BTreeMap<PodKey, BTreeSet<LinkId>>,
    /// The highest `vnis.change` seen.
    claimed: i64,
    /// The opening of the file that all this was seen in.
    generation: u64,
    /// Of the connection, when it last looked.
    seen: Option<Moment>,
    pending: BTreeSet<PodKey>,
    all: bool,
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
        Self {
            all: true,
            ..Self::default()
        }
    }

    /// Replaces the interest. Pods that are new in it count as changed: something may have happened
    /// to them between the caller's reading and this call.
    pub(super) fn set_interest(&mut self, interest: Interest) {
        let added =
            |pod: &PodKey| !self.interest.own.contains(pod) && !self.interest.peers.contains(pod);
        self.pending
            .extend(interest.own.difference(&self.interest.own).cloned());
        self.pending
            .extend(interest.peers.iter().filter(|pod| added(pod)).cloned());
        self.pending
            .retain(|pod| interest.own.contains(pod) || interest.peers.contains(pod));
        self.links.retain(|pod, _| interest.own.contains(pod));
        self.interest = interest;
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
        let moment = Moment {
            generation: database.generation(),
            data_version,
        };
        if self.seen != Some(moment) {
            if self.generation != moment.generation {
                // Another file: its versions have nothing to do with those seen so far.
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
        // One transaction, so that all is of one moment.
        let transaction = connection.transaction()?;
        self.compare_records(&transaction)?;
        self.compare_vnis(&transaction)
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
            // What cannot be read is told of when somebody asks for it.
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

    /// Takes a record as it is now; none: it was removed. It concerns its pod and the own pods with
    /// which it declares links, or did before.
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
