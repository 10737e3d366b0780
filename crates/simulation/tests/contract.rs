//! The store in memory keeps the contract of the real ones.

use std::sync::Arc;

use ratchet_simulation::{clock::VirtualClock, points::Points, store::Shared};
use ratchet_store::Store;
use ratchet_store_contract::Backend;

struct Memory(Shared);

#[async_trait::async_trait]
impl Backend for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        let opened = self.0.open(0, Points::default());
        opened.expect("a store without faults can be opened")
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn leftovers(&self) -> usize {
        let contents = self.0.contents();
        contents.size()
    }
}

fn start() -> Memory {
    Memory(Shared::new(1, VirtualClock::new()))
}

ratchet_store_contract::contract_tests!(start; records, vnis, nodes, watch, threads);
