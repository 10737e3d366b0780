//! The SQLite store keeps the contract.
#![allow(
    clippy::unwrap_used,
    reason = "these are tests: a panic is how they fail"
)]

use std::sync::Arc;

use async_trait::async_trait;
use ratchet_store::{Store, StoreUrl};
use ratchet_store_contract::{Backend, Shared, contract_tests, helpers::open};
use rusqlite::Connection;

struct SqliteFile(tempfile::TempDir);

#[async_trait]
impl Backend for SqliteFile {
    async fn open(&self) -> Arc<dyn Store> {
        open(&self.url()).await
    }

    fn describe(&self) -> String {
        self.url().to_string()
    }

    fn leftovers(&self) -> usize {
        let connection = Connection::open(self.0.path().join("ratchet.db")).unwrap();
        let tables =
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let mut statement = connection.prepare(tables).unwrap();
        let tables: Vec<String> = statement
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(tables.len(), 5, "{tables:?}");
        tables
            .iter()
            .map(|table| {
                connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                    row.get::<_, u32>(0)
                })
            })
            .map(Result::unwrap)
            .sum::<u32>() as usize
    }
}

impl Shared for SqliteFile {
    fn url(&self) -> StoreUrl {
        StoreUrl::Sqlite(self.0.path().join("ratchet.db"))
    }
}

contract_tests!(
    || SqliteFile(tempfile::tempdir().unwrap());
    records, vnis, nodes, watch, threads, processes
);
