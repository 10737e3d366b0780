//! What ADD did, kept on disk for DEL, CHECK and GC: one file an attachment,
//! `STATE_DIR/attachments/NETWORK/CONTAINER/IFNAME.json`, and, once it has succeeded,
//! `IFNAME.appended` beside it.
//!
//! The three parts are directories and names of their own, so that no two attachments share a file.
//! A lock beside the file (`IFNAME.lock`) is held while a call works on the attachment; it dies
//! with the process. Nothing here decides what a call does with the record.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use ratchet_cni::{
    Error, Rendered, validate_container_id, validate_interface_name, validate_network_name,
};
use ratchet_model::device::Interface;
use serde::{Deserialize, Serialize};

/// The longest file name (NAME_MAX, include/uapi/linux/limits.h).
const NAME_MAX: usize = 255;
/// The files of an attachment, in the order in which they go. The lock goes last: as long as it is
/// there, nobody else begins.
const SUFFIXES: [&str; 4] = ["tmp", "appended", "json", "lock"];
const LOCK_POLL: Duration = Duration::from_millis(5);
/// How often a directory may vanish under us; a state directory behind a dangling link vanishes
/// each time.
const MAKE_TRIES: u32 = 1000;

/// In which of its roles ADD ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Not Ratchet's: the delegate alone.
    Delegate,
    /// Ratchet's, behind its boot network.
    Boot,
    /// Ratchet's, behind another plugin of the runtime's list.
    Chained,
}

impl Mode {
    /// Whether the agent was, or was about to be, told of the sandbox.
    pub fn is_ours(self) -> bool {
        !matches!(self, Self::Delegate)
    }
}

/// What is kept of an ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub mode: Mode,
    /// What the embedded plugins were given, which DEL gives them again.
    pub rendered: Rendered,
    /// CNI_ARGS, for DELs of GC, which has none.
    #[serde(default)]
    pub args: String,
    /// CNI_NETNS; for people to read.
    #[serde(default)]
    pub netns: String,
    /// What we appended to the result.
    #[serde(flatten, default)]
    pub appended: Appended,
}

/// What was appended to the embedded plugins' result; for CHECK.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Appended {
    /// Our interfaces.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// The address without interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// CNI's key of an attachment, whose parts are names of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    network: String,
    container_id: String,
    ifname: String,
}

impl Key {
    /// Checks the parts; codes 4 and 7 as for the same checks of the call itself.
    pub fn new(network: &str, container_id: &str, ifname: &str) -> Result<Self, Error> {
        validate_network_name(network)?;
        validate_container_id(container_id)?;
        validate_interface_name(ifname)?;
        if network.len() > NAME_MAX {
            return Err(Error::invalid_config(format!(
                "the network's name is longer than {NAME_MAX} bytes"
            )));
        }
        if container_id.len() > NAME_MAX {
            return Err(Error::invalid_environment(format!(
                "CNI_CONTAINERID is longer than {NAME_MAX} bytes"
            )));
        }
        Ok(Self {
            network: network.into(),
            container_id: container_id.into(),
            ifname: ifname.into(),
        })
    }

    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    pub fn ifname(&self) -> &str {
        &self.ifname
    }
}

/// All attachments of a node.
#[derive(Debug, Clone)]
pub(crate) struct Attachments {
    root: PathBuf,
}

/// One attachment, ours alone as long as this lives.
#[derive(Debug)]
pub(crate) struct Slot {
    network: PathBuf,
    dir: PathBuf,
    ifname: String,
    lock: File,
}

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nothing.
    Nothing,
    /// Something that is no record: why.
    Unreadable(String),
    /// A record.
    Record(Box<Record>),
}

impl Attachments {
    pub fn of(state_dir: &Path) -> Self {
        Self {
            root: state_dir.join("attachments"),
        }
    }

