//! VNIs: one key for each link, and one key with all numbers that are in use.
//!
//! Every transaction that takes or frees a number has the condition that this one key is unchanged.
//! So no number is given twice, and the lowest free one is known without reading the links. A
//! transaction that takes numbers has a second condition: the records that declare the links are
//! unchanged. Every end of a link changes one of them, so no number is taken for a link that has
//! ended.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use ratchet_model::{LinkId, PodKey, Vni, record::living_links};

use super::{
    Etcd, TXN_OPS,
    attempts::Attempts,
    proto::{Compare, KeyValue, Op, Txn},
    reader::{Reader, View, key, unreadable},
    vni_set::VniSet,
};
use crate::{StoreError, VniClaim, VniGrant};

/// Links that were found to have a VNI that another link's declaration fixes. They are remembered,
/// because the search goes through all links, and the other link asks again at every reconcile.
pub(super) type Holders = BTreeMap<Vni, LinkId>;

/// See [`crate::Store::claim_vnis`].
pub(super) async fn claim(
    etcd: &Etcd,
    holders: &mut Holders,
    claims: &[VniClaim],
) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
    // Links with a fixed VNI come first, so that no other link takes their number.
    let (insisting, others): (Vec<&VniClaim>, Vec<&VniClaim>) =
        claims.iter().partition(|claim| claim.fixed.is_some());
    let claims = [insisting, others].concat();
    let mut rest = claims.as_slice();
    let mut grants = BTreeMap::new();
    let mut declared = Declared::load(etcd, rest).await?;
    let mut attempts = Attempts::new();
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at(declared.fit(rest));
        match claim_batch(etcd, holders, &declared, batch).await? {
            Some(granted) => {
                for (link, grant) in granted {
                    grants.entry(link).or_insert(grant);
                }
                rest = behind;
                attempts = Attempts::new();
            }
            None => {
                attempts.failed(etcd.rpc.url()).await?;
                declared = Declared::load(etcd, rest).await?;
            }
        }
    }
    Ok(grants)
}

/// Which links are declared, and in which records.
struct Declared<'a> {
    view: View<'a>,
    links: BTreeMap<LinkId, BTreeSet<PodKey>>,
}

impl<'a> Declared<'a> {
    async fn load(etcd: &'a Etcd, claims: &[&VniClaim]) -> Result<Self, StoreError> {
        let mut view = View::new(etcd);
        view.load(
            claims
                .iter()
                .flat_map(|claim| &claim.pods)
                .cloned()
                .collect(),
        )
        .await?;
        Ok(Self {
            links: living_links(&view.records),
            view,
        })
    }

    fn declarers(&self, claim: &VniClaim) -> impl Iterator<Item = &PodKey> {
        self.links.get(&claim.link).into_iter().flatten()
    }

    /// How many of these claims fit into one transaction. Two operations and one condition are for
    /// the key of all numbers.
    fn fit(&self, claims: &[&VniClaim]) -> usize {
        let mut pods = BTreeSet::new();
        let fits = |claim: &&&VniClaim| {
            pods.extend(self.declarers(claim));
            pods.len() < TXN_OPS
        };
        claims.iter().take(TXN_OPS - 2).take_while(fits).count()
    }

    /// The conditions that the claims' links are still declared.
    fn unchanged(&self, claims: &[&VniClaim]) -> Vec<Compare> {
        let pods: BTreeSet<&PodKey> = claims
            .iter()
            .flat_map(|claim| self.declarers(claim))
            .collect();
        let revision = |pod: &PodKey| self.view.revisions.get(pod).copied().unwrap_or(0);
        pods.into_iter()
            .map(|pod| Compare::unchanged(self.view.reader.etcd.keys.pod(pod), revision(pod)))
            .collect()
    }
}

/// One transaction that answers these claims. `None`: another agent was faster.
async fn claim_batch(
    etcd: &Etcd,
    holders: &mut Holders,
    declared: &Declared<'_>,
    claims: &[&VniClaim],
) -> Result<Option<BTreeMap<LinkId, VniGrant>>, StoreError> {
    let mut reader = Reader::new(etcd);
    let keys = [etcd.keys.taken()]
        .into_iter()
        .chain(claims.iter().map(|claim| etcd.keys.link(claim.link)));
    let mut found = reader.ranges(keys.map(key).collect()).await?.into_iter();
    let (taken, revision) = taken(etcd, found.next()).await?;

    let mut grants = BTreeMap::new();
    for (claim, kvs) in claims.iter().zip(found) {
        if let Some(vni) = kvs.first().map(|kv| vni(etcd, kv)).transpose()? {
            grants.insert(claim.link, VniGrant::Granted(vni));
        }
    }
    let mut numbers = Numbers {
        taken,
        given: BTreeMap::new(),
    };
    for claim in claims {
        if let Entry::Vacant(entry) = grants.entry(claim.link) {
            entry.insert(match declared.links.contains_key(&claim.link) {
                true => numbers.give(etcd, holders, claim).await?,
                false => VniGrant::NotDeclared,
            });
        }
    }
    if numbers.given.is_empty() {
        return Ok(Some(grants));
    }
    let mut compare = declared.unchanged(claims);
    compare.push(Compare::unchanged(etcd.keys.taken(), revision));
    let success = numbers.operations(etcd);
    let written = etcd.rpc.txn(Txn { compare, success }).await?;
    Ok(written.succeeded.then_some(grants))
}

