//! Which nodes live: leases, in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ratchet_model::NodeName;

/// A node's lease.
#[derive(Debug)]
struct Lease {
    handle: u64,
    /// `None`: for ever.
    timeout: Option<Duration>,
    renewed: Duration,
}

/// Openings of the store, and the leases that hang on them.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// The client of each opening.
    open: BTreeMap<u64, usize>,
    leases: BTreeMap<NodeName, Lease>,
    /// Openings whose lease has ended and that do not know it yet.
    ended: BTreeSet<u64>,
}

impl Presence {
    pub fn open(&mut self, handle: u64, client: usize) {
        self.open.insert(handle, client);
    }

    pub fn close(&mut self, handle: u64) {
        self.open.remove(&handle);
        self.ended.remove(&handle);
    }

    pub fn client(&self, handle: u64) -> Option<usize> {
        self.open.get(&handle).copied()
    }

    pub fn register(
        &mut self,
        node: &NodeName,
        handle: u64,
        timeout: Option<Duration>,
        now: Duration,
    ) {
        let lease = Lease {
            handle,
            timeout,
            renewed: now,
        };
        self.leases.insert(node.clone(), lease);
        self.ended.remove(&handle);
    }

    pub fn deregister(&mut self, node: &NodeName) {
        self.leases.remove(node);
    }

    pub fn is_alive(&self, node: &NodeName) -> bool {
        self.leases.contains_key(node)
    }

    /// The leases of clients for which this holds end; no client: of an agent that has ended.
    pub fn lose(&mut self, is_lost: impl Fn(Option<usize>) -> bool) {
        let open = &self.open;
        let ended = &mut self.ended;
        self.leases.retain(|_, lease| {
            let is_lost = is_lost(open.get(&lease.handle).copied());
            if is_lost {
                ended.insert(lease.handle);
            }
            !is_lost
        });
    }

    /// Renews the leases of clients that are connected, and ends those that were not renewed in
    /// time. Returns the connected openings that find out that theirs has ended.
    pub fn renew(&mut self, now: Duration, is_connected: impl Fn(usize) -> bool) -> BTreeSet<u64> {
        let open = &self.open;
        let connected = |handle: &u64| open.get(handle).is_some_and(|client| is_connected(*client));
        for lease in self.leases.values_mut() {
            if connected(&lease.handle) {
                lease.renewed = now;
            }
        }
        let ended = &mut self.ended;
        self.leases.retain(|_, lease| {
            let is_over = lease
                .timeout
                .is_some_and(|timeout| now.saturating_sub(lease.renewed) > timeout);
            if is_over {
                ended.insert(lease.handle);
            }
            !is_over
        });
        let returned: BTreeSet<u64> = ended.iter().copied().filter(connected).collect();
        self.ended.retain(|handle| !returned.contains(handle));
        returned
    }
}