    /// Takes an attachment's lock, making what is missing on the way; code 11 if another call holds
    /// it for so long.
    pub fn claim(&self, key: &Key, timeout: Duration) -> Result<Slot, Error> {
        let until = Instant::now() + timeout;
        loop {
            match self.try_claim(key) {
                Ok(Some(slot)) => return Ok(slot),
                Ok(None) if Instant::now() >= until => {
                    return Err(Error::try_again_later(
                        "another call for this attachment is still at work",
                    )
                    .with_details(format!(
                        "container {}, interface {}",
                        key.container_id, key.ifname
                    )));
                }
                Ok(None) => thread::sleep(LOCK_POLL),
                // Somebody has made the directory before us and removed it since.
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

    /// Whether something that is no directory stands on the way to the attachment's place.
    fn is_blocked(&self, key: &Key) -> bool {
        self.dir(key)
            .ancestors()
            .any(|path| fs::metadata(path).is_ok_and(|found| !found.is_dir()))
    }

    /// As [`Attachments::claim`], but `None` where nothing of the attachment is kept; for DEL,
    /// which makes nothing.
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
        let mut tries = 0;
        loop {
            let open = || {
                OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .open(&path)
            };
            let make = || {
                DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
                // On a full disk: what was just made goes again, unless somebody else uses it.
                open().inspect_err(|_| {
                    drop(fs::remove_dir(&dir).and_then(|()| fs::remove_dir(&network)))
                })
            };
            let is_missing = |error: &io::Error| error.kind() == ErrorKind::NotFound;
            let file = match open().or_else(|error| {
                if is_missing(&error) {
                    make()
                } else {
                    Err(error)
                }
            }) {
                // A DEL has just removed a directory on the way.
                Err(error) if is_missing(&error) && tries < MAKE_TRIES => {
                    tries += 1;
                    continue;
                }
                file => file?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Whoever had the lock may have removed the file: what we hold then locks nothing.
            let held = file.metadata()?;
            let is_current = fs::metadata(&path)
                .is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino()));
            if is_current {
                // Embedded plugins hold it, too: one that is killed with us may still have the
                // kernel do something, and whoever comes next waits for that.
                fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
                return Ok(Some(Slot {
                    network,
                    dir,
                    ifname: key.ifname.clone(),
                    lock: file,
                }));
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
                    // What is not named as we name is not ours.
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

impl Drop for Slot {
    fn drop(&mut self) {
        // Said and not left to the closing: a daemon that an embedded plugin has started may have a
        // copy. It does not fail for a lock that is held.
        let _ = self.lock.unlock();
    }
}

impl Slot {
    fn file(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}.{suffix}", self.ifname))
    }

    /// What is kept.
    pub fn load(&self) -> Kept {
        let path = self.file("json");
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Kept::Nothing,
            Err(error) => Kept::Unreadable(format!("{}: {error}", path.display())),
            Ok(bytes) => match serde_json::from_slice::<Record>(&bytes) {
                Ok(mut record) => {
                    // Missing or torn after a power cut, which no sandbox survives: nobody asks for
                    // it any more.
                    let appended = fs::read(self.file("appended")).ok();
                    if let Some(appended) =
                        appended.and_then(|bytes| serde_json::from_slice(&bytes).ok())
                    {
                        record.appended = appended;
                    }
                    Kept::Record(Box::new(record))
                }
                Err(error) => Kept::Unreadable(format!("{}: {error}", path.display())),
            },
        }
    }

    /// Keeps what ADD appended to the result. In a file of its own, so that the record, which must
    /// outlive a power cut, is not written again; and without waiting for the disk, since this is
    /// of use only as long as the sandbox lives.
    pub fn append(&self, appended: &Appended) -> Result<(), Error> {
        let path = self.file("appended");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(&serde_json::to_vec(appended)?)
        };
        write().map_err(|error| failed("keep the attachment's interfaces", &path, &error))
    }

    /// Keeps a record: all of it or, with code 5, what was there before.
    ///
    /// `durable` is for records that must outlive a power cut: it waits for the disk, which costs
    /// milliseconds. For a pod that is not ours none is needed: its sandbox does not outlive a
    /// power cut either, and a DEL that finds an empty file has the config on stdin. A killed
    /// process loses nothing in either case.
    pub fn save(&self, record: &Record, durable: bool) -> Result<(), Error> {
        let (temporary, path) = (self.file("tmp"), self.file("json"));
        let replaces = path.exists();
        let write = || -> io::Result<()> {
            let bytes = serde_json::to_vec(record)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&bytes)?;
            if !durable {
                return fs::rename(&temporary, &path);
            }
            if replaces {
                // Whichever of the two a power cut leaves, it is whole; that the name is there is
                // on disk since the first.
                file.sync_all()?;
                return fs::rename(&temporary, &path);
            }
            // Nothing was done for this attachment yet: a power cut may leave an empty file under
            // this name. Renamed first, all of it, directories included, goes into one commit of
            // the file system's journal, for which the first of these waits.
            fs::rename(&temporary, &path)?;
            file.sync_all()?;
            File::open(&self.dir)?.sync_all()?;
            File::open(&self.network)?.sync_all()?;
            Ok(())
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            if !replaces {
                let _ = fs::remove_file(&path);
            }
            failed("keep the attachment's state", &path, &error)
        })
    }

    /// Removes the record, the lock, and the directories if they are empty then.
    pub fn remove(self) -> Result<(), Error> {
        for suffix in SUFFIXES {
            let path = self.file(suffix);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(failed("remove the attachment's state", &path, &error));
                }
                _ => {}
            }
        }
        // Directories that others still use are not empty.
        let _ = fs::remove_dir(&self.dir).and_then(|()| fs::remove_dir(&self.network));
        Ok(())
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::io(format!("cannot {what}: {error}")).with_details(format!(
        "path {}; the config's key \"state_dir\" says where, and it must be writable and have \
         space",
        path.display()
    ))
}

#[cfg(test)]
mod tests;
