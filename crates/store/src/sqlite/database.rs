//! Opens the database file, safely when several agents do so at once, and notices when it is
//! replaced.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::{AccessFlags, access},
};
use rusqlite::{Connection, OpenFlags};

use super::{error::Failure, schema};
use crate::StoreError;

/// How long to wait for another process's lock.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// The pause between two tries when neither the kernel nor SQLite waits for us.
const RETRY: Duration = Duration::from_millis(5);

/// How many compiled statements to keep: more than this crate has.
const STATEMENTS: usize = 64;

/// A database file and, once it has been opened, a connection with it.
pub(super) struct Database {
    path: PathBuf,
    timeout: Duration,
    open: Option<Open>,
    generation: u64,
}

struct Open {
    connection: Connection,
    /// Device and inode, because the path may name another file later.
    identity: (u64, u64),
}

impl Database {
    /// The file, not opened yet.
    pub(super) fn new(path: PathBuf, timeout: Duration) -> Self {
        Self {
            path,
            timeout,
            open: None,
            generation: 0,
        }
    }

    /// The connection. It is opened if there is none, or if the file was moved or replaced: SQLite
    /// would go on writing to a file without a name, and everything written would be lost.
    pub(super) fn connection(&mut self) -> Result<&mut Connection, Failure> {
        if self
            .open
            .as_ref()
            .is_some_and(|open| identity(&self.path).ok() != Some(open.identity))
        {
            tracing::warn!(path = %self.path.display(), "the store's file has been replaced; \
                                                         opening it again");
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let open = self.open_file()?;
                self.generation += 1;
                open
            }
        };
        Ok(&mut self.open.insert(open).connection)
    }

    /// Counts how often the file was opened. When it has changed, what an older connection returned
    /// is no longer valid.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The write-ahead log. Every commit of any process appends to it.
    pub(super) fn log(&self) -> PathBuf {
        beside(
            &self
                .path
                .canonicalize()
                .unwrap_or_else(|_| self.path.clone()),
            "-wal",
        )
    }

    /// The error for a failure with this file.
    pub(super) fn explain(&self, failure: Failure) -> StoreError {
        failure.explain(&self.path, self.timeout)
    }

    fn open_file(&self) -> Result<Open, Failure> {
        if self.path.is_dir() {
            return Err(Failure::Directory);
        }
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| Failure::File {
                doing: "make its directory",
                error,
            })?;
        let _alone = lock(directory, self.timeout)?;
        create_file(&self.path)?;

        // Before SQLite opens it, so that a replacement in between is noticed at the next use.
        let identity = identity(&self.path).map_err(|error| Failure::File {
            doing: "look at the file",
            error,
        })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        configure(&mut connection, self.timeout)?;
        Ok(Open {
            connection,
            identity,
        })
    }
}

/// Only one process opens the file at a time, because creating it and switching it to write-ahead
/// logging take many steps. The lock is on the directory: the file itself may be replaced, and
/// SQLite's locks are of another kind.
fn lock(directory: &Path, timeout: Duration) -> Result<Flock<File>, Failure> {
    let file = |error| Failure::File {
        doing: "lock its directory",
        error,
    };
    let mut handle = File::open(directory).map_err(file)?;
    let deadline = Instant::now() + timeout;
    loop {
        handle = match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((handle, Errno::EWOULDBLOCK)) if Instant::now() < deadline => handle,
            Err((_, Errno::EWOULDBLOCK)) => return Err(Failure::Locked),
            Err((_, errno)) => return Err(file(errno.into())),
        };
        thread::sleep(RETRY);
    }
}

/// Creates the file, readable only for its owner, if it does not exist. Refuses a file that cannot
/// be written.
///
/// An existing file is **not** opened: closing any descriptor of it would drop all locks that this
/// process holds on it through SQLite (fcntl(2), "Advisory record locking"). The next process that
/// closes the database would then take itself for the last one and delete the log that we use.
fn create_file(path: &Path) -> Result<(), Failure> {
    let unwritable = |error| Failure::File {
        doing: "open it for writing",
        error,
    };
    if path.exists() {
        return access(path, AccessFlags::R_OK | AccessFlags::W_OK)
            .map_err(|errno| unwritable(errno.into()));
    }
    // SQLite would take the log and index of a file that was moved away for this file's. A process
    // that has the old file open keeps the old log and index, too.
    for suffix in ["-wal", "-shm"] {
        match fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::File {
                    doing: "remove the log of an earlier database",
                    error,
                });
            }
            _ => {}
        }
    }
    let made = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    made.map(drop).map_err(unwritable)
}

fn configure(connection: &mut Connection, timeout: Duration) -> Result<(), Failure> {
    connection.busy_timeout(timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    if connection.is_readonly("main")? {
        return Err(Failure::ReadOnly);
    }
    // First, so that a database that is not ours stays as it is.
    schema::prepare(connection)?;
    let finding: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if finding != "ok" {
        return Err(Failure::Damaged(finding));
    }
    write_ahead(connection, timeout)?;
    // Not FULL: a commit survives the death of any process. A power failure may undo the last
    // commits but never damages the file. It also ends all sandboxes and links of the machine, and
    // this store holds no others.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(())
}

/// Write-ahead logging: readers and the writer do not wait for each other, and a commit is one
/// append.
fn write_ahead(connection: &Connection, timeout: Duration) -> Result<(), Failure> {
    // SQLite does not call its busy handler for this switch.
    let deadline = Instant::now() + timeout;
    loop {
        let mode: Result<String, Failure> = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
            .map_err(Failure::Sql);
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => return Err(Failure::Journal(mode)),
            Err(failure) if failure.is_busy() && Instant::now() < deadline => thread::sleep(RETRY),
            Err(failure) => return Err(failure),
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    path.metadata().map(|found| (found.dev(), found.ino()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
