//! Records: reads those that concern a pod, and changes one with all consequences.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{DeclaredLink, NodeName, PodKey, PodRecord, SandboxId, record::Facts};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{error::Failure, vnis};
use crate::{
    NodeRemoval, Publish, Published,
    change::{
        IndexChange, IndexEntry, Limits, Publication, RecordChange, drops_links, is_removed,
        peers_of_gone,
    },
};

/// See [`crate::Store::publish`].
pub(super) fn publish(
    connection: &mut Connection,
    record: &PodRecord,
    how: Publish,
) -> Result<Published, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let previous = get(&transaction, &record.pod)?;
    let next = match Publication::new(record, previous.as_ref(), how) {
        Publication::Superseded => return Ok(Published::Superseded),
        Publication::Held { owner, node } => return Ok(Published::Held { owner, node }),
        Publication::Unchanged(PodRecord { created, .. }) => {
            return Ok(Published::Stored { created });
        }
        Publication::Write(next) => next,
    };
    let created = next.created;
    let mut around = BTreeMap::new();
    if drops_links(previous.as_ref(), &next) {
        collect_around(&transaction, &record.pod, &mut around)?;
        for peer in next.peers() {
            collect(&transaction, peer, &mut around)?;
        }
    } else {
        around.extend(previous.map(|previous| (record.pod.clone(), previous)));
    }
    write(&transaction, &RecordChange::publish(next, &around))?;
    transaction.commit()?;
    Ok(Published::Stored { created })
}

/// See [`crate::Store::remove_pod`].
pub(super) fn remove_pod(
    connection: &mut Connection,
    pod: &PodKey,
    sandbox: &SandboxId,
) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if is_removed(get(&transaction, pod)?.as_ref(), sandbox) {
        let mut around = BTreeMap::new();
        collect_around(&transaction, pod, &mut around)?;
        for peer in peers_of_gone(&around) {
            collect(&transaction, &peer, &mut around)?;
        }
        write(&transaction, &RecordChange::remove(pod, &around))?;
        transaction.commit()?;
    }
    Ok(())
}

/// See [`crate::Store::read`].
pub(super) fn read(connection: &mut Connection, own: &BTreeSet<PodKey>) -> Result<Facts, Failure> {
    // One transaction, so that all facts are from the same moment.
    let transaction = connection.transaction()?;
    let mut records = BTreeMap::new();
    for pod in own {
        collect_around(&transaction, pod, &mut records)?;
    }
    let mut found = BTreeMap::new();
    let links = records.values().flat_map(|record| &record.links);
    let links =
        links.filter(|link| own.contains(&link.local.pod) || own.contains(&link.remote.pod));
    for link in links.map(DeclaredLink::id).collect::<BTreeSet<_>>() {
        if let Some(vni) = vnis::get(&transaction, link)? {
            found.insert(link, vni);
        }
    }
    Ok(Facts {
        records,
        vnis: found,
        declared: None,
    })
}

