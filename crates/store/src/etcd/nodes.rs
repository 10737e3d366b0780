//! Nodes: which have records, and which of them are alive.
//!
//! A node with records has a key that says so, and a second key with a lease of its agent. If the
//! second is missing, the agent has given no sign of life for `node_timeout`, and its pods may be
//! removed. Two counts show whether there is such a node; their answers are short in a cluster of
//! any size.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ratchet_model::NodeName;
use tokio::{sync, task::JoinHandle, time};

use super::{
    Etcd, numbers,
    proto::{Compare, Grant, KeyValue, Lease, Op, OpKind, OpResultKind, Put, Range, Txn},
    reader::{Reader, key, keys_below},
    records,
};
use crate::{NodeRemoval, RemovalReason, StoreError};

/// How many times a lease is renewed before it could end.
const RENEWALS: u32 = 6;
const RENEWAL_MAX: Duration = Duration::from_secs(60);

/// This node's registration, which is kept up.
#[derive(Default)]
pub(super) struct Presence {
    registered: sync::Mutex<Option<Registered>>,
    /// Counts the leases that etcd has ended.
    lapsed: Arc<sync::watch::Sender<u64>>,
}

struct Registered {
    node: NodeName,
    timeout: Option<Duration>,
    /// 0: the node never counts as lost.
    lease: i64,
    keeper: Option<JoinHandle<()>>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

impl Presence {
    /// Changes when a lease has ended.
    pub(super) fn lapsed(&self) -> sync::watch::Receiver<u64> {
        self.lapsed.subscribe()
    }

    /// See [`crate::Store::register_node`].
    pub(super) async fn register_node(
        &self,
        etcd: &Arc<Etcd>,
        node: &NodeName,
        timeout: Option<Duration>,
    ) -> Result<(), StoreError> {
        let mut registered = self.registered.lock().await;
        if let Some(registered) = &*registered
            && (&registered.node, registered.timeout) == (node, timeout)
            && is_there(etcd, node, registered.lease).await?
        {
            return Ok(());
        }
        let lease = match timeout {
            None => 0,
            Some(timeout) => {
                let ttl = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX).max(1);
                etcd.rpc.grant(Grant { ttl }).await?.id
            }
        };
        let alive = Put {
            key: etcd.keys.alive(node).into_bytes(),
            lease,
            ..Put::default()
        };
        let success = vec![
            Op::put(etcd.keys.node(node), Vec::new()),
            OpKind::Put(alive).into(),
        ];
        etcd.rpc
            .txn(Txn {
                compare: Vec::new(),
                success,
            })
            .await?;
        let keeper = timeout
            .map(|timeout| tokio::spawn(keep(etcd.clone(), lease, timeout, self.lapsed.clone())));
        let before = registered.replace(Registered {
            node: node.clone(),
            timeout,
            lease,
            keeper,
        });
        end_lease(etcd, before).await;
        Ok(())
    }

    /// See [`crate::Store::deregister_node`].
    pub(super) async fn deregister_node(
        &self,
        etcd: &Etcd,
        node: &NodeName,
    ) -> Result<(), StoreError> {
        let mut registered = self.registered.lock().await;
        forget_unless(etcd, node, None).await?;
        end_lease(etcd, registered.take()).await;
        Ok(())
    }
}

/// Ends a lease without keys. If this fails, the lease ends by itself.
async fn end_lease(etcd: &Etcd, registered: Option<Registered>) {
    if let Some(lease) = registered
        .map(|registered| registered.lease)
        .filter(|lease| *lease != 0)
    {
        let _ended = etcd.rpc.revoke(Lease { id: lease }).await;
    }
}

/// Renews a lease until it has ended.
async fn keep(
    etcd: Arc<Etcd>,
    lease: i64,
    timeout: Duration,
    lapsed: Arc<sync::watch::Sender<u64>>,
) {
    loop {
        time::sleep((timeout / RENEWALS).min(RENEWAL_MAX)).await;
        match etcd.rpc.keep_alive(Lease { id: lease }).await {
            Ok(kept) if kept.ttl <= 0 => {
                tracing::warn!(
                    "etcd has ended this node's lease; registering and publishing again"
                );
                lapsed.send_modify(|count| *count += 1);
                return;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "cannot renew the node's lease; trying again"),
        }
    }
}

