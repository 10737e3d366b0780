//! Claims of VNIs.
//!
//! A transaction that gives VNIs is conditional on the keys of these VNIs and of the links, so no
//! VNI is ever given twice; and on the records that declare the links: each end of a link changes
//! one of these, so no VNI is taken for a link that has ended. The lowest free one is known from
//! the key of all.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, NodeName, PodKey, Vni, VniRange};

use super::{
    Etcd,
    attempts::Attempts,
    declared::Declared,
    numbers::{self, All, Numbers},
    proto::{Compare, KeyValue, Op, Txn},
    reader::{Reader, key},
};
use crate::{
    StoreError, VniClaim, VniGrant,
    vni::{Decision, Owner, TakenVni},
};

/// Links that were found to have a VNI which has no key, because an older agent gave it, and which
/// another link insists on: remembered, since finding one means going through all links, and the
/// other will insist at every reconcile.
pub(super) type Owners = BTreeMap<Vni, LinkId>;

/// See [`crate::Store::claim_vnis`].
pub(super) async fn claim(
    etcd: &Etcd,
    owners: &mut Owners,
    by: (&NodeName, VniRange),
    claims: &[VniClaim],
) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
    // First those that insist, so that a link which takes any number does not take theirs.
    let mut seen = BTreeSet::new();
    let claims = claims.iter().filter(|claim| seen.insert(claim.link));
    let (insisting, others): (Vec<&VniClaim>, Vec<&VniClaim>) =
        claims.partition(|claim| claim.fixed.or(claim.former).is_some());
    let claims = [insisting, others].concat();
    let mut rest = claims.as_slice();
    let mut grants = BTreeMap::new();
    let mut declared = Declared::load(etcd, rest).await?;
    let mut attempts = Attempts::new();
    while !rest.is_empty() {
        let (some, behind) = rest.split_at(declared.fit(rest));
        let mut batch = Batch::load(&declared, owners, by, some).await?;
        let granted = batch.grant()?;
        if batch.write().await? {
            grants.extend(granted);
            rest = behind;
            attempts = Attempts::new();
        } else {
            attempts.failed(etcd.rpc.url()).await?;
            declared = Declared::load(etcd, rest).await?;
        }
    }
    Ok(grants)
}

/// Claims that are dealt with in one transaction.
struct Batch<'a> {
    etcd: &'a Etcd,
    declared: &'a Declared<'a>,
    node: &'a NodeName,
    range: VniRange,
    claims: &'a [&'a VniClaim],
    all: All,
    /// The VNIs that links have, and the revisions of their keys.
    has: BTreeMap<LinkId, (Option<Vni>, i64)>,
    blocked: BTreeMap<Vni, NodeName>,
    numbers: Numbers,
    /// The links that have VNIs without a key.
    owners: BTreeMap<Vni, LinkId>,
    /// Free ones, the lowest last.
    free: Vec<Vni>,
    /// What is to be written.
    writes: BTreeMap<Vni, Option<TakenVni>>,
    taken: BTreeMap<LinkId, Vni>,
    kept: BTreeSet<LinkId>,
}

/// Reading.
impl<'a> Batch<'a> {
    async fn load(
        declared: &'a Declared<'a>,
        owners: &mut Owners,
        (node, range): (&'a NodeName, VniRange),
        claims: &'a [&'a VniClaim],
    ) -> Result<Self, StoreError> {
        let etcd = declared.view.reader.etcd;
        let mut reader = Reader::new(etcd);
        let nodes = declared.nodes(claims).chain([node.clone()]).collect();
        let keys = [etcd.keys.taken()]
            .into_iter()
            .chain(claims.iter().map(|claim| etcd.keys.link(claim.link)))
            .chain(BTreeSet::iter(&nodes).map(|node| etcd.keys.blocked(node)));
        let found = reader.ranges(keys.map(key).collect()).await?;
        let (of_links, of_nodes) = found[1..].split_at(claims.len());
        let has = |(claim, kvs): (&&VniClaim, &Vec<KeyValue>)| {
            let vni = kvs.first().map(|kv| numbers::vni(etcd, kv)).transpose()?;
            Ok((
                claim.link,
                (vni, kvs.first().map_or(0, |kv| kv.mod_revision)),
            ))
        };
        let mut batch = Self {
            etcd,
            declared,
            node,
            range,
            claims,
            all: All::load(etcd, &found[0]).await?,
            has: claims
                .iter()
                .zip(of_links)
                .map(has)
                .collect::<Result<_, StoreError>>()?,
            blocked: numbers::blocked(etcd, &nodes, of_nodes)?,
            numbers: Numbers::default(),
            owners: BTreeMap::new(),
            free: Vec::new(),
            writes: BTreeMap::new(),
            taken: BTreeMap::new(),
            kept: BTreeSet::new(),
        };
        let has = batch.has.values().filter_map(|(vni, _)| *vni);
        let named = claims.iter().flat_map(|claim| [claim.fixed, claim.former]);
        let vnis = has.chain(named.flatten()).collect();
        batch.numbers.load(&mut reader, vnis).await?;
        batch.find_owners(owners).await?;
        batch.find_free(&mut reader).await?;
        Ok(batch)
    }

