//! Whether CNI_NETNS names a network namespace. Nothing here opens or enters it.

use std::path::Path;

use nix::{
    Result,
    sys::statfs::{NSFS_MAGIC, PROC_SUPER_MAGIC, statfs},
};

/// An error if the path does not exist.
pub(crate) fn is_namespace(netns: &str) -> Result<bool> {
    // On procfs before Linux 3.19.
    Ok([NSFS_MAGIC, PROC_SUPER_MAGIC].contains(&statfs(Path::new(netns))?.filesystem_type()))
}