/// Whether both of a node's keys are as this agent wrote them.
async fn is_there(etcd: &Etcd, node: &NodeName, lease: i64) -> Result<bool, StoreError> {
    let found = Reader::new(etcd)
        .ranges(vec![key(etcd.keys.node(node)), key(etcd.keys.alive(node))])
        .await?;
    Ok(matches!(&found[..], [node, alive]
            if !node.is_empty() && alive.iter().any(|kv| kv.lease == lease)))
}

/// Deletes a node's keys, but only if this key is absent. Returns whether it is absent.
async fn forget_unless(
    etcd: &Etcd,
    node: &NodeName,
    unless: Option<String>,
) -> Result<bool, StoreError> {
    let compare: Vec<Compare> = unless.map(Compare::absent).into_iter().collect();
    let success = vec![
        Op::delete(etcd.keys.node(node)),
        Op::delete(etcd.keys.alive(node)),
        Op::delete(etcd.keys.blocked(node)),
    ];
    Ok(etcd.rpc.txn(Txn { compare, success }).await?.succeeded)
}

/// See [`crate::Store::lost_nodes`].
pub(super) async fn lost(etcd: &Etcd) -> Result<BTreeSet<NodeName>, StoreError> {
    let count = |prefix: String| {
        Op::from(OpKind::Range(Range {
            count_only: true,
            ..keys_below(&prefix)
        }))
    };
    let success = vec![count(etcd.keys.nodes()), count(etcd.keys.all_alive())];
    let counts = etcd
        .rpc
        .txn(Txn {
            compare: Vec::new(),
            success,
        })
        .await?
        .responses;
    let counts: Vec<i64> = counts
        .into_iter()
        .filter_map(|result| match result.kind? {
            OpResultKind::Range(range) => Some(range.count),
            _ => None,
        })
        .collect();
    if matches!(counts[..], [nodes, alive] if nodes == alive) {
        return Ok(BTreeSet::new());
    }
    let prefixes = [etcd.keys.nodes(), etcd.keys.all_alive()];
    let found = Reader::new(etcd)
        .ranges(prefixes.iter().map(|prefix| keys_below(prefix)).collect())
        .await?;
    let mut names = prefixes
        .iter()
        .zip(&found)
        .map(|(prefix, kvs)| named(prefix, kvs));
    let (nodes, alive) = (
        names.next().unwrap_or_default(),
        names.next().unwrap_or_default(),
    );
    Ok(nodes.difference(&alive).cloned().collect())
}

fn named(prefix: &str, kvs: &[KeyValue]) -> BTreeSet<NodeName> {
    let names = kvs
        .iter()
        .filter_map(|kv| std::str::from_utf8(&kv.key).ok()?.strip_prefix(prefix));
    names.filter_map(|name| name.parse().ok()).collect()
}

/// See [`crate::Store::remove_node`].
pub(super) async fn remove_node(
    etcd: &Etcd,
    node: &NodeName,
    reason: RemovalReason,
) -> Result<NodeRemoval, StoreError> {
    let alive = etcd.keys.alive(node);
    let unless = (!reason.even_if_alive()).then_some(alive);
    if let Some(alive) = &unless
        && Reader::new(etcd).has(alive).await?
    {
        return Ok(NodeRemoval::Alive);
    }
    if reason.releases_vnis() {
        // First what the node does not hear of. If it is alive after all, it does all of that again
        // when it hears that its pods have gone.
        let held = numbers::held(etcd, node).await?.into_keys().collect();
        let released = numbers::release_unless(etcd, node, &held, unless.clone()).await?;
        if !released || !forget_unless(etcd, node, unless.clone()).await? {
            return Ok(NodeRemoval::Alive);
        }
    }
    let mut gone = BTreeSet::new();
    for record in records::located_on(etcd, node).await? {
        let Some(sandbox) = record.sandbox() else {
            continue;
        };
        if !records::remove_pod_unless(etcd, &record.pod, sandbox, unless.clone()).await? {
            return Ok(NodeRemoval::Alive);
        }
        gone.insert(record.pod);
    }
    // Last where nobody repeats it: a node that has its keys is looked for.
    if !reason.releases_vnis() && !forget_unless(etcd, node, unless).await? {
        return Ok(NodeRemoval::Alive);
    }
    Ok(NodeRemoval::Done(gone))
}