    /// The VNI that a link has as yet.
    fn had(&self, link: LinkId) -> Option<Vni> {
        self.has.get(&link).and_then(|has| has.0)
    }

    /// Finds the links that have the VNIs which others insist on, where the VNIs have no keys.
    async fn find_owners(&mut self, owners: &mut Owners) -> Result<(), StoreError> {
        for claim in self.claims {
            for vni in [claim.fixed, claim.former].into_iter().flatten() {
                let is_own = self.had(claim.link) == Some(vni);
                let has_key = self.numbers.get(vni).is_some();
                if is_own || has_key || !self.all.vnis.contains(vni) {
                    continue;
                }
                if let Some(owner) = owner(self.etcd, owners, vni).await? {
                    self.owners.insert(vni, owner);
                }
            }
        }
        Ok(())
    }

    /// Finds as many free VNIs as may be needed.
    async fn find_free(&mut self, reader: &mut Reader<'_>) -> Result<(), StoreError> {
        let may_need_one = |claim: &&&VniClaim| {
            let has = self.had(claim.link);
            let keeps = has.is_some_and(|vni| !self.blocked.contains_key(&vni));
            claim.fixed.is_none() && !keeps && self.declared.links.contains_key(&claim.link)
        };
        let needed = self.claims.iter().filter(may_need_one).count();
        // Those that are given to links which insist on them come off.
        let insist = |claim: &&&VniClaim| claim.fixed.or(claim.former).is_some();
        let needed = match needed {
            0 => 0,
            needed => needed + self.claims.iter().filter(insist).count(),
        };
        self.take_free(reader, needed).await?;
        if self.free.len() < needed {
            // What is written of all may say more than is so.
            self.all.vnis = numbers::find_all(self.etcd).await?;
            self.free.clear();
            self.take_free(reader, needed).await?;
        }
        self.free.reverse();
        Ok(())
    }

    async fn take_free(
        &mut self,
        reader: &mut Reader<'_>,
        needed: usize,
    ) -> Result<(), StoreError> {
        let mut from = 0;
        while self.free.len() < needed {
            let mut candidates = BTreeSet::new();
            while self.free.len() + candidates.len() < needed
                && let Some(vni) = self.all.vnis.lowest_free(self.range, from)
            {
                from = vni.number() + 1;
                if !self.blocked.contains_key(&vni) {
                    candidates.insert(vni);
                }
            }
            if candidates.is_empty() {
                break;
            }
            self.numbers.load(reader, candidates.clone()).await?;
            // One that has a key is still held: an older agent has freed it.
            candidates.retain(|vni| self.numbers.get(*vni).is_none());
            self.free.extend(candidates);
        }
        Ok(())
    }
}

