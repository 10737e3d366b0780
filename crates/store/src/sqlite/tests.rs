//! What happens only to a file: damage, other programs' files, locks, full disks, replacement.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use ratchet_model::{DeclaredEnd, DeclaredLink, Location};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::time;

use super::*;
use crate::{Change, Interest};

/// Enough for a lock that is free, and short for one that is held.
const SHORT: Duration = Duration::from_millis(150);
const DEADLINE: Duration = Duration::from_secs(5);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn key(name: &str) -> PodKey {
    PodKey::new("default", name).unwrap()
}

fn record(name: &str, peers: &[&str]) -> PodRecord {
    let end =
        |pod: &str, interface: String| DeclaredEnd::bare(key(pod), interface.parse().unwrap());
    let links = peers.iter().map(|peer| {
        DeclaredLink::new(
            end(name, format!("to-{peer}")),
            end(peer, format!("to-{name}")),
        )
    });
    let location = Location {
        node: "node1".parse().unwrap(),
        vtep: "10.0.0.1".parse().unwrap(),
        sandbox: name.parse().unwrap(),
        mtu: 1450.try_into().unwrap(),
        leaving: false,
    };
    PodRecord::new(key(name), Some(location), 1, links.collect())
}

/// A database with some records in it, closed.
fn filled() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ratchet.db");
    block_on(async {
        let store = SqliteStore::open_with(&path, TIMEOUT).await.unwrap();
        for n in 0..200 {
            store
                .publish(&record(&format!("pod{n}"), &["x", "y"]), Publish::New)
                .await
                .unwrap();
        }
    });
    closed(&path);
    (directory, path)
}

/// Waits until the store's thread has closed the file, as it does when the store is dropped.
fn closed(path: &Path) {
    let begun = Instant::now();
    while open_files()
        .iter()
        .any(|open| open.starts_with(path.parent().unwrap()))
    {
        assert!(
            begun.elapsed() < DEADLINE,
            "the store's thread has not ended"
        );
        thread::yield_now();
    }
}

fn open_files() -> Vec<PathBuf> {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .collect()
}

fn refused(path: &Path) -> StoreError {
    let error = block_on(SqliteStore::open_with(path, SHORT))
        .err()
        .expect("it must be refused");
    assert!(
        error
            .to_string()
            .contains(&format!("sqlite:{}", path.display())),
        "{error}"
    );
    error
}

fn assert_broken(error: &StoreError, expected: &[&str]) {
    assert!(matches!(error, StoreError::Broken(_)), "{error:?}");
    for part in expected {
        assert!(
            error.to_string().contains(part),
            "{error} should contain {part:?}"
        );
    }
}

#[test]
fn garbage_is_refused() {
    let (_directory, path) = filled();
    fs::write(
        &path,
        "this was a database once, and is a text now\n".repeat(400),
    )
    .unwrap();
    assert_broken(&refused(&path), &["not a database", "mv "]);
}

#[test]
fn a_damaged_page_is_found_when_the_file_is_opened() {
    let (_directory, path) = filled();
    let mut bytes = fs::read(&path).unwrap();
    let pages = 4096 * 2..bytes.len();
    bytes[pages].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    assert_broken(&refused(&path), &["damaged", "mv "]);
}

#[test]
fn a_truncated_file_is_refused() {
    for kept in [4096 * 3, 4096 + 17, 60] {
        let (_directory, path) = filled();
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(kept)
            .unwrap();
        let error = refused(&path);
        assert!(matches!(error, StoreError::Broken(_)), "{kept}: {error:?}");
    }
}

