//! The etcd store keeps the contract, against a real etcd.
#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "these are tests: a panic is how they fail"
)]

mod etcd_server;

use std::sync::Arc;

use async_trait::async_trait;
use ratchet_store::{Store, StoreUrl};
use ratchet_store_contract::{Backend, Shared, contract_tests, helpers::open};

use etcd_server::EtcdServer;

#[async_trait]
impl Backend for EtcdServer {
    async fn open(&self) -> Arc<dyn Store> {
        open(&self.url()).await
    }

    fn describe(&self) -> String {
        self.url().to_string()
    }

    fn leftovers(&self) -> usize {
        let keys = self.keys();
        println!("left: {keys:?}");
        keys.len()
    }
}

impl Shared for EtcdServer {
    fn url(&self) -> StoreUrl {
        EtcdServer::url(self)
    }
}

contract_tests!(EtcdServer::start; records, vnis, nodes, watch, threads, processes);
