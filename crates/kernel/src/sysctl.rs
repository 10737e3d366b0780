//! The one setting of a namespace that Ratchet changes: `disable_ipv6` of its own devices.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::netns::{NetnsHandle, inside};

/// Where the agent's pod has the host's /proc/sys/net (deploy/base/agent.yaml).
const HOST: &str = "/host";

/// Clears `disable_ipv6` of devices where it is set. Container runtimes set it by default in
/// namespaces without IPv6 of their own; the kernel then refuses every IPv6 address (EACCES).
pub(crate) fn enable_ipv6(netns: &NetnsHandle, names: &[&str]) -> io::Result<()> {
    inside(netns, || {
        for name in names {
            let path = path(name);
            if fs::read(&path)?.starts_with(b"1") {
                write(&path)?;
            }
        }
        Ok(())
    })
}

/// In a container, /proc/sys is read-only, and the agent's pod has another mount of it.
fn write(path: &Path) -> io::Result<()> {
    match fs::write(path, "0") {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            let below_root = path.strip_prefix("/").unwrap_or(path);
            // The first error says more if there is no such mount.
            fs::write(Path::new(HOST).join(below_root), "0").map_err(|_| error)
        }
        written => written,
    }
}

/// As a path, not as a sysctl name: an interface's name may contain dots.
fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv6/conf")
        .join(name)
        .join("disable_ipv6")
}
