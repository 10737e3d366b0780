//! Whose a VNI is: one key a VNI, which says which link has it and which nodes hold it, and one key
//! with all VNIs of the range that are taken.
//!
//! What is read here is written on condition that it has not changed meanwhile. The key of all VNIs
//! may say more than is so, never less: the key of a VNI decides. (An agent of a release that knew
//! no holders writes only the key of all: see docs/etcd.md.)

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, NodeName, Vni, VniRange};

use super::{
    Etcd, TXN_OPS,
    attempts::Attempts,
    proto::{Compare, KeyValue, Op, Txn},
    reader::{Reader, key, unreadable},
    vni_set::VniSet,
};
use crate::{StoreError, vni::TakenVni};

/// What fits into one transaction: the key of all VNIs and the caller's condition are two more.
const TOGETHER: usize = TXN_OPS - 2;

/// The VNIs that are taken, and the revision of their key.
pub(super) struct All {
    pub vnis: VniSet,
    pub revision: i64,
}

impl All {
    /// Out of the key's value; made from the links and VNIs when the key is gone.
    pub(super) async fn load(etcd: &Etcd, found: &[KeyValue]) -> Result<Self, StoreError> {
        let Some(kv) = found.first() else {
            let vnis = find_all(etcd).await?;
            return Ok(Self { vnis, revision: 0 });
        };
        let vnis = String::from_utf8_lossy(&kv.value).parse();
        Ok(Self {
            vnis: vnis.map_err(|error: String| unreadable(etcd, &etcd.keys.taken(), &error))?,
            revision: kv.mod_revision,
        })
    }

    /// The condition that the key has not changed.
    pub(super) fn unchanged(&self, etcd: &Etcd) -> Compare {
        Compare::unchanged(etcd.keys.taken(), self.revision)
    }

    /// Writes the key.
    pub(super) fn write(&self, etcd: &Etcd, range: VniRange) -> Op {
        match self.vnis.is_empty() {
            true => Op::delete(etcd.keys.taken()),
            false => {
                let text = self.vnis.shortened(range).to_string();
                Op::put(etcd.keys.taken(), text.into_bytes())
            }
        }
    }
}

/// Goes through all links and VNIs for those that are taken.
pub(super) async fn find_all(etcd: &Etcd) -> Result<VniSet, StoreError> {
    let (mut taken, mut failure) = (VniSet::default(), None);
    let mut reader = Reader::new(etcd);
    let see = |kv: KeyValue| match vni(etcd, &kv) {
        Ok(vni) => taken.insert(vni),
        Err(error) => failure = Some(error),
    };
    reader.all_below(&etcd.keys.links(), see).await?;
    for_all(etcd, &mut reader, |vni, number| {
        // The others are those of the links.
        if number.ended {
            taken.insert(vni);
        }
    })
    .await?;
    failure.map_or(Ok(taken), Err)
}

/// VNIs whose keys were read, with the revisions of the keys.
#[derive(Default)]
pub(super) struct Numbers {
    found: BTreeMap<Vni, (Option<TakenVni>, i64)>,
}

impl Numbers {
    /// Reads the keys of more VNIs.
    pub(super) async fn load(
        &mut self,
        reader: &mut Reader<'_>,
        vnis: BTreeSet<Vni>,
    ) -> Result<(), StoreError> {
        let vnis: Vec<Vni> = vnis
            .into_iter()
            .filter(|vni| !self.found.contains_key(vni))
            .collect();
        let keys = vnis.iter().map(|vni| key(reader.etcd.keys.number(*vni)));
        let found = reader.ranges(keys.collect()).await?;
        for (vni, kvs) in vnis.into_iter().zip(found) {
            let number = match kvs.first() {
                Some(kv) => (Some(parse(reader.etcd, kv)?), kv.mod_revision),
                None => (None, 0),
            };
            self.found.insert(vni, number);
        }
        Ok(())
    }

    /// Whose a VNI is, which was read; none: it has no key.
    pub(super) fn get(&self, vni: Vni) -> Option<&TakenVni> {
        self.found.get(&vni)?.0.as_ref()
    }

