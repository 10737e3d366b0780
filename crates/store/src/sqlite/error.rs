//! Failures of a database file, with what to do about them.

use std::{io, path::Path, time::Duration};

use ratchet_model::PodKey;
use rusqlite::ffi::{self, ErrorCode};

use super::schema;
use crate::StoreError;

/// A failure without its explanation.
#[derive(Debug)]
pub(super) enum Failure {
    /// An error of SQLite.
    Sql(rusqlite::Error),
    /// A file operation around the database.
    File {
        doing: &'static str,
        error: io::Error,
    },
    /// The path is a directory.
    Directory,
    /// It could only be opened for reading.
    ReadOnly,
    /// A database of another program.
    Foreign,
    /// A Ratchet database with this unknown schema version.
    Version(i32),
    /// SQLite's own check found this damage.
    Damaged(String),
    /// The file system cannot do write-ahead logging; SQLite remains in this journal mode.
    Journal(String),
    /// A row that does not hold what Ratchet writes.
    Row { what: String, why: String },
    /// Other processes had it locked for too long.
    Locked,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Sql(error)
    }
}

impl Failure {
    /// A record that cannot be parsed.
    pub(super) fn record(pod: &PodKey, error: &serde_json::Error) -> Self {
        Failure::Row {
            what: format!("the record of pod {pod}"),
            why: error.to_string(),
        }
    }

    /// Whether waiting may help.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Failure::Sql(error)
        if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            ))
    }

    /// The error for people: which file, what is wrong, what to do.
    pub(super) fn explain(self, path: &Path, timeout: Duration) -> StoreError {
        let busy = self.is_busy();
        let path = path.display();
        let broken = |text: String| StoreError::Broken(format!("store sqlite:{path}: {text}"));
        let renew = format!("Move it away (mv {path} {path}.bad): running agents write a new one");
        match self {
            Failure::Locked => locked(&path, timeout),
            Failure::Sql(_) if busy => locked(&path, timeout),
            Failure::Sql(error) => explain_sql(&path, &renew, &error),
            Failure::File { doing, error } => {
                broken(format!("cannot {doing}: {error}. {}", file_advice(&error)))
            }
            Failure::Directory => StoreError::Config(format!(
                "store sqlite:{path}: this is a directory. Name a file in it, such as \
                 sqlite:{path}/ratchet.db"
            )),
            Failure::ReadOnly => broken(
                "the file can only be read. Give the agent write permission to it and its \
                directory, or mount the file \
                 system read-write"
                    .into(),
            ),
            Failure::Foreign => broken(
                "this is not a Ratchet database. Name another file in the \
                                        key `store`"
                    .into(),
            ),
            Failure::Version(version) if version > schema::VERSION => broken(format!(
                "written by a newer Ratchet (schema version {version}, this one knows {}). Update \
                Ratchet on this host, \
                 or name another file in the key `store`",
                schema::VERSION
            )),
            Failure::Version(version) => broken(format!(
                "unknown schema version {version}. \
                                                         {renew}"
            )),
            Failure::Damaged(finding) => {
                broken(format!("the file is damaged ({finding}). {renew}"))
            }
            Failure::Journal(mode) => broken(format!(
                "the file system cannot share memory between processes (journal mode remains \
                {mode}). Put the file on a \
                 local file system"
            )),
            Failure::Row { what, why } => broken(format!("{what} cannot be read: {why}. {renew}")),
        }
    }
}

fn locked(path: &dyn std::fmt::Display, timeout: Duration) -> StoreError {
    StoreError::Unavailable(format!(
        "store sqlite:{path}: another process has kept it locked for {} s. See which one: fuser -v \
         {path}",
        timeout.as_secs_f32()
    ))
}

fn file_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "Run the agent as root, or let it write there",
        io::ErrorKind::ReadOnlyFilesystem => {
            "Mount the file system read-write, or name another file in the key `store`"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Make room there",
        io::ErrorKind::NotADirectory => {
            "A part of the path is a file: name another path in the key `store`"
        }
        _ => "Check the path in the key `store`",
    }
}

fn explain_sql(path: &dyn std::fmt::Display, renew: &str, error: &rusqlite::Error) -> StoreError {
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            format!("this is not a database, or its first bytes are damaged. {renew}")
        }
        Some(ErrorCode::DatabaseCorrupt) => format!("the file is damaged. {renew}"),
        Some(ErrorCode::DiskFull) => "the disk is full. Make room on its file system".into(),
        Some(ErrorCode::ReadOnly) => {
            "it cannot be written. Give the agent write permission to the file and its directory, \
                                      or mount the file system read-write"
                .into()
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "it cannot be opened. Let the agent read and write the file and its directory".into()
        }
        Some(ErrorCode::SystemIoFailure) => {
            format!(
                "input/output error {}. Look for disk errors in dmesg",
                extended(error)
            )
        }
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => {
            format!("its tables contradict each other. {renew}")
        }
        _ => "SQLite cannot do what was asked".into(),
    };
    StoreError::Broken(format!("store sqlite:{path}: {advice} (SQLite: {error})"))
}

fn extended(error: &rusqlite::Error) -> i32 {
    error
        .sqlite_error()
        .map_or(ffi::SQLITE_IOERR, |error| error.extended_code)
}