/// See [`crate::Store::located_on`].
pub(super) fn located_on(
    connection: &mut Connection,
    node: &NodeName,
) -> Result<Vec<PodRecord>, Failure> {
    let mut statement = connection.prepare_cached("SELECT body FROM pods")?;
    let bodies = statement
        .query_map([], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    // A record that cannot be read is of no use here. The code that needs it reports it.
    let records = bodies
        .iter()
        .filter_map(|body| serde_json::from_str::<PodRecord>(body).ok());
    Ok(records
        .filter(|record| {
            record
                .location
                .as_ref()
                .is_some_and(|location| location.node == *node)
        })
        .collect())
}

/// See [`crate::Store::remove_node`].
pub(super) fn remove_node(
    connection: &mut Connection,
    node: &NodeName,
) -> Result<NodeRemoval, Failure> {
    let mut gone = BTreeSet::new();
    for record in located_on(connection, node)? {
        if let Some(sandbox) = record.sandbox() {
            remove_pod(connection, &record.pod, sandbox)?;
        }
        gone.insert(record.pod);
    }
    vnis::forget(connection, node)?;
    Ok(NodeRemoval::Done(gone))
}

/// A pod's record.
fn get(connection: &Connection, pod: &PodKey) -> Result<Option<PodRecord>, Failure> {
    let mut statement = connection.prepare_cached("SELECT body FROM pods WHERE pod = ?1")?;
    let body: Option<String> = statement
        .query_row([pod.to_string()], |row| row.get(0))
        .optional()?;
    body.map(|body| parse(pod, &body)).transpose()
}

/// The pods that declare a link with a pod, itself not among them.
fn declarers(connection: &Connection, pod: &PodKey) -> Result<Vec<PodKey>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT declarer FROM declared WHERE peer = ?1")?;
    let names: Vec<String> = statement
        .query_map([pod.to_string()], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let key = |name: String| {
        name.parse().map_err(|error| Failure::Row {
            what: format!("pod {name:?}"),
            why: format!("{error}"),
        })
    };
    names.into_iter().map(key).collect()
}

fn parse(pod: &PodKey, body: &str) -> Result<PodRecord, Failure> {
    serde_json::from_str(body).map_err(|error| Failure::record(pod, &error))
}

/// Adds the records that concern a pod: its own, those that declare a link with it, and those of
/// its peers.
fn collect_around(
    connection: &Connection,
    pod: &PodKey,
    records: &mut BTreeMap<PodKey, PodRecord>,
) -> Result<(), Failure> {
    collect_declared(connection, pod, records)?;
    let own = records.get(pod).cloned();
    for peer in own.iter().flat_map(PodRecord::peers) {
        collect(connection, peer, records)?;
    }
    Ok(())
}

/// Adds the records that have a pod's links: its own and those that declare a link with it.
pub(super) fn collect_declared(
    connection: &Connection,
    pod: &PodKey,
    records: &mut BTreeMap<PodKey, PodRecord>,
) -> Result<(), Failure> {
    collect(connection, pod, records)?;
    declarers(connection, pod)?
        .iter()
        .try_for_each(|declarer| collect(connection, declarer, records))
}

/// Adds a pod's record, if it has one.
pub(super) fn collect(
    connection: &Connection,
    pod: &PodKey,
    records: &mut BTreeMap<PodKey, PodRecord>,
) -> Result<(), Failure> {
    if !records.contains_key(pod)
        && let Some(record) = get(connection, pod)?
    {
        records.insert(pod.clone(), record);
    }
    Ok(())
}

/// Writes a change. In one transaction, it is one step and all of its conditions hold.
fn write(transaction: &Transaction<'_>, change: &RecordChange<'_>) -> Result<(), Failure> {
    for step in change.steps(&BTreeMap::new(), Limits::NONE) {
        for (pod, record) in &step.records {
            write_record(transaction, pod, record.as_ref())?;
        }
        for (entry, change) in &step.index {
            write_entry(transaction, entry, *change)?;
        }
        for link in step.ended() {
            vnis::end(transaction, link)?;
        }
    }
    Ok(())
}

fn write_record(
    transaction: &Transaction<'_>,
    pod: &PodKey,
    record: Option<&PodRecord>,
) -> Result<(), Failure> {
    let name = pod.to_string();
    match record {
        Some(record) => {
            let body = serde_json::to_string(record);
            let body = body.map_err(|error| Failure::record(pod, &error))?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO pods (pod, body) VALUES (?1, ?2)")?
                .execute([&name, &body])?;
        }
        None => {
            transaction
                .prepare_cached("DELETE FROM pods WHERE pod = ?1")?
                .execute([&name])?;
        }
    }
    Ok(())
}

fn write_entry(
    transaction: &Transaction<'_>,
    entry: &IndexEntry,
    change: IndexChange,
) -> Result<(), Failure> {
    let statement = match change {
        IndexChange::Add => "INSERT INTO declared (peer, declarer) VALUES (?1, ?2)",
        IndexChange::Remove => "DELETE FROM declared WHERE peer = ?1 AND declarer = ?2",
        IndexChange::Touch => return Ok(()),
    };
    transaction
        .prepare_cached(statement)?
        .execute([entry.peer.to_string(), entry.declarer.to_string()])?;
    Ok(())
}