/// Granting, and writing.
impl Batch<'_> {
    fn grant(&mut self) -> Result<BTreeMap<LinkId, VniGrant>, StoreError> {
        let mut grants = BTreeMap::new();
        let mut free = std::mem::take(&mut self.free);
        for claim in self.claims {
            let has = self.had(claim.link);
            let is_declared = self.declared.links.contains_key(&claim.link);
            let owner = |vni| Ok::<_, StoreError>(self.owner(vni));
            let lowest = || Ok(next_free(&mut free, &self.writes));
            let decision = Decision::on(claim, has, is_declared, owner, lowest)?;
            let grant = match decision {
                Decision::Refuse(grant) => grant,
                Decision::Keep(vni) => {
                    self.keep(claim.link, vni);
                    VniGrant::Granted(vni)
                }
                Decision::Take(vni) => {
                    self.take(claim.link, vni, has);
                    VniGrant::Granted(vni)
                }
            };
            grants.insert(claim.link, grant);
        }
        Ok(grants)
    }

    fn owner(&self, vni: Vni) -> Owner {
        if let Some(node) = self.blocked.get(&vni) {
            return Owner::Foreign(node.clone());
        }
        match self.number(vni) {
            Some(number) => Owner::Link(number.link),
            None => self
                .owners
                .get(&vni)
                .copied()
                .map_or(Owner::Nothing, Owner::Link),
        }
    }

    /// Whose a VNI is after what is to be written.
    fn number(&self, vni: Vni) -> Option<&TakenVni> {
        match self.writes.get(&vni) {
            Some(number) => number.as_ref(),
            None => self.numbers.get(vni),
        }
    }

    /// The node holds a link's VNI.
    fn keep(&mut self, link: LinkId, vni: Vni) {
        let number = self.number(vni);
        let holds = |number: &TakenVni| {
            number.link == link && !number.ended && number.nodes.contains(self.node)
        };
        if !number.is_some_and(holds) {
            let mut number = number.cloned().unwrap_or(TakenVni::new(link));
            (number.link, number.ended) = (link, false);
            number.nodes.insert(self.node.clone());
            self.writes.insert(vni, Some(number));
            self.kept.insert(link);
        }
    }

    /// A link gets a VNI in place of the one it has.
    fn take(&mut self, link: LinkId, vni: Vni, has: Option<Vni>) {
        if let Some(old) = has {
            let left = self.number(old).cloned().and_then(TakenVni::without_link);
            if left.is_none() {
                self.all.vnis.remove(old);
            }
            self.writes.insert(old, left);
        }
        self.keep(link, vni);
        self.taken.insert(link, vni);
        if self.range.contains(vni) {
            self.all.vnis.insert(vni);
        }
    }

    /// Whether it was written. If not, another agent was faster.
    async fn write(&self) -> Result<bool, StoreError> {
        if self.writes.is_empty() {
            return Ok(true);
        }
        let (etcd, keys) = (self.etcd, &self.etcd.keys);
        let mut txn = Txn::default();
        for (vni, number) in &self.writes {
            txn.compare.push(self.numbers.unchanged(etcd, *vni));
            txn.success
                .push(numbers::write(etcd, *vni, number.as_ref())?);
        }
        for link in &self.kept {
            let revision = self.has.get(link).map_or(0, |has| has.1);
            txn.compare
                .push(Compare::unchanged(keys.link(*link), revision));
        }
        if !self.taken.is_empty() {
            txn.compare.push(self.all.unchanged(etcd));
            txn.success.push(self.all.write(etcd, self.range));
        }
        let mut rests_on = BTreeSet::new();
        for (link, vni) in &self.taken {
            txn.success
                .push(Op::put(keys.link(*link), vni.to_string().into_bytes()));
            rests_on.extend(self.declared.rests_on(*link));
        }
        for pod in rests_on {
            let revision = self.declared.view.revisions.get(pod).copied().unwrap_or(0);
            txn.compare
                .push(Compare::unchanged(keys.pod(pod), revision));
        }
        txn.success.extend(self.touches());
        Ok(etcd.rpc.txn(txn).await?.succeeded)
    }

    /// Makes those who watch the records of links hear that these have other VNIs: the keys of
    /// links that have one are not watched.
    fn touches(&self) -> impl Iterator<Item = Op> {
        let links = self.taken.keys().filter(|link| self.had(**link).is_some());
        let pods: BTreeSet<&PodKey> = links
            .flat_map(|link| self.declared.rests_on(*link))
            .collect();
        pods.into_iter()
            .map(|pod| Op::touch(self.etcd.keys.pod(pod)))
    }
}

/// The next free VNI that was not given meanwhile to a link that insists on it.
fn next_free(free: &mut Vec<Vni>, given: &BTreeMap<Vni, Option<TakenVni>>) -> Option<Vni> {
    while let Some(vni) = free.pop() {
        if !given.contains_key(&vni) {
            return Some(vni);
        }
    }
    None
}

/// The link that has a VNI without a key.
async fn owner(
    etcd: &Etcd,
    owners: &mut Owners,
    wanted: Vni,
) -> Result<Option<LinkId>, StoreError> {
    if let Some(owner) = owners.get(&wanted).copied() {
        let found = Reader::new(etcd)
            .ranges(vec![key(etcd.keys.link(owner))])
            .await?;
        let has = found
            .iter()
            .flatten()
            .next()
            .map(|kv| numbers::vni(etcd, kv));
        if has.transpose()? == Some(wanted) {
            return Ok(Some(owner));
        }
    }
    owners.remove(&wanted);
    let prefix = etcd.keys.links();
    let see = |kv: KeyValue| {
        let link = std::str::from_utf8(&kv.key)
            .ok()
            .and_then(|key| key.strip_prefix(&prefix)?.parse().ok());
        if let (Some(link), Ok(true)) = (link, numbers::vni(etcd, &kv).map(|vni| vni == wanted)) {
            owners.insert(wanted, link);
        }
    };
    Reader::new(etcd).all_below(&prefix, see).await?;
    Ok(owners.get(&wanted).copied())
}
