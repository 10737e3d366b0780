//! Reads many keys as they were at one moment, in few requests.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_model::{PodKey, PodRecord};

use super::{
    Etcd, TXN_OPS,
    keys::after,
    proto::{KeyValue, Op, OpKind, OpResultKind, Range, Txn},
};
use crate::StoreError;

/// The number of keys in one answer, if there may be many.
const PAGE: i64 = 1000;

/// A reader. Everything that it reads is from the moment of its first request.
pub(super) struct Reader<'a> {
    pub etcd: &'a Etcd,
    /// etcd's revision at that moment. 0: nothing was read yet.
    pub revision: i64,
}

/// One key.
pub(super) fn key(key: String) -> Range {
    Range {
        key: key.into_bytes(),
        ..Range::default()
    }
}

/// All keys with this prefix, without their values.
pub(super) fn keys_below(prefix: &str) -> Range {
    Range {
        range_end: after(prefix),
        key: prefix.into(),
        keys_only: true,
        ..Range::default()
    }
}

impl Etcd {
    /// Whether there is a key with this prefix.
    pub(super) async fn any_below(&self, prefix: &str) -> Result<bool, StoreError> {
        Ok(!self
            .rpc
            .range(Range {
                limit: 1,
                ..keys_below(prefix)
            })
            .await?
            .kvs
            .is_empty())
    }
}

impl<'a> Reader<'a> {
    /// A reader that has read nothing yet.
    pub(super) fn new(etcd: &'a Etcd) -> Self {
        Self { etcd, revision: 0 }
    }

    /// Whether there is a key of this name.
    pub(super) async fn has(&mut self, name: &str) -> Result<bool, StoreError> {
        let found = self.ranges(vec![key(name.to_owned())]).await?;
        Ok(!found.concat().is_empty())
    }

    /// Reads ranges, many at a time. Returns the answers in the same order. Ranges whose answers
    /// are too large together are read separately.
    pub(super) async fn ranges(
        &mut self,
        ranges: Vec<Range>,
    ) -> Result<Vec<Vec<KeyValue>>, StoreError> {
        let mut found = Vec::new();
        let mut left = ranges.as_slice();
        let mut most = TXN_OPS;
        while !left.is_empty() {
            let (some, rest) = left.split_at(most.min(left.len()));
            match (self.together(some).await, some) {
                (Ok(answers), _) => found.extend(answers),
                (Err(StoreError::TooLarge(_)), [alone]) => {
                    let mut all = Vec::new();
                    self.pages(alone.clone(), |kv| all.push(kv)).await?;
                    found.push(all);
                }
                (Err(StoreError::TooLarge(_)), _) => {
                    most = some.len() / 2;
                    continue;
                }
                (Err(error), _) => return Err(error),
            }
            left = rest;
        }
        Ok(found)
    }

    /// Reads all ranges at once.
    async fn together(&mut self, ranges: &[Range]) -> Result<Vec<Vec<KeyValue>>, StoreError> {
        let revision = self.revision;
        let ops = ranges.iter().map(|range| {
            Op::from(OpKind::Range(Range {
                revision,
                ..range.clone()
            }))
        });
        let request = Txn {
            success: ops.collect(),
            compare: Vec::new(),
        };
        let answer = self.etcd.rpc.txn(request).await?;
        if self.revision == 0 {
            self.revision = answer.header.map_or(0, |header| header.revision);
        }
        if answer.responses.len() != ranges.len() {
            return Err(StoreError::Broken(format!(
                "store {}: etcd's answer does not fit the request",
                self.etcd.rpc.url()
            )));
        }
        let answers = answer.responses.into_iter();
        Ok(answers
            .map(|result| match result.kind {
                Some(OpResultKind::Range(range)) => range.kvs,
                _ => Vec::new(),
            })
            .collect())
    }

    /// Goes through all keys with this prefix.
    pub(super) async fn all_below(
        &mut self,
        prefix: &str,
        see: impl FnMut(KeyValue),
    ) -> Result<(), StoreError> {
        let range = Range {
            keys_only: false,
            ..keys_below(prefix)
        };
        self.pages(range, see).await
    }