#[test]
fn damage_while_it_is_open_is_an_error_and_ends_when_the_file_is_moved_away() {
    let (_directory, path) = filled();
    block_on(async {
        let store = SqliteStore::open_with(&path, TIMEOUT).await.unwrap();
        // A change by another connection makes the store drop the pages that it keeps in memory.
        Connection::open(&path)
            .unwrap()
            .execute("DELETE FROM pods WHERE pod = 'default/pod0'", [])
            .unwrap();
        let size = fs::metadata(&path).unwrap().len();
        fs::write(&path, vec![0x5a; usize::try_from(size).unwrap()]).unwrap();
        let error = store.read(&[key("pod1")].into()).await.unwrap_err();
        assert_broken(&error, &["mv "]);
        fs::rename(&path, path.with_extension("bad")).unwrap();
        store
            .publish(&record("a", &[]), Publish::New)
            .await
            .unwrap();
        assert_eq!(
            store.read(&[key("a")].into()).await.unwrap().records.len(),
            1
        );
    });
}

#[test]
fn a_record_that_cannot_be_understood_is_named() {
    let (_directory, path) = filled();
    let connection = Connection::open(&path).unwrap();
    connection
        .execute("UPDATE pods SET body = '{}' WHERE pod = 'default/pod7'", [])
        .unwrap();
    drop(connection);
    block_on(async {
        let store = SqliteStore::open_with(&path, TIMEOUT).await.unwrap();
        assert_broken(
            &store.read(&[key("pod7")].into()).await.unwrap_err(),
            &["default/pod7", "missing field"],
        );
        assert_eq!(
            store
                .read(&[key("pod8")].into())
                .await
                .unwrap()
                .records
                .len(),
            1
        );
    });
}

#[test]
fn paths_that_cannot_be_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let error = refused(directory.path());
    assert!(
        matches!(error, StoreError::Config(_)) && error.to_string().contains("directory"),
        "{error:?}"
    );

    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert_broken(&refused(&file.join("ratchet.db")), &["directory"]);
    assert_broken(&refused(&file.join("below/ratchet.db")), &["directory"]);
}

#[test]
fn directory_and_files_are_made_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("some/where/ratchet.db");
    block_on(async {
        let store = SqliteStore::open_with(&path, TIMEOUT).await.unwrap();
        store
            .publish(&record("a", &[]), Publish::New)
            .await
            .unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        for name in ["ratchet.db", "ratchet.db-wal", "ratchet.db-shm"] {
            assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
        }
    });
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let (_directory, path) = filled();
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 2)
        .unwrap();
    assert_broken(
        &refused(&path),
        &["newer Ratchet", "schema version 2", "knows 1"],
    );
}

#[test]
fn somebody_elses_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    for (name, sql) in [
        ("tables", "CREATE TABLE songs (title)"),
        ("id", "PRAGMA application_id = 7"),
    ] {
        let path = directory.path().join(name);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = fs::read(&path).unwrap();
        assert_broken(&refused(&path), &["not a Ratchet database"]);
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn an_empty_file_becomes_a_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ratchet.db");
    fs::write(&path, "").unwrap();
    block_on(SqliteStore::open_with(&path, TIMEOUT)).unwrap();
    let connection = Connection::open(&path).unwrap();
    let id: i32 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .unwrap();
    assert_eq!(id.to_be_bytes(), *b"Rtch");
}

#[test]
fn a_lock_held_for_too_long_is_an_error_and_no_more() {
    let (_directory, path) = filled();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    block_on(async {
        let store = SqliteStore::open_with(&path, SHORT)
            .await
            .expect("opening needs no write lock");
        let error = store
            .publish(&record("a", &[]), Publish::New)
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(error.to_string().contains("fuser -v"), "{error}");
        store
            .read(&[key("pod1")].into())
            .await
            .expect("reading needs none either");
        other.execute_batch("ROLLBACK").unwrap();
        store
            .publish(&record("a", &[]), Publish::New)
            .await
            .unwrap();
    });
}

