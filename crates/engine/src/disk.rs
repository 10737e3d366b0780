//! Where the engine keeps what must outlive its process: a few small files, each written whole or
//! not at all. What is in them is the business of [`crate::StateDir`].

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ratchet_failpoint as failpoint;

/// The files that hold sandboxes are in this directory.
pub(crate) const SANDBOXES: &str = "sandboxes";

/// Small files by name, where a name is relative and may begin with `sandboxes/`.
pub trait Disk: fmt::Debug + Send + Sync {
    /// The names of the files in `sandboxes/`, without the directory. Removes what a process that
    /// was killed in the middle of a write has left.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn sandboxes(&self) -> io::Result<Vec<String>>;

    /// Whether there is such a file.
    fn exists(&self, name: &str) -> bool;

    /// A file's contents.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Writes a file: when this returns, it is on disk, whole.
    ///
    /// # Errors
    /// When it cannot be written; then the file is what it was before.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Makes an empty file, without waiting for the disk.
    ///
    /// # Errors
    /// When it cannot be made.
    fn touch(&self, name: &str) -> io::Result<()>;

    /// Renames a file. Needs no space. It holds when the process is killed; a power cut may undo
    /// it.
    ///
    /// # Errors
    /// When it is not there or cannot be renamed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When it is not there or cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A real directory, for root only.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Opens a directory, made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        create_private(&path.join(SANDBOXES))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Disk for Directory {
    fn sandboxes(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(SANDBOXES))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(".tmp") {
                fs::remove_file(entry.path())?;
            } else {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn exists(&self, name: &str) -> bool {
        self.at(name).exists()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.at(name))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.at(name);
        let is_new = !path.exists();
        let mut file = tempfile::NamedTempFile::new_in(self.at(SANDBOXES))?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        if is_new {
            failpoint::pass("state.written");
            // Renamed first, file and name go into one commit of the file system's journal. A power
            // cut in between may leave an empty file under the name, but nothing was done yet that
            // it is needed for.
            let file = file.persist(&path).map_err(|e| e.error)?;
            let synced = file
                .sync_all()
                .and_then(|()| path.parent().map_or(Ok(()), sync_dir));
            synced.inspect_err(|_| drop(fs::remove_file(&path)))
        } else {
            // A power cut leaves the old one or the new one, whole; no sandbox outlives it, so
            // either will do.
            file.as_file().sync_all()?;
            failpoint::pass("state.written");
            file.persist(&path).map(drop).map_err(|e| e.error)
        }
    }

    fn touch(&self, name: &str) -> io::Result<()> {
        fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(self.at(name))
            .map(drop)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }
}

/// Makes a directory and its parents; the last one is root's alone.
///
/// # Errors
/// When it cannot be made.
pub fn create_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}