    /// Goes through the keys of a range page by page. If a page is too large, the next ones are
    /// smaller.
    async fn pages(
        &mut self,
        range: Range,
        mut see: impl FnMut(KeyValue),
    ) -> Result<(), StoreError> {
        let mut page = Range {
            limit: PAGE,
            ..range
        };
        loop {
            page.revision = self.revision;
            let answer = match self.etcd.rpc.range(page.clone()).await {
                Err(StoreError::TooLarge(_)) if page.limit > 1 => {
                    page.limit /= 2;
                    continue;
                }
                answer => answer?,
            };
            if self.revision == 0 {
                self.revision = answer.header.map_or(0, |header| header.revision);
            }
            let last = answer.kvs.last().map(|kv| kv.key.clone());
            answer.kvs.into_iter().for_each(&mut see);
            match last {
                Some(last) if answer.more => page.key = [last.as_slice(), b"\0"].concat(),
                _ => return Ok(()),
            }
        }
    }
}

/// Records that were read, with their revisions.
pub(super) struct View<'a> {
    pub reader: Reader<'a>,
    pub records: BTreeMap<PodKey, PodRecord>,
    /// The `mod_revision` of every pod that was looked up. 0: it has no record.
    pub revisions: BTreeMap<PodKey, i64>,
}

impl<'a> View<'a> {
    /// An empty view.
    pub(super) fn new(etcd: &'a Etcd) -> Self {
        Self {
            reader: Reader::new(etcd),
            records: BTreeMap::new(),
            revisions: BTreeMap::new(),
        }
    }

    /// Reads those of these pods' records that were not read yet.
    pub(super) async fn load(&mut self, pods: BTreeSet<PodKey>) -> Result<(), StoreError> {
        let unknown: Vec<PodKey> = pods
            .into_iter()
            .filter(|pod| !self.revisions.contains_key(pod))
            .collect();
        let keys = &self.reader.etcd.keys;
        let found = self
            .reader
            .ranges(unknown.iter().map(|pod| key(keys.pod(pod))).collect())
            .await?;
        for (pod, kvs) in unknown.into_iter().zip(found) {
            let kv = kvs.into_iter().next();
            self.revisions
                .insert(pod.clone(), kv.as_ref().map_or(0, |kv| kv.mod_revision));
            if let Some(kv) = kv {
                let record = serde_json::from_slice(&kv.value).map_err(|error| {
                    let key = String::from_utf8_lossy(&kv.key).into_owned();
                    unreadable(self.reader.etcd, &key, &error)
                })?;
                self.records.insert(pod, record);
            }
        }
        Ok(())
    }

    /// Reads the records that concern these pods: their own, those of the pods that declare a link
    /// with them, and those of their peers. Returns the pods that declare a link with one of them.
    pub(super) async fn load_around(
        &mut self,
        pods: &BTreeSet<PodKey>,
    ) -> Result<BTreeSet<PodKey>, StoreError> {
        let etcd = self.reader.etcd;
        let indexes: Vec<String> = pods.iter().map(|pod| etcd.keys.declarers(pod)).collect();
        let entries = self
            .reader
            .ranges(indexes.iter().map(|prefix| keys_below(prefix)).collect())
            .await?;
        let mut declarers = BTreeSet::new();
        for (prefix, kvs) in indexes.iter().zip(entries) {
            for kv in kvs {
                let key = String::from_utf8_lossy(&kv.key).into_owned();
                let name = key.strip_prefix(prefix).unwrap_or(&key);
                declarers.insert(
                    name.parse()
                        .map_err(|error| unreadable(etcd, &key, &error))?,
                );
            }
        }
        self.load(pods.union(&declarers).cloned().collect()).await?;
        let peers = pods
            .iter()
            .filter_map(|pod| self.records.get(pod))
            .flat_map(PodRecord::peers);
        self.load(peers.cloned().collect()).await?;
        Ok(declarers)
    }
}

/// The error of a key whose value Ratchet did not write.
pub(super) fn unreadable(etcd: &Etcd, key: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Broken(format!(
        "store {}: the key {key} cannot be read: {error}. Delete it (etcdctl del {key}): \
         running agents write it again",
        etcd.rpc.url()
    ))
}
