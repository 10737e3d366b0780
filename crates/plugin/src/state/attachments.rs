//! All attachments of a node: the directories, the locks, and the list of what is kept.
//!
//! Reads and writes no record; that is the slot's.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use ratchet_cni::Error;

use super::{Key, SUFFIXES, Slot, failed};

const LOCK_POLL: Duration = Duration::from_millis(5);
/// How often a directory may vanish while it is made. Behind a dangling link it vanishes each time.
const MAKE_TRIES: u32 = 1000;

/// All attachments of a node.
#[derive(Debug, Clone)]
pub(crate) struct Attachments {
    root: PathBuf,
}

impl Attachments {
    pub fn of(state_dir: &Path) -> Self {
        Self {
            root: state_dir.join("attachments"),
        }
    }

    /// Takes an attachment's lock and makes the directories that are missing. Code 11 if another
    /// call holds the lock until the timeout.
    pub fn claim(&self, key: &Key, timeout: Duration) -> Result<Slot, Error> {
        let until = Instant::now() + timeout;
        loop {
            match self.try_claim(key) {
                Ok(Some(slot)) => return Ok(slot),
                Ok(None) if Instant::now() >= until => {
                    return Err(Error::try_again_later(
                        "another call for this attachment is still running",
                    )
                    .with_details(format!(
                        "container {}, interface {}",
                        key.container_id, key.ifname
                    )));
                }
                Ok(None) => thread::sleep(LOCK_POLL),
                // Another call has made the directory before us and removed it since.
                Err(error)
                    if error.kind() == ErrorKind::AlreadyExists
                        && Instant::now() < until
                        && !self.is_blocked(key) => {}
                Err(error) => {
                    return Err(failed(
                        "lock the attachment's state",
                        &self.dir(key),
                        &error,
                    ));
                }
            }
        }
    }

    /// Whether the attachment's directory, or one above it, is something else than a directory.
    fn is_blocked(&self, key: &Key) -> bool {
        self.dir(key)
            .ancestors()
            .any(|path| fs::metadata(path).is_ok_and(|found| !found.is_dir()))
    }

    /// As [`Attachments::claim`], but `None` if nothing of the attachment is kept. For DEL, which
    /// makes no directories.
    pub fn claim_existing(&self, key: &Key, timeout: Duration) -> Result<Option<Slot>, Error> {
        match fs::metadata(self.dir(key)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            _ => self.claim(key, timeout).map(Some),
        }
    }

    /// Takes the lock if it is free.
    pub fn try_claim(&self, key: &Key) -> io::Result<Option<Slot>> {
        let (network, dir) = (self.root.join(&key.network), self.dir(key));
        let path = dir.join(format!("{}.lock", key.ifname));
        loop {
            let file = open_lock(&path, &dir, &network)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // The call that had the lock may have removed the file: then our lock has no effect.
            let held = file.metadata()?;
            let is_current = fs::metadata(&path)
                .is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino()));
            if is_current {
                // Embedded plugins hold the lock, too: if we are killed, they may still change the
                // kernel, and the next call waits for that.
                fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
                return Ok(Some(Slot::new(network, dir, key.ifname.clone(), file)));
            }
        }
    }

    /// All attachments of a network of which something is kept.
    pub fn list(&self, network: &str) -> Result<Vec<Key>, Error> {
        let root = self.root.join(network);
        let read = || -> io::Result<Vec<Key>> {
            let mut keys = Vec::new();
            for container in names(&root)? {
                for file in names(&root.join(&container))? {
                    let ifname = SUFFIXES
                        .iter()
                        .find_map(|suffix| file.strip_suffix(suffix)?.strip_suffix('.'));
                    // A file with another kind of name is not ours.
                    let key = ifname.and_then(|ifname| Key::new(network, &container, ifname).ok());
                    keys.extend(key.filter(|key| !keys.contains(key)));
                }
            }
            Ok(keys)
        };
        read().map_err(|error| failed("list the attachments", &root, &error))
    }

    fn dir(&self, key: &Key) -> PathBuf {
        self.root.join(&key.network).join(&key.container_id)
    }
}

/// Opens an attachment's lock file and makes it, and its directories, if they are missing.
fn open_lock(path: &Path, dir: &Path, network: &Path) -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    };
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // On a full disk: remove the directories again, unless another call uses them.
        open().inspect_err(|_| drop(fs::remove_dir(dir).and_then(|()| fs::remove_dir(network))))
    };
    let is_missing = |error: &io::Error| error.kind() == ErrorKind::NotFound;
    let mut tries = 0;
    loop {
        match open().or_else(|error| match is_missing(&error) {
            true => make(),
            false => Err(error),
        }) {
            // A DEL has just removed one of the directories.
            Err(error) if is_missing(&error) && tries < MAKE_TRIES => tries += 1,
            file => return file,
        }
    }
}

/// The names in a directory; none if there is no directory (any more).
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}
