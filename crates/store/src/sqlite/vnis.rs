//! VNIs: one row for each link. A link gets the lowest free number.

use std::collections::{BTreeMap, btree_map::Entry};

use ratchet_model::{LinkId, Vni, record::living_links};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{error::Failure, records};
use crate::{VniClaim, VniGrant};

/// See [`crate::Store::claim_vnis`].
pub(super) fn claim(
    connection: &mut Connection,
    claims: &[VniClaim],
) -> Result<BTreeMap<LinkId, VniGrant>, Failure> {
    // An agent asks at every reconcile. The usual answer needs no write lock.
    let snapshot = connection.transaction()?;
    let known = existing(&snapshot, claims)?;
    drop(snapshot);
    if claims.iter().all(|claim| known.contains_key(&claim.link)) {
        return Ok(known);
    }

    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut grants = existing(&transaction, claims)?;
    let mut missing: Vec<&VniClaim> = claims
        .iter()
        .filter(|claim| !grants.contains_key(&claim.link))
        .collect();
    let mut pods = BTreeMap::new();
    for pod in missing.iter().flat_map(|claim| &claim.pods) {
        records::collect(&transaction, pod, &mut pods)?;
    }
    let declared = living_links(&pods);
    for claim in missing.extract_if(.., |claim| !declared.contains_key(&claim.link)) {
        grants.insert(claim.link, VniGrant::NotDeclared);
    }

    // Links with a fixed VNI come first, so that no other link takes their number.
    for (link, vni) in missing
        .iter()
        .filter_map(|claim| Some((claim.link, claim.fixed?)))
    {
        if let Entry::Vacant(entry) = grants.entry(link) {
            entry.insert(match holder(&transaction, vni)? {
                Some(other) => VniGrant::TakenBy(other),
                None => insert(&transaction, link, vni)?,
            });
        }
    }
    let mut free = free(&transaction, missing.len())?.into_iter();
    for claim in missing.iter().filter(|claim| claim.fixed.is_none()) {
        if let Entry::Vacant(entry) = grants.entry(claim.link) {
            entry.insert(match free.next() {
                Some(vni) => insert(&transaction, claim.link, vni)?,
                None => VniGrant::Exhausted,
            });
        }
    }
    transaction.commit()?;
    Ok(grants)
}

/// A link's VNI.
pub(super) fn get(connection: &Connection, link: LinkId) -> Result<Option<Vni>, Failure> {
    let mut statement = connection.prepare_cached("SELECT vni FROM vnis WHERE link = ?1")?;
    let number: Option<u32> = statement
        .query_row([link.to_string()], |row| row.get(0))
        .optional()?;
    number.map(vni).transpose()
}

/// Frees a link's VNI, if it has one.
pub(super) fn release(transaction: &Transaction<'_>, link: LinkId) -> Result<(), Failure> {
    transaction
        .prepare_cached("DELETE FROM vnis WHERE link = ?1")?
        .execute([link.to_string()])?;
    Ok(())
}

fn existing(
    connection: &Connection,
    claims: &[VniClaim],
) -> Result<BTreeMap<LinkId, VniGrant>, Failure> {
    let mut grants = BTreeMap::new();
    for claim in claims {
        if let Some(vni) = get(connection, claim.link)? {
            grants.insert(claim.link, VniGrant::Granted(vni));
        }
    }
    Ok(grants)
}

fn holder(connection: &Connection, vni: Vni) -> Result<Option<LinkId>, Failure> {
    let mut statement = connection.prepare_cached("SELECT link FROM vnis WHERE vni = ?1")?;
    let link: Option<String> = statement
        .query_row([vni.number()], |row| row.get(0))
        .optional()?;
    link.map(|text| parse_link(&text)).transpose()
}

/// A link's id from a row.
pub(super) fn parse_link(text: &str) -> Result<LinkId, Failure> {
    text.parse().map_err(|error| Failure::Row {
        what: format!("link {text:?}"),
        why: format!("{error}"),
    })
}

fn insert(transaction: &Transaction<'_>, link: LinkId, vni: Vni) -> Result<VniGrant, Failure> {
    transaction
        .prepare_cached("INSERT INTO vnis (vni, link) VALUES (?1, ?2)")?
        .execute((vni.number(), link.to_string()))?;
    Ok(VniGrant::Granted(vni))
}

/// The lowest free VNIs, at most `wanted`: one pass over the index for all claims of a batch.
fn free(connection: &Connection, wanted: usize) -> Result<Vec<Vni>, Failure> {
    let mut free = Vec::with_capacity(wanted);
    let mut next = Vni::FIRST;
    let mut statement =
        connection.prepare_cached("SELECT vni FROM vnis WHERE vni >= ?1 ORDER BY vni")?;
    let mut rows = statement.query([next])?;
    while free.len() < wanted {
        let taken = rows.next()?.map(|row| row.get::<_, u32>(0)).transpose()?;
        let end = taken.unwrap_or(Vni::MAX + 1);
        let gap = (next..end).map_while(|number| Vni::try_from(number).ok());
        free.extend(gap.take(wanted - free.len()));
        next = end + 1;
        if taken.is_none() {
            break;
        }
    }
    Ok(free)
}

fn vni(number: u32) -> Result<Vni, Failure> {
    Vni::try_from(number).map_err(|error| Failure::Row {
        what: "a row of table vnis".into(),
        why: error.to_string(),
    })
}
