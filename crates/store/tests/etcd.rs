//! The etcd store keeps the contract, against a real etcd.
#![allow(
    clippy::unwrap_used,
    reason = "these are tests: a panic is how they fail"
)]

mod contract;
mod etcd_server;

use ratchet_store::StoreUrl;

use etcd_server::EtcdServer;

impl contract::Backend for EtcdServer {
    fn url(&self) -> StoreUrl {
        EtcdServer::url(self)
    }

    fn leftovers(&self) -> usize {
        let keys = self.keys();
        println!("left: {keys:?}");
        keys.len()
    }
}

contract_tests!(EtcdServer::start);
