//! The one setting of a namespace that Ratchet changes: `disable_ipv6` of its own devices.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::netns::{NetnsHandle, inside};

/// Clears `disable_ipv6` of devices where it is set. Container runtimes set it by default in
/// namespaces without IPv6 of their own; the kernel then refuses every IPv6 address (EACCES).
pub(crate) fn enable_ipv6(netns: &NetnsHandle, names: &[&str]) -> io::Result<()> {
    inside(netns, || {
        for name in names {
            let path = path(name);
            if fs::read(&path)?.starts_with(b"1") {
                fs::write(&path, "0")?;
            }
        }
        Ok(())
    })
}

/// As a path, not as a sysctl name: an interface's name may contain dots.
fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv6/conf")
        .join(name)
        .join("disable_ipv6")
}