#[test]
fn only_one_opens_the_file_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ratchet.db");
    let handle = fs::File::open(directory.path()).unwrap();
    let lock = nix::fcntl::Flock::lock(handle, nix::fcntl::FlockArg::LockExclusive).unwrap();
    assert!(matches!(refused(&path), StoreError::Unavailable(_)));
    drop(lock);
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let path = path.clone();
            thread::spawn(move || {
                block_on(async {
                    let store = SqliteStore::open_with(&path, TIMEOUT).await.unwrap();
                    store
                        .publish(&record(&format!("pod{n}"), &[]), Publish::New)
                        .await
                        .unwrap();
                });
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let count: u32 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM pods", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 8);
}

/// Runs a test on a thread with its own mounts.
fn with_private_mounts(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        eprintln!("skipped: needs root to mount");
        return;
    }
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        mount::<str, _, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)
            .unwrap();
        test();
    });
    thread.join().unwrap();
}

#[test]
fn a_read_only_file_system_is_refused() {
    with_private_mounts(|| {
        let (directory, path) = filled();
        let root = directory.path();
        mount::<_, _, str, str>(Some(root), root, None, MsFlags::MS_BIND, None).unwrap();
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount::<_, _, str, str>(None::<&Path>, root, None, flags, None).unwrap();
        assert_broken(&refused(&path), &["Read-only file system", "read-write"]);
        assert_broken(
            &refused(&root.join("below/ratchet.db")),
            &["Read-only file system", "read-write"],
        );
        nix::mount::umount(root).unwrap();
    });
}

#[test]
fn a_full_disk_is_an_error_and_works_again_when_there_is_room() {
    with_private_mounts(|| {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        mount(
            Some("tmpfs"),
            root,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=1m"),
        )
        .unwrap();
        let (path, ballast) = (root.join("ratchet.db"), root.join("ballast"));
        block_on(async {
            let store = SqliteStore::open_with(&path, TIMEOUT).await.unwrap();
            store
                .publish(&record("a", &[]), Publish::New)
                .await
                .unwrap();
            fs::write(&ballast, vec![0; 1 << 20]).expect_err("it must be full now");
            let many: Vec<String> = (0..1000).map(|n| format!("peer{n}")).collect();
            let many: Vec<&str> = many.iter().map(String::as_str).collect();
            let error = store
                .publish(&record("b", &many), Publish::New)
                .await
                .unwrap_err();
            assert_broken(&error, &["disk is full", "Make room"]);
            let records = store
                .read(&[key("a"), key("b")].into())
                .await
                .unwrap()
                .records;
            assert_eq!(
                records.into_keys().collect::<Vec<_>>(),
                [key("a")],
                "nothing half done"
            );
            fs::remove_file(&ballast).unwrap();
            store
                .publish(&record("b", &many[..10]), Publish::New)
                .await
                .unwrap();
        });
        closed(&path);
        fs::write(root.join("other.db"), "").unwrap();
        fs::write(&ballast, vec![0; 1 << 20]).expect_err("it must be full now");
        assert_broken(&refused(&root.join("other.db")), &["Make room"]);
        nix::mount::umount(root).unwrap();
    });
}

#[test]
fn a_file_that_is_removed_while_in_use_is_made_again() {
    let (_directory, path) = filled();
    block_on(async {
        let (one, two) = (
            SqliteStore::open_with(&path, TIMEOUT).await.unwrap(),
            SqliteStore::open_with(&path, TIMEOUT).await.unwrap(),
        );
        let mut watch = two.watch().await.unwrap();
        assert_eq!(watch.next().await.unwrap(), Change::All);
        fs::remove_file(&path).unwrap();
        one.publish(&record("a", &[]), Publish::New).await.unwrap();
        assert_eq!(
            time::timeout(DEADLINE, watch.next())
                .await
                .unwrap()
                .unwrap(),
            Change::All
        );
        assert_eq!(
            two.read(&[key("a"), key("pod1")].into())
                .await
                .unwrap()
                .records
                .len(),
            1
        );
        watch
            .interest(Interest {
                own: [key("b")].into(),
                ..Interest::default()
            })
            .await
            .unwrap();
        assert_eq!(watch.next().await.unwrap(), Change::Pods([key("b")].into()));
        two.publish(&record("b", &[]), Publish::New).await.unwrap();
        assert_eq!(
            time::timeout(DEADLINE, watch.next())
                .await
                .unwrap()
                .unwrap(),
            Change::Pods([key("b")].into())
        );
        assert_eq!(
            one.read(&[key("a"), key("b")].into())
                .await
                .unwrap()
                .records
                .len(),
            2
        );
    });
}

