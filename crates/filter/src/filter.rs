//! The filter of the namespace in which it was opened.

use std::collections::BTreeSet;

use nix::errno::Errno;
use ratchet_model::device::Passage;

use crate::{
    elements,
    error::{Failure, FilterError},
    messages,
    observe::{self, Observed},
    socket::Channel,
    table::{Change, Table},
};

/// What the kernel has of the filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What it lets through.
    pub passages: BTreeSet<Passage>,
    /// Whether it is unchanged: its table, chains, rules and sets are there as Ratchet makes
    /// them, and no others.
    pub is_whole: bool,
}

/// The source filter of one namespace.
pub struct Filter {
    channel: Channel,
    /// What the kernel was last known to have.
    known: Option<Table>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}

impl Filter {
    /// The filter of the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no nftables.
    pub fn open_here() -> Result<Self, FilterError> {
        let doing = "open an nfnetlink socket";
        let channel =
            Channel::open_here().map_err(|error| FilterError::new(doing, Failure::from(error)))?;
        Ok(Self {
            channel,
            known: None,
        })
    }

    /// Reads the filter.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn observe(&mut self) -> Result<Found, FilterError> {
        let observed = self.look()?;
        let passages = elements::passages(&observed.elements);
        let table = Table::new(passages.iter().copied());
        let is_consistent = table.elements() == observed.elements;
        let is_empty = !observed.is_there;
        let is_whole = is_empty || observed.is_whole && is_consistent;
        self.known = is_whole.then_some(table);
        Ok(Found { passages, is_whole })
    }

    /// Lets exactly these through; undoes what others did to the filter. Without any there is no
    /// table.
    ///
    /// # Errors
    /// When the kernel refuses; the filter is then as it was.
    pub fn set(&mut self, passages: impl IntoIterator<Item = Passage>) -> Result<(), FilterError> {
        let table = Table::new(passages);
        let observed = self.look()?;
        let is_usable = observed.is_whole && !table.is_empty();
        let parts = if is_usable {
            messages::change(&Change::between(&observed.elements, &table.elements()))
        } else if observed.is_there || !table.is_empty() {
            messages::replace(&table)
        } else {
            Vec::new()
        };
        let done = match self.channel.transact(parts) {
            Err(failure) if is_full(&failure) => self.channel.transact(messages::replace(&table)),
            done => done,
        };
        done.map_err(|failure| FilterError::new("write the source filter", failure))?;
        self.known = Some(table);
        Ok(())
    }

    /// Lets these through, and those no more: one transaction, whose cost does not grow with what
    /// else is let through. Where others changed the filter, it is made again.
    ///
    /// # Errors
    /// When the kernel refuses; the filter is then as it was.
    pub fn change(&mut self, permit: &[Passage], forbid: &[Passage]) -> Result<(), FilterError> {
        let mut table = match self.known.take() {
            Some(table) => table,
            None => Table::new(self.observe()?.passages),
        };
        let was_empty = table.is_empty();
        let change = table.change(permit, forbid);
        if change.is_empty() && !was_empty {
            self.known = Some(table);
            return Ok(());
        }
        if was_empty || table.is_empty() {
            return self.set(table.passages().collect::<Vec<_>>());
        }
        match self.channel.transact(messages::change(&change)) {
            Ok(()) => {
                self.known = Some(table);
                Ok(())
            }
            // Not there any more, or not as it was; or a set is full.
            Err(failure) if failure.errno == Errno::ENOENT || is_full(&failure) => {
                self.set(table.passages().collect::<Vec<_>>())
            }
            Err(failure) => Err(FilterError::new("change the source filter", failure)),
        }
    }

    fn look(&mut self) -> Result<Observed, FilterError> {
        observe::observe(&mut self.channel)
            .map_err(|failure| FilterError::new("read the source filter", failure))
    }
}

/// Whether a set has no room for what was to be added (net/netfilter/nf_tables_api.c,
/// `nft_add_set_elem`). Then the table is made again, with larger sets.
fn is_full(failure: &Failure) -> bool {
    failure.errno == Errno::ENFILE
}
