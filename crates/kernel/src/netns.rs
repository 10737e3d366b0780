//! Handles on network namespaces, and the one way to run something inside of one.
//!
//! No thread that lives on ever changes its namespace: [`inside`] starts a thread for the purpose,
//! which ends there. So nothing has to be restored, and no early return or panic can leave anybody
//! in a wrong place.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
    sync::Arc,
};

use nix::{errno::Errno, libc, sched};

use crate::error::{KernelError, errno_of};

/// `_IO(NSIO, 3)`, include/uapi/linux/nsfs.h: asks a namespace's descriptor for its CLONE_NEW*
/// type.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// What tells one network namespace from every other that lives at the same time: where its inode
/// is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsIdentity {
    /// The device of nsfs.
    pub dev: u64,
    /// The inode there.
    pub inode: u64,
}

/// An open network namespace. It lives at least as long as any handle on it does.
#[derive(Debug, Clone)]
pub struct NetnsHandle {
    fd: Arc<OwnedFd>,
    identity: NetnsIdentity,
}

impl NetnsHandle {
    /// The network namespace at a path, such as /run/netns/NAME or /proc/PID/ns/net.
    ///
    /// # Errors
    /// When nothing is there, or something that is no network namespace.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, KernelError> {
        let path = path.as_ref();
        // O_NONBLOCK: whatever the path names, even a FIFO, opening it must not wait.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path);
        let doing = || format!("open the network namespace {}", path.display());
        let file = match opened {
            Ok(file) => file,
            // ENOTDIR: /proc/PID of a process that is gone, as seen through a path below it.
            Err(error)
                if matches!(
                    errno_of(&error),
                    Errno::ENOENT | Errno::ENOTDIR | Errno::ESRCH
                ) =>
            {
                return Err(KernelError::NetnsGone {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(KernelError::io(doing(), &error)),
        };
        if !is_netns(&file) {
            return Err(KernelError::NotNetns {
                path: path.to_owned(),
            });
        }
        let meta = file
            .metadata()
            .map_err(|error| KernelError::io(doing(), &error))?;
        let identity = NetnsIdentity {
            dev: meta.dev(),
            inode: meta.ino(),
        };
        Ok(Self {
            fd: Arc::new(file.into()),
            identity,
        })
    }

    /// The network namespace of the calling thread.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> Result<Self, KernelError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// What tells it from other namespaces.
    pub fn identity(&self) -> NetnsIdentity {
        self.identity
    }

    /// The descriptor as netlink's IFLA_NET_NS_FD wants it.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for NetnsHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn is_netns(file: &File) -> bool {
    // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours; on a file that is not
    // of nsfs it fails with ENOTTY. The descriptor is open for the whole call.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

/// Runs something in a namespace, on a thread of its own that ends with it.
pub(crate) fn inside<T: Send>(
    netns: &NetnsHandle,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    away(|| {
        sched::setns(netns, sched::CloneFlags::CLONE_NEWNET)?;
        work()
    })?
}

/// Runs the same in several namespaces, one after the other, on one such thread: starting it takes
/// longer than what is done there.
pub(crate) fn inside_each<T: Send>(
    namespaces: &[&NetnsHandle],
    work: impl Fn() -> io::Result<T> + Sync,
) -> io::Result<Vec<io::Result<T>>> {
    away(|| {
        let one = |netns: &&NetnsHandle| {
            sched::setns(netns, sched::CloneFlags::CLONE_NEWNET)?;
            work()
        };
        namespaces.iter().map(one).collect()
    })
}

fn away<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
