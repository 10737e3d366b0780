//! VNIs: one row a link that has one, one row a node that holds one, the lowest free number first.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use ratchet_model::{LinkId, NodeName, PodKey, PodRecord, Vni, VniRange, record::living_links};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use super::{error::Failure, records};
use crate::{
    VniClaim, VniGrant,
    vni::{Decision, Owner},
};

/// See [`crate::Store::claim_vnis`].
pub(super) fn claim(
    connection: &mut Connection,
    node: &NodeName,
    range: VniRange,
    claims: &[VniClaim],
) -> Result<BTreeMap<LinkId, VniGrant>, Failure> {
    // An agent asks again after each start: the usual answer needs no write lock.
    let snapshot = connection.transaction()?;
    let known = settled(&snapshot, node, claims)?;
    drop(snapshot);
    if claims.iter().all(|claim| known.contains_key(&claim.link)) {
        return Ok(known);
    }

    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut pods = BTreeMap::new();
    for pod in claims.iter().flat_map(|claim| &claim.pods) {
        records::collect(&transaction, pod, &mut pods)?;
    }
    let mut round = Round {
        transaction: &transaction,
        node,
        range,
        declared: living_links(&pods).into_keys().collect(),
        blocked: blocked(&transaction, &pods, node)?,
        free_from: 0,
    };
    let mut grants = BTreeMap::new();
    // First those that insist, so that a link which takes any number does not take theirs.
    let (insisting, others): (Vec<_>, Vec<_>) = claims
        .iter()
        .partition(|claim| claim.fixed.or(claim.former).is_some());
    for claim in insisting.into_iter().chain(others) {
        if let Entry::Vacant(first) = grants.entry(claim.link) {
            first.insert(round.grant(claim)?);
        }
    }
    transaction.commit()?;
    Ok(grants)
}

/// What is granted within one transaction.
struct Round<'a> {
    transaction: &'a Transaction<'a>,
    node: &'a NodeName,
    range: VniRange,
    declared: BTreeSet<LinkId>,
    blocked: BTreeMap<Vni, NodeName>,
    /// All lower numbers of the range are taken.
    free_from: u32,
}

impl Round<'_> {
    fn grant(&mut self, claim: &VniClaim) -> Result<VniGrant, Failure> {
        let transaction = self.transaction;
        let has = get(transaction, claim.link)?;
        let lowest = || {
            let free = lowest(transaction, self.range, self.free_from, &self.blocked)?;
            self.free_from = free.map_or(Vni::MAX, Vni::number);
            Ok(free)
        };
        let is_declared = self.declared.contains(&claim.link);
        let owner = |vni| owner(transaction, &self.blocked, vni);
        let decision = Decision::on(claim, has, is_declared, owner, lowest)?;
        let vni = match decision {
            Decision::Refuse(grant) => return Ok(grant),
            Decision::Keep(vni) => vni,
            Decision::Take(vni) => {
                // Not an update: watches look for new rows.
                end(transaction, claim.link)?;
                transaction
                    .prepare_cached("INSERT INTO vnis (vni, link) VALUES (?1, ?2)")?
                    .execute((vni.number(), claim.link.to_string()))?;
                vni
            }
        };
        transaction
            .prepare_cached("INSERT OR REPLACE INTO holders (vni, node, link) VALUES (?1, ?2, ?3)")?
            .execute((vni.number(), self.node.as_str(), claim.link.to_string()))?;
        Ok(VniGrant::Granted(vni))
    }
}

/// See [`crate::Store::release_vnis`].
pub(super) fn release(
    connection: &mut Connection,
    node: &NodeName,
    vnis: &BTreeSet<Vni>,
) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for vni in vnis {
        transaction
            .prepare_cached("DELETE FROM holders WHERE vni = ?1 AND node = ?2")?
            .execute((vni.number(), node.as_str()))?;
    }
    Ok(transaction.commit()?)
}

/// See [`crate::Store::held_vnis`].
pub(super) fn held(
    connection: &mut Connection,
    node: &NodeName,
) -> Result<BTreeMap<Vni, LinkId>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT vni, link FROM holders WHERE node = ?1")?;
    let rows = statement
        .query_map([node.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(u32, String)>, _>>()?;
    rows.into_iter()
        .map(|(number, link)| Ok((vni(number)?, parse_link(&link)?)))
        .collect()
}

/// See [`crate::Store::block_vnis`].
pub(super) fn block(
    connection: &mut Connection,
    node: &NodeName,
    vnis: &BTreeSet<Vni>,
) -> Result<(), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    unblock(&transaction, node)?;
    for vni in vnis {
        transaction
            .prepare_cached("INSERT INTO blocked (node, vni) VALUES (?1, ?2)")?
            .execute((node.as_str(), vni.number()))?;
    }
    Ok(transaction.commit()?)
}

/// All VNIs can be used for links of a node.
pub(super) fn unblock(connection: &Connection, node: &NodeName) -> Result<(), Failure> {
    connection.execute("DELETE FROM blocked WHERE node = ?1", [node.as_str()])?;
    Ok(())
}

/// A node is gone for good: it holds nothing.
pub(super) fn forget(connection: &mut Connection, node: &NodeName) -> Result<(), Failure> {
    connection.execute("DELETE FROM holders WHERE node = ?1", [node.as_str()])?;
    unblock(connection, node)
}

