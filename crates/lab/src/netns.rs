//! Network namespaces by name, where iproute2 keeps them, and work inside them.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sched::{CloneFlags, setns},
};
use serde::{Deserialize, Serialize};

use crate::{ip, state::LabDir};

/// A namespace's identity while it exists: device and inode on nsfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct NsId {
    dev: u64,
    ino: u64,
}

impl NsId {
    /// The identity of the file at this path; `None` when there is none.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|meta| Self {
            dev: meta.dev(),
            ino: meta.ino(),
        })
    }

    /// The namespace this thread is in.
    pub fn current() -> Option<Self> {
        Self::of(Path::new("/proc/thread-self/ns/net"))
    }
}

/// A namespace of a lab, and how far its creation has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Netns {
    pub name: String,
    /// Set before it is made: from then on a namespace of that name may be the lab's.
    begun: bool,
    /// Set after it was made: from then on only the namespace with this identity is the lab's.
    id: Option<NsId>,
}

impl Netns {
    pub fn planned(name: String) -> Self {
        Self {
            name,
            begun: false,
            id: None,
        }
    }

    /// Where iproute2 keeps it.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Whether a namespace of this name exists, of the lab or not.
    fn exists(&self) -> bool {
        self.path().symlink_metadata().is_ok()
    }

    /// The namespace's identity, if it exists and is the lab's.
    pub fn live(&self) -> Option<NsId> {
        let found = NsId::of(&self.path())?;
        let ours = self.begun && self.id.is_none_or(|id| id == found);
        // Even with a wrong record, the machine's own namespace is never a lab's.
        let of_host =
            NsId::current() == Some(found) || NsId::of(Path::new("/proc/1/ns/net")) == Some(found);
        (ours && !of_host).then_some(found)
    }

    /// Marks it as about to be made. Save the record between this and [`Netns::make`].
    pub fn begin(&mut self) -> Result<()> {
        if self.exists() {
            bail!(
                "the network namespace {0} exists already and is not this lab's: choose another \
                 --name, or remove it with `ip netns del {0}`",
                self.name
            );
        }
        self.begun = true;
        Ok(())
    }

    /// Makes it, with its loopback up.
    pub fn make(&mut self, lab_id: &str) -> Result<()> {
        if let Err(error) = ip::run(&["netns", "add", &self.name], lab_id) {
            // Another process has made it since `begin`: then this lab may not remove it.
            self.begun = !format!("{error:#}").contains("File exists");
            return Err(error);
        }
        self.id = NsId::of(&self.path());
        ip::batch(&self.name, "link set lo up\n", lab_id)
    }

    /// Removes it with everything inside. Does nothing when it does not exist or is not the lab's.
    pub fn remove(&self) -> Result<()> {
        let path = self.path();
        if !self.begun || (self.exists() && self.live().is_none()) {
            return Ok(());
        }
        // As iproute2 does it. EINVAL: nothing is mounted on the file, because `ip netns add` was
        // killed before it mounted the namespace.
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot unmount {}", path.display()));
            }
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Moves the calling thread into the namespace. The thread does not come back, so call this
    /// only in a thread that ends afterwards, or before an exec.
    pub fn enter(&self) -> Result<()> {
        let path = self.path();
        let file = File::open(&path)
            .with_context(|| format!("cannot open the network namespace {}", path.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter {}", path.display()))
    }

    /// Runs `work` in a thread inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_thread(|| {
            self.enter()?;
            work()
        })
    }
}

/// Runs `work` in a new thread. `work` may change the thread's namespaces: no other thread is
/// affected.
pub(crate) fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .spawn_scoped(scope, work)
            .context("cannot start a thread")?;
        thread
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the thread that worked in a namespace panicked")))
    })
}

/// Refuses to remove a lab from inside it: that would end the calling process, too.
pub(crate) fn refuse_inside(dir: &LabDir, spaces: &[&Netns]) -> Result<()> {
    let here = NsId::current();
    if let Some(inside) = spaces
        .iter()
        .find(|netns| netns.live_from_inside() == here && here.is_some())
    {
        bail!(
            "this shell is inside lab '{}', in the network namespace {}: run the command outside \
             of the lab",
            dir.name(),
            inside.name
        );
    }
    Ok(())
}

impl Netns {
    /// As [`Netns::live`], also for a caller that is inside.
    fn live_from_inside(&self) -> Option<NsId> {
        self.id.filter(|&id| NsId::of(&self.path()) == Some(id))
    }
}
