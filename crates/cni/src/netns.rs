//! Tells whether CNI_NETNS is the network namespace the plugin itself runs in.
//!
//! Nothing here enters a namespace.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::error::Error;

/// Whether a path names the calling thread's own network namespace. It may have many names.
///
/// A path that leads nowhere is not an error here: DEL comes with such paths. Only metadata is
/// looked at, since opening a stranger's path may block (a FIFO).
pub fn is_own_netns(path: &Path) -> Result<bool, Error> {
    let Ok(theirs) = fs::metadata(path) else {
        return Ok(false);
    };
    let ours = fs::metadata("/proc/thread-self/ns/net").map_err(|error| {
        Error::invalid_netns("cannot tell the plugin's own netns").with_details(error.to_string())
    })?;
    Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_netns_is_known_by_identity() {
        assert_eq!(is_own_netns(Path::new("/proc/self/ns/net")), Ok(true));
        assert_eq!(
            is_own_netns(Path::new(&format!("/proc/{}/ns/net", std::process::id()))),
            Ok(true)
        );
        assert_eq!(is_own_netns(Path::new("/proc/self/ns/mnt")), Ok(false));
        assert_eq!(is_own_netns(Path::new("/nowhere")), Ok(false));
        assert_eq!(is_own_netns(Path::new("/etc/passwd")), Ok(false));
    }
}