/// The numbers that a transaction gives.
struct Numbers {
    /// The numbers in use, including the given ones.
    taken: VniSet,
    given: BTreeMap<Vni, LinkId>,
}

impl Numbers {
    /// Gives a declared link without a VNI its number.
    async fn give(
        &mut self,
        etcd: &Etcd,
        holders: &mut Holders,
        claim: &VniClaim,
    ) -> Result<VniGrant, StoreError> {
        let vni = match claim.fixed {
            Some(vni) if self.taken.contains(vni) => {
                let holder = match self.given.get(&vni) {
                    Some(link) => Some(*link),
                    None => holder(etcd, holders, vni).await?,
                };
                match holder {
                    Some(holder) => return Ok(VniGrant::TakenBy(holder)),
                    // No link has it: a link's key was deleted by hand.
                    None => vni,
                }
            }
            Some(vni) => vni,
            None => match self.taken.lowest_free() {
                Some(vni) => vni,
                None => return Ok(VniGrant::Exhausted),
            },
        };
        self.taken.insert(vni);
        self.given.insert(vni, claim.link);
        Ok(VniGrant::Granted(vni))
    }

    /// The operations that write the given numbers.
    fn operations(&self, etcd: &Etcd) -> Vec<Op> {
        let links = self
            .given
            .iter()
            .map(|(vni, link)| Op::put(etcd.keys.link(*link), vni.to_string().into_bytes()));
        let taken = Op::put(etcd.keys.taken(), self.taken.to_string().into_bytes());
        links.chain([taken]).collect()
    }
}

/// The operations that free these VNIs of links, and their condition. `None`: one of the links no
/// longer has its VNI, so the number may belong to another link.
pub(super) async fn release(
    etcd: &Etcd,
    links: &BTreeMap<LinkId, Vni>,
) -> Result<Option<(Compare, Vec<Op>)>, StoreError> {
    let keys = [etcd.keys.taken()]
        .into_iter()
        .chain(links.keys().map(|link| etcd.keys.link(*link)));
    let found = Reader::new(etcd).ranges(keys.map(key).collect()).await?;
    let mut found = found.into_iter();
    let (mut taken, revision) = taken(etcd, found.next()).await?;
    for (number, kvs) in links.values().zip(found) {
        if kvs.first().map(|kv| vni(etcd, kv)).transpose()? != Some(*number) {
            return Ok(None);
        }
        taken.remove(*number);
    }
    let mut ops: Vec<Op> = links
        .keys()
        .map(|link| Op::delete(etcd.keys.link(*link)))
        .collect();
    ops.push(match taken.is_empty() {
        true => Op::delete(etcd.keys.taken()),
        false => Op::put(etcd.keys.taken(), taken.to_string().into_bytes()),
    });
    // Every change of a number writes this key, so the links' keys need no condition.
    Ok(Some((Compare::unchanged(etcd.keys.taken(), revision), ops)))
}

/// The VNI in a link's key.
pub(super) fn vni(etcd: &Etcd, kv: &KeyValue) -> Result<Vni, StoreError> {
    let text = String::from_utf8_lossy(&kv.value);
    let number = text.parse::<u32>().map_err(|error| error.to_string());
    number
        .and_then(|number| Vni::try_from(number).map_err(|error| error.to_string()))
        .map_err(|error| unreadable(etcd, &String::from_utf8_lossy(&kv.key), &error))
}

/// All numbers that are in use, and the revision of their key. If the key was deleted, they are
/// read from the links.
async fn taken(etcd: &Etcd, found: Option<Vec<KeyValue>>) -> Result<(VniSet, i64), StoreError> {
    if let Some(kv) = found.iter().flatten().next() {
        let taken = String::from_utf8_lossy(&kv.value).parse();
        return Ok((
            taken.map_err(|error: String| unreadable(etcd, &etcd.keys.taken(), &error))?,
            kv.mod_revision,
        ));
    }
    let (mut taken, mut failure) = (VniSet::default(), None);
    let see = |kv: KeyValue| match vni(etcd, &kv) {
        Ok(vni) => taken.insert(vni),
        Err(error) => failure = Some(error),
    };
    Reader::new(etcd).all_below(&etcd.keys.links(), see).await?;
    failure.map_or(Ok((taken, 0)), Err)
}

/// The link that has a VNI.
async fn holder(
    etcd: &Etcd,
    holders: &mut Holders,
    wanted: Vni,
) -> Result<Option<LinkId>, StoreError> {
    if let Some(holder) = holders.get(&wanted).copied() {
        let found = Reader::new(etcd)
            .ranges(vec![key(etcd.keys.link(holder))])
            .await?;
        if found
            .iter()
            .flatten()
            .next()
            .map(|kv| vni(etcd, kv))
            .transpose()?
            == Some(wanted)
        {
            return Ok(Some(holder));
        }
    }
    holders.remove(&wanted);
    let prefix = etcd.keys.links();
    let see = |kv: KeyValue| {
        let link = std::str::from_utf8(&kv.key)
            .ok()
            .and_then(|key| key.strip_prefix(&prefix)?.parse().ok());
        if let (Some(link), Ok(true)) = (link, vni(etcd, &kv).map(|vni| vni == wanted)) {
            holders.insert(wanted, link);
        }
    };
    Reader::new(etcd).all_below(&prefix, see).await?;
    Ok(holders.get(&wanted).copied())
}
