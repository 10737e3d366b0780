//! One attachment's files: writes, reads and removes them under the attachment's lock.
//!
//! Takes no lock; a slot is made by [`super::Attachments`].

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use ratchet_cni::Error;

use super::{Appended, Kept, Record, SUFFIXES, failed};

/// One attachment, locked by this call as long as this value lives.
#[derive(Debug)]
pub(crate) struct Slot {
    network: PathBuf,
    dir: PathBuf,
    ifname: String,
    lock: File,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Closing the file does not unlock it: a process that an embedded plugin has left running
        // may have a copy of the descriptor. Unlocking a lock that is held does not fail.
        let _ = self.lock.unlock();
    }
}

impl Slot {
    /// An attachment whose lock is held.
    pub(super) fn new(network: PathBuf, dir: PathBuf, ifname: String, lock: File) -> Self {
        Self {
            network,
            dir,
            ifname,
            lock,
        }
    }

    /// The path of one of the attachment's files.
    pub(super) fn file(&self, suffix: &str) -> PathBuf {
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
                    // Missing or incomplete after a power cut. No sandbox survives that, so there
                    // is nothing to compare it with.
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

    /// Keeps what ADD appended to the result. It has its own file, so that the record, which must
    /// outlive a power cut, is not written again. It does not wait for the disk: what was appended
    /// matters only as long as the sandbox lives.
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

    /// Keeps a record. If that fails (code 5), the record from before stays.
    ///
    /// `durable` is for records that must outlive a power cut: the call waits for the disk, which
    /// takes milliseconds. A pod that is not ours does not need it: its sandbox does not outlive a
    /// power cut either, and a DEL that finds an empty file has the config on stdin. If the process
    /// is killed, nothing is lost in either case.
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
                // A power cut leaves one of the two records, and it is complete. The name is on
                // disk since the first save.
                file.sync_all()?;
                return fs::rename(&temporary, &path);
            }
            // Nothing was done for this attachment yet, so a power cut may leave an empty file with
            // this name. Because the rename comes first, the file and its directories go into one
            // commit of the file system's journal, and only the first sync waits for it.
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

    /// Removes the record and the lock, then the directories if they are empty.
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
