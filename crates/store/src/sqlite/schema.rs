//! The tables of the database file, and whether a file is ours.
//!
//! ```text
//! pods      a row for each record; every write gives it a new `change`, which is never used again
//! declared  which pods declare a link with which: the index for "records that concern this pod"
//! vnis      a row for each link with a VNI
//! holders   a row for each VNI and node that holds it, with the link
//! blocked   VNIs that are of no use for links of a node
//! ```
//!
//! To read it: `sqlite3 /var/lib/ratchet/ratchet.db 'SELECT pod, body FROM pods; SELECT * FROM
//! vnis'`.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::Failure;

/// The version of the tables below: PRAGMA user_version.
pub(super) const VERSION: i32 = 1;

/// PRAGMA application_id: the bytes "Rtch". `file(1)` shows it.
pub(super) const APPLICATION: i32 = i32::from_be_bytes(*b"Rtch");

/// AUTOINCREMENT makes `change` unique for ever: a row that is deleted and written again between
/// two looks of a watch counts as changed. An `INSERT OR REPLACE` assigns a new one.
const VERSION_1: &str = "
    CREATE TABLE pods (
        change INTEGER PRIMARY KEY AUTOINCREMENT,
        pod    TEXT NOT NULL UNIQUE,
        body   TEXT NOT NULL
    ) STRICT;
    CREATE TABLE declared (
        peer     TEXT NOT NULL,
        declarer TEXT NOT NULL,
        PRIMARY KEY (peer, declarer)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE vnis (
        change INTEGER PRIMARY KEY AUTOINCREMENT,
        vni    INTEGER NOT NULL UNIQUE,
        link   TEXT NOT NULL UNIQUE
    ) STRICT;";

/// Tables that came later and that older agents need not know: they leave them alone, and may have
/// the file open. So they are no new version.
const ADDED: &str = "
    CREATE TABLE IF NOT EXISTS holders (
        vni  INTEGER NOT NULL,
        node TEXT NOT NULL,
        link TEXT NOT NULL,
        PRIMARY KEY (vni, node)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS blocked (
        node TEXT NOT NULL,
        vni  INTEGER NOT NULL,
        PRIMARY KEY (node, vni)
    ) STRICT, WITHOUT ROWID;";

/// What a file is.
enum Kind {
    Empty,
    Ours(i32),
    Foreign,
}

/// Creates the tables in an empty database, updates older ones, and refuses what is not ours.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), Failure> {
    if let Kind::Ours(VERSION) = kind(connection)?
        && is_complete(connection)?
    {
        return Ok(());
    }
    // Again within the transaction: another process may have been faster.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match kind(&transaction)? {
        Kind::Foreign => return Err(Failure::Foreign),
        Kind::Empty => create(&transaction)?,
        Kind::Ours(VERSION) => transaction.execute_batch(ADDED)?,
        // Version 1 is the first: an older one does not exist. Migrations go here, one step a
        // version.
        Kind::Ours(version) => return Err(Failure::Version(version)),
    }
    Ok(transaction.commit()?)
}

fn kind(connection: &Connection) -> Result<Kind, Failure> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(
        match (number("application_id")?, number("user_version")?, tables) {
            (0, 0, 0) => Kind::Empty,
            (APPLICATION, version, _) => Kind::Ours(version),
            _ => Kind::Foreign,
        },
    )
}

/// Whether the tables that came later are there.
fn is_complete(connection: &Connection) -> Result<bool, Failure> {
    let count = "SELECT count(*) FROM sqlite_schema WHERE name IN ('holders', 'blocked')";
    let tables: i64 = connection.query_row(count, [], |row| row.get(0))?;
    Ok(tables == 2)
}

fn create(transaction: &Transaction<'_>) -> Result<(), Failure> {
    transaction.execute_batch(VERSION_1)?;
    transaction.execute_batch(ADDED)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    Ok(transaction.pragma_update(None, "user_version", VERSION)?)
}
