//! What the engine needs of the kernel: namespaces, devices, the underlay.
//!
//! The real one is [`ratchet_kernel::Kernel`]. The simulation has another one, which can say who
//! receives a frame.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ratchet_kernel::{
    FoundFilter, KernelError, Look, NetnsHandle, NetnsIdentity, Outcome, Underlay, UnderlayError,
};
use ratchet_model::{
    SandboxId,
    device::{At, Interface, Netns, Observed, Passage, Step},
};

/// Where runtimes keep namespaces under a name. Those of processes come after them: a process may
/// end, and a name stays.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// The kernel of one node.
///
/// A sandbox's namespace is worked in between [`Kernel::enter`] and [`Kernel::forget`]; while it is
/// entered, it stays alive.
pub trait Kernel: Send {
    /// The identity of the node's own namespace.
    fn node(&self) -> NetnsIdentity;

    /// The identity of the network namespace at a path.
    ///
    /// # Errors
    /// [`KernelError::NetnsGone`] when nothing is at the path, [`KernelError::NotNetns`] when it is
    /// something else.
    fn identify(&self, path: &Path) -> Result<NetnsIdentity, KernelError>;

    /// Makes the namespace at a path known as a sandbox's. With `expected`, only the namespace with
    /// that identity will do: anything else at the path means that the sandbox's is gone.
    ///
    /// # Errors
    /// As [`Kernel::identify`]; nothing is entered then.
    fn enter(
        &mut self,
        id: &SandboxId,
        path: &Path,
        expected: Option<NetnsIdentity>,
    ) -> Result<NetnsIdentity, KernelError>;

    /// Releases a sandbox's namespace, so that it can die.
    fn forget(&mut self, id: &SandboxId);

    /// Releases all sandboxes' namespaces.
    fn forget_all(&mut self);

    /// Paths of this machine's network namespaces: named ones first, then those of processes. One
    /// namespace may have several paths.
    fn namespaces(&self) -> Vec<PathBuf>;

    /// Reports devices. One that is looked for by name and does not exist is left out. Addresses
    /// and routes are read only of those devices of ours that are to be `detailed`.
    ///
    /// # Errors
    /// When a namespace was not entered or the kernel does not answer.
    fn observe(
        &self,
        looks: &BTreeMap<Netns, Look>,
        detailed: &dyn Fn(&Observed) -> bool,
    ) -> Result<Vec<Observed>, KernelError>;

    /// Reads back devices, in the order asked for; `None` for one that does not exist.
    ///
    /// # Errors
    /// When a namespace was not entered or the kernel does not answer.
    fn interfaces(&self, devices: &[At]) -> Result<Vec<Option<Interface>>, KernelError>;

    /// Executes a plan's steps; one outcome a step. A step that fails keeps the later steps for the
    /// same link and device from being tried.
    fn execute(&self, steps: &[Step]) -> Vec<Outcome>;

    /// What the source filter of the node lets through, and whether it is unchanged.
    ///
    /// # Errors
    /// When the kernel has no nftables or does not answer.
    fn filter(&self) -> Result<FoundFilter, KernelError>;

    /// Has the filter let exactly these through, and undoes what others did to it.
    ///
    /// # Errors
    /// When the kernel has no nftables or refuses; the filter is then as it was.
    fn set_filter(&self, passages: &BTreeSet<Passage>) -> Result<(), KernelError>;

    /// Has the filter let some through, and others no more, at once.
    ///
    /// # Errors
    /// As [`Kernel::set_filter`].
    fn change_filter(&self, permit: &[Passage], forbid: &[Passage]) -> Result<(), KernelError>;

    /// Where this node's tunnels start.
    ///
    /// # Errors
    /// When there is no such interface or address.
    fn underlay(
        &self,
        interface: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Underlay, UnderlayError>;
}

impl Kernel for ratchet_kernel::Kernel {
    fn node(&self) -> NetnsIdentity {
        self.node().identity()
    }

    fn identify(&self, path: &Path) -> Result<NetnsIdentity, KernelError> {
        NetnsHandle::open(path).map(|handle| handle.identity())
    }

    fn enter(
        &mut self,
        id: &SandboxId,
        path: &Path,
        expected: Option<NetnsIdentity>,
    ) -> Result<NetnsIdentity, KernelError> {
        let gone = || KernelError::NetnsGone {
            path: path.to_owned(),
        };
        let handle = NetnsHandle::open(path).map_err(|error| match error {
            // The mount point is left when a namespace is unmounted; it was one when the sandbox
            // was attached.
            KernelError::NotNetns { .. } if expected.is_some() => gone(),
            error => error,
        })?;
        let identity = handle.identity();
        if expected.is_some_and(|expected| expected != identity) {
            return Err(gone());
        }
        self.register(id.clone(), handle);
        Ok(identity)
    }

    fn forget(&mut self, id: &SandboxId) {
        self.forget(id);
    }

    fn forget_all(&mut self) {
        self.forget_all();
    }

    fn namespaces(&self) -> Vec<PathBuf> {
        let named = NAMED.into_iter().flat_map(|dir| entries(Path::new(dir)));
        let processes = entries(Path::new("/proc")).filter(|path| {
            path.file_name().is_some_and(|name| {
                name.to_string_lossy()
                    .bytes()
                    .all(|byte| byte.is_ascii_digit())
            })
        });
        let processes = processes.map(|path| path.join("ns/net"));
        named.chain(processes).collect()
    }

    fn observe(
        &self,
        looks: &BTreeMap<Netns, Look>,
        detailed: &dyn Fn(&Observed) -> bool,
    ) -> Result<Vec<Observed>, KernelError> {
        self.observe(looks, detailed)
    }

    fn interfaces(&self, devices: &[At]) -> Result<Vec<Option<Interface>>, KernelError> {
        self.interfaces(devices)
    }

    fn execute(&self, steps: &[Step]) -> Vec<Outcome> {
        self.execute(steps)
    }

    fn filter(&self) -> Result<FoundFilter, KernelError> {
        self.filter()
    }

    fn set_filter(&self, passages: &BTreeSet<Passage>) -> Result<(), KernelError> {
        self.set_filter(passages.iter().copied())
    }

    fn change_filter(&self, permit: &[Passage], forbid: &[Passage]) -> Result<(), KernelError> {
        self.change_filter(permit, forbid)
    }

    fn underlay(
        &self,
        interface: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Underlay, UnderlayError> {
        self.underlay(interface, address)
    }
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_namespace_is_among_them() {
        let kernel = ratchet_kernel::Kernel::new().unwrap();
        let own = Kernel::node(&kernel);
        let found = kernel.namespaces();
        assert!(
            found
                .iter()
                .filter_map(|path| kernel.identify(path).ok())
                .any(|identity| identity == own)
        );
    }
}
