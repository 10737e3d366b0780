//! Which of the links that are claimed are declared.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{LinkId, NodeName, PodKey, record::living_links};

use super::{Etcd, TXN_OPS, reader::View};
use crate::{StoreError, VniClaim};

/// Links in one transaction. Each writes at most three keys, on as many conditions, besides those
/// on the records.
const TOGETHER: usize = 30;

/// Which links are declared, and on what that rests.
pub(super) struct Declared<'a> {
    pub view: View<'a>,
    pub links: BTreeMap<LinkId, BTreeSet<PodKey>>,
}

impl<'a> Declared<'a> {
    /// Reads the records of these claims' pods.
    pub(super) async fn load(etcd: &'a Etcd, claims: &[&VniClaim]) -> Result<Self, StoreError> {
        let mut view = View::new(etcd);
        let pods = claims.iter().flat_map(|claim| &claim.pods);
        view.load(pods.cloned().collect()).await?;
        Ok(Self {
            links: living_links(&view.records),
            view,
        })
    }

    /// The pods on whose records it rests that a link is declared.
    pub(super) fn rests_on(&self, link: LinkId) -> impl Iterator<Item = &PodKey> {
        self.links.get(&link).into_iter().flatten()
    }

    /// How many of these claims fit into one transaction.
    pub(super) fn fit(&self, claims: &[&VniClaim]) -> usize {
        let (mut pods, mut count) = (BTreeSet::new(), 0);
        let fits = |claim: &&&VniClaim| {
            pods.extend(self.rests_on(claim.link));
            count += 1;
            count == 1 || pods.len() + 2 * count < TXN_OPS
        };
        claims.iter().take(TOGETHER).take_while(fits).count()
    }

    /// The nodes of the pods of these claims.
    pub(super) fn nodes(&self, claims: &[&VniClaim]) -> impl Iterator<Item = NodeName> {
        let pods = claims.iter().flat_map(|claim| &claim.pods);
        let records = pods.filter_map(|pod| self.view.records.get(pod));
        let located = records.filter_map(|record| record.location.as_ref());
        located.map(|location| location.node.clone())
    }
}
