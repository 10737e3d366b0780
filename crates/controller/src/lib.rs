//! The controller: from pods and Topologies to Links with pods, nodes, VTEPs and VNIs.
//!
//! [`plan()`] is a pure function from what the API has to what is to be written; whether a link
//! can be made is the word of `ratchet_model::resolve`. The rest of the crate reads and writes.
//!
//! Links that are up need no controller. No safety rests on there being one: what must not be
//! given twice, the VNIs, is given by writes that the API refuses to all but one.

mod book;
mod cables;
mod changes;
mod conditions;
mod config;
mod derived;
mod events;
mod health;
mod lease;
mod memory;
mod meshnet;
mod names;
mod options;
mod plan;
mod pods;
mod quarantine;
mod records;
mod run;
mod snapshot;
mod state;
mod taint;
mod wanted;
mod watch;
mod write;

pub use config::Config;
pub use events::Warning;
pub use memory::{Memory, Orphan};
pub use options::Options;
pub use plan::{Change, FINALIZER, LinkChange, Plan, plan};
pub use run::{lead, run};
pub use snapshot::{Key, Pod, PodState, Snapshot};
pub use taint::TAINT;
