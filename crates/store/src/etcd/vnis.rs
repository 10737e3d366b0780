//! VNIs: one key a link, and one key that holds all numbers that are taken.
//!
//! Every transaction that takes or frees a number is conditional on that one key, so no number is
//! ever given twice and the lowest free one is known without going through the links. One that
//! takes numbers is conditional on the records that declare their links, too: whatever ends a link
//! changes one of these, so no number is taken for a link that has ended.

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

/// Links that were found to hold a VNI that somebody else insists on: remembered, since finding one
/// means going through all links, and the other will insist at every reconcile.
pub(super) type Holders = BTreeMap<Vni, LinkId>;

/// See [`crate::Store::claim_vnis`].
pub(super) async fn claim(
    etcd: &Etcd,
    holders: &mut Holders,
    claims: &[VniClaim],
) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
    // First those that insist, so that a link which takes any number does not take theirs.
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

/// Which links are declared, and on what that rests.
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

    fn rests_on(&self, claim: &VniClaim) -> impl Iterator<Item = &PodKey> {
        self.links.get(&claim.link).into_iter().flatten()
    }

    /// How many of these claims fit into one transaction: two operations and one condition are for
    /// the key of all numbers.
    fn fit(&self, claims: &[&VniClaim]) -> usize {
        let mut pods = BTreeSet::new();
        let fits = |claim: &&&VniClaim| {
            pods.extend(self.rests_on(claim));
            pods.len() < TXN_OPS
        };
        claims.iter().take(TXN_OPS - 2).take_while(fits).count()
    }

    /// The conditions under which a link goes on being declared.
    fn unchanged(&self, claims: &[&VniClaim]) -> Vec<Compare> {
        let pods: BTreeSet<&PodKey> = claims
            .iter()
            .flat_map(|claim| self.rests_on(claim))
            .collect();
        let revision = |pod: &PodKey| self.view.revisions.get(pod).copied().unwrap_or(0);
        pods.into_iter()
            .map(|pod| Compare::unchanged(self.view.reader.etcd.keys.pod(pod), revision(pod)))
            .collect()
    }
}

/// `None`: somebody else was faster.
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
    let (mut taken, revision) = taken(etcd, found.next()).await?;

    let mut grants = BTreeMap::new();
    for (claim, kvs) in claims.iter().zip(found) {
        if let Some(vni) = kvs.first().map(|kv| vni(etcd, kv)).transpose()? {
            grants.insert(claim.link, VniGrant::Granted(vni));
        }
    }
    let (mut ops, mut given) = (Vec::new(), BTreeMap::new());
    for claim in claims {
        let Entry::Vacant(entry) = grants.entry(claim.link) else {
            continue;
        };
        if !declared.links.contains_key(&claim.link) {
            entry.insert(VniGrant::NotDeclared);
            continue;
        }
        let vni = match claim.fixed {
            Some(vni) if taken.contains(vni) => {
                let holder = match given.get(&vni) {
                    Some(link) => Some(*link),
                    None => holder(etcd, holders, vni).await?,
                };
                if let Some(holder) = holder {
                    entry.insert(VniGrant::TakenBy(holder));
                    continue;
                }
                // Nobody's: somebody has deleted a link's key by hand.
                Some(vni)
            }
            Some(vni) => Some(vni),
            None => taken.lowest_free(),
        };
        entry.insert(match vni {
            Some(vni) => {
                taken.insert(vni);
                given.insert(vni, claim.link);
                ops.push(Op::put(
                    etcd.keys.link(claim.link),
                    vni.to_string().into_bytes(),
                ));
                VniGrant::Granted(vni)
            }
            None => VniGrant::Exhausted,
        });
    }
    if ops.is_empty() {
        return Ok(Some(grants));
    }
    ops.push(Op::put(etcd.keys.taken(), taken.to_string().into_bytes()));
    let mut compare = declared.unchanged(claims);
    compare.push(Compare::unchanged(etcd.keys.taken(), revision));
    Ok(etcd
        .rpc
        .txn(Txn {
            compare,
            success: ops,
        })
        .await?
        .succeeded
        .then_some(grants))
}

/// The operations that free these VNIs of links, and their condition. `None`: one of the links no
/// longer has this VNI, so the number may be another link's.
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
    // Whoever gives or frees a number writes this key, so the links need no condition of their own.
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

/// All numbers that are taken, and the revision of their key. Made from the links when somebody has
/// deleted it.
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
