//! Kernels for tests that need a part of one only.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use ratchet_kernel::{
    FoundFilter, KernelError, Look, NetnsIdentity, Outcome, Underlay, UnderlayError,
};
use ratchet_model::{
    SandboxId,
    device::{At, Interface, Netns, Observed, Passage, Step},
};

use crate::kernel::Kernel;

/// A part of a kernel. Nothing else is asked of it.
pub(crate) trait PartialKernel: Send {
    fn underlay(&self, _: Option<&str>, _: Option<IpAddr>) -> Result<Underlay, UnderlayError> {
        unreachable!("not asked")
    }

    fn filter(&self) -> Result<FoundFilter, KernelError> {
        unreachable!("not asked")
    }

    fn set_filter(&self, _: &BTreeSet<Passage>) -> Result<(), KernelError> {
        unreachable!("not asked")
    }

    fn change_filter(&self, _: &[Passage], _: &[Passage]) -> Result<(), KernelError> {
        unreachable!("not asked")
    }
}

impl<T: PartialKernel> Kernel for T {
    fn underlay(
        &self,
        interface: Option<&str>,
        address: Option<IpAddr>,
    ) -> Result<Underlay, UnderlayError> {
        PartialKernel::underlay(self, interface, address)
    }

    fn filter(&self) -> Result<FoundFilter, KernelError> {
        PartialKernel::filter(self)
    }

    fn set_filter(&self, passages: &BTreeSet<Passage>) -> Result<(), KernelError> {
        PartialKernel::set_filter(self, passages)
    }

    fn change_filter(&self, permit: &[Passage], forbid: &[Passage]) -> Result<(), KernelError> {
        PartialKernel::change_filter(self, permit, forbid)
    }

    fn node(&self) -> NetnsIdentity {
        unreachable!("not asked")
    }

    fn identify(&self, _: &Path) -> Result<NetnsIdentity, KernelError> {
        unreachable!("not asked")
    }

    fn enter(
        &mut self,
        _: &SandboxId,
        _: &Path,
        _: Option<NetnsIdentity>,
    ) -> Result<NetnsIdentity, KernelError> {
        unreachable!("not asked")
    }

    fn forget(&mut self, _: &SandboxId) {}

    fn forget_all(&mut self) {}

    fn namespaces(&self) -> Vec<PathBuf> {
        unreachable!("not asked")
    }

    fn observe(
        &self,
        _: &BTreeMap<Netns, Look>,
        _: &dyn Fn(&Observed) -> bool,
    ) -> Result<Vec<Observed>, KernelError> {
        unreachable!("not asked")
    }

    fn interfaces(&self, _: &[At]) -> Result<Vec<Option<Interface>>, KernelError> {
        unreachable!("not asked")
    }

    fn execute(&self, _: &[Step]) -> Vec<Outcome> {
        unreachable!("not asked")
    }
}