#[test]
fn a_pod_is_two_rows_a_peer_at_most_and_a_vni_one_and_one_a_holder() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ratchet.db");
    let mut database = Database::new(path, SHORT);
    let connection = database.connection().unwrap();
    let mut writes = |what: &mut dyn FnMut(&mut Connection)| {
        let before = connection.total_changes();
        what(connection);
        connection.total_changes() - before
    };
    let pod = record("a", &["x", "y", "z"]);
    let claims: Vec<VniClaim> = pod.links.iter().map(VniClaim::new).collect();
    let publish = |connection: &mut Connection, how| {
        records::publish(connection, &pod, how).map(drop).unwrap()
    };
    assert_eq!(
        writes(&mut |connection| publish(connection, Publish::New)),
        1 + 3
    );
    assert_eq!(
        writes(&mut |connection| publish(connection, Publish::Again)),
        0
    );
    let node: NodeName = "n1".parse().unwrap();
    let range = VniRange::AUTOMATIC;
    let claim = |connection: &mut Connection| {
        vnis::claim(connection, &node, range, &claims).unwrap();
    };
    assert_eq!(writes(&mut |connection| claim(connection)), 3 + 3);
    assert_eq!(writes(&mut |connection| claim(connection)), 0);
    // A new sandbox of the same pod: its row alone.
    let sandbox: SandboxId = "a-2".parse().unwrap();
    let location = pod.location.clone().map(|location| Location {
        sandbox: sandbox.clone(),
        ..location
    });
    let next = PodRecord {
        location,
        ..pod.clone()
    };
    assert_eq!(
        writes(&mut |connection| assert!(
            records::publish(connection, &next, Publish::New).is_ok()
        )),
        1
    );
    assert_eq!(
        writes(&mut |connection| records::remove_pod(connection, &next.pod, &sandbox).unwrap()),
        1 + 3 + 3
    );
}

#[test]
fn changes_are_seen_within_50_ms() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ratchet.db");
    block_on(async {
        let (one, two) = (
            SqliteStore::open_with(&path, TIMEOUT).await.unwrap(),
            SqliteStore::open_with(&path, TIMEOUT).await.unwrap(),
        );
        let mut watch = two.watch().await.unwrap();
        assert_eq!(watch.next().await.unwrap(), Change::All);
        watch
            .interest(Interest {
                own: [key("a")].into(),
                ..Interest::default()
            })
            .await
            .unwrap();
        watch.next().await.unwrap();
        let mut delays = Vec::new();
        for _ in 0..21 {
            let begun = Instant::now();
            one.publish(&record("a", &[]), Publish::New).await.unwrap();
            watch.next().await.unwrap();
            delays.push(begun.elapsed());
        }
        delays.sort_unstable();
        // The median, since the machine that runs this test may be busy with others.
        assert!(delays[10] < Duration::from_millis(50), "{delays:?}");
    });
}

/// What the release before this one has written, and still uses.
#[test]
fn a_file_without_holders_goes_on_to_be_used() {
    let (_directory, path) = filled();
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("DROP TABLE holders; DROP TABLE blocked")
        .unwrap();
    drop(connection);
    block_on(async {
        let store = SqliteStore::open_with(&path, SHORT).await.unwrap();
        let held = store.held_vnis(&"n1".parse().unwrap()).await.unwrap();
        assert!(held.is_empty());
    });
    let connection = Connection::open(&path).unwrap();
    let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0));
    assert_eq!(version.unwrap(), 1, "older agents open it, too");
}