/// The VNI a link has.
pub(super) fn get(connection: &Connection, link: LinkId) -> Result<Option<Vni>, Failure> {
    let mut statement = connection.prepare_cached("SELECT vni FROM vnis WHERE link = ?1")?;
    let number: Option<u32> = statement
        .query_row([link.to_string()], |row| row.get(0))
        .optional()?;
    number.map(vni).transpose()
}

/// A link no longer has its VNI, if it had one. It is free when no node holds it.
pub(super) fn end(transaction: &Transaction<'_>, link: LinkId) -> Result<(), Failure> {
    transaction
        .prepare_cached("DELETE FROM vnis WHERE link = ?1")?
        .execute([link.to_string()])?;
    Ok(())
}

/// Whether a VNI is taken: a link has it, or a node holds it.
pub(super) fn is_taken(connection: &Connection, vni: Vni) -> Result<bool, Failure> {
    Ok(owner(connection, &BTreeMap::new(), vni)? != Owner::Nothing)
}

/// The claims with which all is as it should be.
fn settled(
    connection: &Connection,
    node: &NodeName,
    claims: &[VniClaim],
) -> Result<BTreeMap<LinkId, VniGrant>, Failure> {
    let mut grants = BTreeMap::new();
    let mut statement = connection.prepare_cached(
        "SELECT vnis.vni FROM vnis JOIN holders USING (vni, link)
            WHERE vnis.link = ?1 AND node = ?2
            AND vnis.vni NOT IN (SELECT vni FROM blocked)",
    )?;
    for claim in claims {
        let number: Option<u32> = statement
            .query_row((claim.link.to_string(), node.as_str()), |row| row.get(0))
            .optional()?;
        let found = number.map(vni).transpose()?;
        if let Some(vni) = found.filter(|vni| claim.fixed.is_none_or(|fixed| fixed == *vni)) {
            grants.insert(claim.link, VniGrant::Granted(vni));
        }
    }
    Ok(grants)
}

/// The VNIs that are of no use on this node and those of the pods, each with one such node.
fn blocked(
    connection: &Connection,
    pods: &BTreeMap<PodKey, PodRecord>,
    node: &NodeName,
) -> Result<BTreeMap<Vni, NodeName>, Failure> {
    let located = pods.values().filter_map(|pod| pod.location.as_ref());
    let nodes: BTreeSet<&NodeName> = located.map(|at| &at.node).chain([node]).collect();
    let mut statement = connection.prepare_cached("SELECT vni FROM blocked WHERE node = ?1")?;
    let mut blocked = BTreeMap::new();
    for node in nodes {
        let numbers = statement
            .query_map([node.as_str()], |row| row.get::<_, u32>(0))?
            .collect::<Result<Vec<_>, _>>()?;
        for number in numbers {
            blocked.insert(vni(number)?, node.clone());
        }
    }
    Ok(blocked)
}

fn owner(
    connection: &Connection,
    blocked: &BTreeMap<Vni, NodeName>,
    vni: Vni,
) -> Result<Owner, Failure> {
    if let Some(node) = blocked.get(&vni) {
        return Ok(Owner::Foreign(node.clone()));
    }
    let mut statement = connection.prepare_cached(
        "SELECT link FROM vnis WHERE vni = ?1 UNION ALL SELECT link FROM holders WHERE vni = ?1",
    )?;
    let link: Option<String> = statement
        .query_row([vni.number()], |row| row.get(0))
        .optional()?;
    let link = link.map(|text| parse_link(&text)).transpose()?;
    Ok(link.map_or(Owner::Nothing, Owner::Link))
}

/// The lowest VNI of a range, from a number up, that is free and not blocked: a walk along the
/// indexes.
fn lowest(
    connection: &Connection,
    range: VniRange,
    from: u32,
    blocked: &BTreeMap<Vni, NodeName>,
) -> Result<Option<Vni>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT vni FROM vnis WHERE vni >= ?1 UNION SELECT vni FROM holders WHERE vni >= ?1
            ORDER BY vni",
    )?;
    let mut candidates = range.starting_at(from);
    let mut next = candidates.next();
    let mut rows = statement.query([next.map_or(0, Vni::number)])?;
    let mut taken: Option<u32> = rows.next()?.map(|row| row.get(0)).transpose()?;
    while let Some(vni) = next {
        while taken.is_some_and(|taken| taken < vni.number()) {
            taken = rows.next()?.map(|row| row.get(0)).transpose()?;
        }
        if taken != Some(vni.number()) && !blocked.contains_key(&vni) {
            return Ok(Some(vni));
        }
        next = candidates.next();
    }
    Ok(None)
}

/// A link's id as it stands in a row.
pub(super) fn parse_link(text: &str) -> Result<LinkId, Failure> {
    text.parse().map_err(|error| Failure::Row {
        what: format!("link {text:?}"),
        why: format!("{error}"),
    })
}

fn vni(number: u32) -> Result<Vni, Failure> {
    Vni::try_from(number).map_err(|error| Failure::Row {
        what: "a row of table vnis".into(),
        why: error.to_string(),
    })
}