    /// The condition that a VNI's key has not changed.
    pub(super) fn unchanged(&self, etcd: &Etcd, vni: Vni) -> Compare {
        let revision = self.found.get(&vni).map_or(0, |(_, revision)| *revision);
        Compare::unchanged(etcd.keys.number(vni), revision)
    }
}

/// Writes a VNI's key.
pub(super) fn write(etcd: &Etcd, vni: Vni, number: Option<&TakenVni>) -> Result<Op, StoreError> {
    let key = etcd.keys.number(vni);
    let Some(number) = number else {
        return Ok(Op::delete(key));
    };
    let body = serde_json::to_vec(number).map_err(|error| {
        StoreError::Broken(format!("VNI {vni} cannot be written as JSON: {error}"))
    })?;
    Ok(Op::put(key, body))
}

/// The operations by which these links have these VNIs no longer, and their conditions. `None`: one
/// of the links has another VNI, or none.
pub(super) async fn end(
    etcd: &Etcd,
    links: &BTreeMap<LinkId, Vni>,
) -> Result<Option<(Vec<Compare>, Vec<Op>)>, StoreError> {
    let mut reader = Reader::new(etcd);
    let keys = [etcd.keys.taken()]
        .into_iter()
        .chain(links.keys().map(|link| etcd.keys.link(*link)));
    let found = reader.ranges(keys.map(key).collect()).await?;
    let mut all = All::load(etcd, &found[0]).await?;
    for (number, kvs) in links.values().zip(&found[1..]) {
        if kvs.first().map(|kv| vni(etcd, kv)).transpose()? != Some(*number) {
            return Ok(None);
        }
    }
    let mut numbers = Numbers::default();
    numbers
        .load(&mut reader, links.values().copied().collect())
        .await?;
    // Older agents write the key of all whenever they change a link's VNI.
    let mut conditions = vec![all.unchanged(etcd)];
    let mut operations = Vec::new();
    for (link, vni) in links {
        operations.push(Op::delete(etcd.keys.link(*link)));
        conditions.push(numbers.unchanged(etcd, *vni));
        let number = numbers.get(*vni);
        if number.is_some_and(|number| number.link != *link) {
            // An older agent has given it twice.
            continue;
        }
        let left = number.cloned().and_then(TakenVni::without_link);
        if left.is_none() {
            all.vnis.remove(*vni);
        }
        if number.is_some() {
            operations.push(write(etcd, *vni, left.as_ref())?);
        }
    }
    operations.push(all.write(etcd, VniRange::AUTOMATIC));
    Ok(Some((conditions, operations)))
}

/// See [`crate::Store::release_vnis`].
pub(super) async fn release(
    etcd: &Etcd,
    node: &NodeName,
    vnis: &BTreeSet<Vni>,
) -> Result<(), StoreError> {
    release_unless(etcd, node, vnis, None).await.map(drop)
}

/// The same, but only if this key is absent. Returns whether it is absent.
pub(super) async fn release_unless(
    etcd: &Etcd,
    node: &NodeName,
    vnis: &BTreeSet<Vni>,
    unless: Option<String>,
) -> Result<bool, StoreError> {
    let vnis: Vec<Vni> = vnis.iter().copied().collect();
    for some in vnis.chunks(TOGETHER) {
        let mut attempts = Attempts::new();
        loop {
            if let Some(unless) = &unless
                && Reader::new(etcd).has(unless).await?
            {
                return Ok(false);
            }
            let guard = unless.clone().map(Compare::absent);
            if release_some(etcd, node, some, guard).await? {
                break;
            }
            attempts.failed(etcd.rpc.url()).await?;
        }
    }
    Ok(true)
}

