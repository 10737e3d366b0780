//! Records: reading those that concern a pod, and changing one with all that follows from it.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{
    DeclaredLink, NodeName, PodKey, PodRecord, SandboxId,
    record::{Facts, consequence},
};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{error::Failure, vnis};
use crate::{NodeRemoval, Publish, Published, rules};

/// See [`crate::Store::publish`].
pub(super) fn publish(
    connection: &mut Connection,
    record: &PodRecord,
    how: Publish,
) -> Result<Published, Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let previous = get(&transaction, &record.pod)?;
    let Some(created) = rules::created(record, previous.as_ref(), how) else {
        return Ok(Published::Superseded);
    };
    let next = PodRecord {
        created,
        ..record.clone()
    };
    // What is there already is not written again, so that it wakes nobody.
    if previous.as_ref() != Some(&next) {
        change(&transaction, &record.pod, Some(next))?;
        transaction.commit()?;
    }
    Ok(Published::Stored { created })
}

/// See [`crate::Store::remove_pod`].
pub(super) fn remove_pod(
    connection: &mut Connection,
    pod: &PodKey,
    sandbox: &SandboxId,
) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if get(&transaction, pod)?.is_some_and(|record| record.sandbox() == Some(sandbox)) {
        change(&transaction, pod, None)?;
        transaction.commit()?;
    }
    Ok(())
}

/// See [`crate::Store::read`].
pub(super) fn read(connection: &mut Connection, own: &BTreeSet<PodKey>) -> Result<Facts, Failure> {
    // One transaction, so that the facts are those of one moment.
    let transaction = connection.transaction()?;
    let mut records = BTreeMap::new();
    for pod in own {
        collect_around(&transaction, pod, None, &mut records)?;
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
    // What cannot be read is of no use here; whoever needs it will say so.
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

/// Replaces a pod's record (`None`: its sandbox is gone) and does what follows from that.
fn change(
    transaction: &Transaction<'_>,
    pod: &PodKey,
    next: Option<PodRecord>,
) -> Result<(), Failure> {
    let mut around = BTreeMap::new();
    collect_around(transaction, pod, next.as_ref(), &mut around)?;
    // Whether a declarer that has gone is still needed depends on its other peers.
    let gone: Vec<PodRecord> = around
        .values()
        .filter(|record| !record.lives())
        .cloned()
        .collect();
    for peer in gone.iter().flat_map(PodRecord::peers) {
        collect(transaction, peer, &mut around)?;
    }

    let consequence = consequence(pod, next, &around);
    let previous = around.get(pod);
    match &consequence.record {
        Some(record) => write(transaction, previous, record)?,
        None => previous.map_or(Ok(()), |record| erase(transaction, record))?,
    }
    for forgotten in consequence.forget.iter().filter_map(|pod| around.get(pod)) {
        erase(transaction, forgotten)?;
    }
    consequence
        .release
        .iter()
        .try_for_each(|link| vnis::release(transaction, *link))
}

/// Adds the records that concern a pod: its own, those that declare a link with it, and those of
/// its peers, of the links in `next` too.
fn collect_around(
    connection: &Connection,
    pod: &PodKey,
    next: Option<&PodRecord>,
    records: &mut BTreeMap<PodKey, PodRecord>,
) -> Result<(), Failure> {
    collect_declared(connection, pod, records)?;
    let own = records.get(pod).cloned();
    for peer in own.iter().chain(next).flat_map(PodRecord::peers) {
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

fn write(
    transaction: &Transaction<'_>,
    previous: Option<&PodRecord>,
    next: &PodRecord,
) -> Result<(), Failure> {
    let body = serde_json::to_string(next).map_err(|error| Failure::record(&next.pod, &error))?;
    let pod = next.pod.to_string();
    transaction
        .prepare_cached("INSERT OR REPLACE INTO pods (pod, body) VALUES (?1, ?2)")?
        .execute([&pod, &body])?;
    let (before, after) = (
        previous.map(PodRecord::peers).unwrap_or_default(),
        next.peers(),
    );
    for peer in before.difference(&after) {
        undeclare(transaction, peer, &pod)?;
    }
    let mut declare =
        transaction.prepare_cached("INSERT INTO declared (peer, declarer) VALUES (?1, ?2)")?;
    for peer in after.difference(&before) {
        declare.execute([&peer.to_string(), &pod])?;
    }
    Ok(())
}

fn erase(transaction: &Transaction<'_>, record: &PodRecord) -> Result<(), Failure> {
    let pod = record.pod.to_string();
    transaction
        .prepare_cached("DELETE FROM pods WHERE pod = ?1")?
        .execute([&pod])?;
    record
        .peers()
        .into_iter()
        .try_for_each(|peer| undeclare(transaction, peer, &pod))
}

fn undeclare(transaction: &Transaction<'_>, peer: &PodKey, declarer: &str) -> Result<(), Failure> {
    transaction
        .prepare_cached("DELETE FROM declared WHERE peer = ?1 AND declarer = ?2")?
        .execute([peer.to_string().as_str(), declarer])?;
    Ok(())
}
