//! The source filter of the node's namespace.

use std::sync::{MutexGuard, PoisonError};

use ratchet_failpoint as failpoint;
use ratchet_filter::{Filter, FilterError, Found};
use ratchet_model::device::Passage;

use crate::{error::KernelError, kernel::Kernel, netns};

impl Kernel {
    /// What the source filter lets through, and whether it is unchanged.
    ///
    /// # Errors
    /// When the kernel has no nftables or does not answer.
    pub fn filter(&self) -> Result<Found, KernelError> {
        self.with_filter(Filter::observe)
    }

    /// Has the filter let exactly these through, and undoes what others did to it.
    ///
    /// # Errors
    /// When the kernel has no nftables or refuses.
    pub fn set_filter(
        &self,
        passages: impl IntoIterator<Item = Passage>,
    ) -> Result<(), KernelError> {
        self.with_filter(|filter| filter.set(passages))?;
        failpoint::pass("kernel.filter");
        Ok(())
    }

    /// Has the filter let some through, and others no more, in one transaction.
    ///
    /// # Errors
    /// When the kernel has no nftables or refuses.
    pub fn change_filter(&self, permit: &[Passage], forbid: &[Passage]) -> Result<(), KernelError> {
        self.with_filter(|filter| filter.change(permit, forbid))?;
        failpoint::pass("kernel.filter");
        Ok(())
    }

    fn with_filter<T>(
        &self,
        work: impl FnOnce(&mut Filter) -> Result<T, FilterError>,
    ) -> Result<T, KernelError> {
        let mut slot: MutexGuard<'_, Option<Filter>> =
            self.filter.lock().unwrap_or_else(PoisonError::into_inner);
        let filter = match &mut *slot {
            Some(filter) => filter,
            none => {
                let opened = netns::inside(self.node(), || Ok(Filter::open_here()))
                    .map_err(|error| KernelError::io("enter the node's namespace", &error))?;
                none.insert(opened.map_err(refused)?)
            }
        };
        work(filter).map_err(refused)
    }
}

fn refused(error: FilterError) -> KernelError {
    match error {
        FilterError::Unsupported { doing } => KernelError::Unsupported {
            doing,
            feature: "nftables",
            module: "nf_tables",
            config: "CONFIG_NF_TABLES_INET",
        },
        FilterError::Refused {
            doing,
            errno,
            reason,
        } => KernelError::Refused {
            doing,
            errno,
            reason,
        },
    }
}