/// Whether that was done; if not, another agent was faster.
async fn release_some(
    etcd: &Etcd,
    node: &NodeName,
    vnis: &[Vni],
    guard: Option<Compare>,
) -> Result<bool, StoreError> {
    let mut reader = Reader::new(etcd);
    let mut numbers = Numbers::default();
    numbers
        .load(&mut reader, vnis.iter().copied().collect())
        .await?;
    let mut txn = Txn::default();
    let mut freed = Vec::new();
    for vni in vnis {
        let held = numbers
            .get(*vni)
            .filter(|number| number.nodes.contains(node));
        let Some(number) = held.cloned() else {
            continue;
        };
        let left = number.without_node(node);
        if left.is_none() {
            freed.push(*vni);
        }
        txn.compare.push(numbers.unchanged(etcd, *vni));
        txn.success.push(write(etcd, *vni, left.as_ref())?);
    }
    if txn.success.is_empty() {
        return Ok(true);
    }
    txn.compare.extend(guard);
    if !freed.is_empty() {
        let found = reader.ranges(vec![key(etcd.keys.taken())]).await?;
        let mut all = All::load(etcd, &found.concat()).await?;
        freed.into_iter().for_each(|vni| all.vnis.remove(vni));
        txn.compare.push(all.unchanged(etcd));
        txn.success.push(all.write(etcd, VniRange::AUTOMATIC));
    }
    Ok(etcd.rpc.txn(txn).await?.succeeded)
}

/// See [`crate::Store::held_vnis`].
pub(super) async fn held(
    etcd: &Etcd,
    node: &NodeName,
) -> Result<BTreeMap<Vni, LinkId>, StoreError> {
    let mut held = BTreeMap::new();
    for_all(etcd, &mut Reader::new(etcd), |vni, number| {
        if number.nodes.contains(node) {
            held.insert(vni, number.link);
        }
    })
    .await?;
    Ok(held)
}

/// See [`crate::Store::block_vnis`].
pub(super) async fn block(
    etcd: &Etcd,
    node: &NodeName,
    vnis: &BTreeSet<Vni>,
) -> Result<(), StoreError> {
    let mut all = VniSet::default();
    vnis.iter().for_each(|vni| all.insert(*vni));
    let key = etcd.keys.blocked(node);
    let success = vec![match vnis.is_empty() {
        true => Op::delete(key),
        false => Op::put(key, all.to_string().into_bytes()),
    }];
    let compare = Vec::new();
    etcd.rpc.txn(Txn { compare, success }).await.map(drop)
}

/// The VNIs that are of no use on these nodes, each with one such node; `found` is what their keys
/// have.
pub(super) fn blocked(
    etcd: &Etcd,
    nodes: &BTreeSet<NodeName>,
    found: &[Vec<KeyValue>],
) -> Result<BTreeMap<Vni, NodeName>, StoreError> {
    let mut blocked = BTreeMap::new();
    for (node, kvs) in nodes.iter().zip(found) {
        for kv in kvs {
            let set: VniSet = String::from_utf8_lossy(&kv.value)
                .parse()
                .map_err(|error: String| unreadable(etcd, &etcd.keys.blocked(node), &error))?;
            blocked.extend(set.vnis().map(|vni| (vni, node.clone())));
        }
    }
    Ok(blocked)
}

async fn for_all(
    etcd: &Etcd,
    reader: &mut Reader<'_>,
    mut see: impl FnMut(Vni, TakenVni),
) -> Result<(), StoreError> {
    let (prefix, mut failure) = (etcd.keys.numbers(), None);
    let each = |kv: KeyValue| {
        let name = String::from_utf8_lossy(&kv.key).into_owned();
        let number = name
            .strip_prefix(&prefix)
            .and_then(|text| text.parse::<u32>().ok());
        match (
            number.and_then(|number| Vni::try_from(number).ok()),
            parse(etcd, &kv),
        ) {
            (Some(vni), Ok(number)) => see(vni, number),
            (_, Err(error)) => failure = Some(error),
            (None, Ok(_)) => failure = Some(unreadable(etcd, &name, &"its name is no VNI")),
        }
    };
    reader.all_below(&prefix, each).await?;
    failure.map_or(Ok(()), Err)
}

fn parse(etcd: &Etcd, kv: &KeyValue) -> Result<TakenVni, StoreError> {
    serde_json::from_slice(&kv.value)
        .map_err(|error| unreadable(etcd, &String::from_utf8_lossy(&kv.key), &error))
}

/// The VNI in a link's key.
pub(super) fn vni(etcd: &Etcd, kv: &KeyValue) -> Result<Vni, StoreError> {
    let text = String::from_utf8_lossy(&kv.value);
    let number = text.parse::<u32>().map_err(|error| error.to_string());
    number
        .and_then(|number| Vni::try_from(number).map_err(|error| error.to_string()))
        .map_err(|error| unreadable(etcd, &String::from_utf8_lossy(&kv.key), &error))
}
