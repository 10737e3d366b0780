//! The engine: the one owner of a node's links.
//!
//! It receives commands (a sandbox comes or goes, a pod's declaration or the store has changed),
//! keeps what must outlive a process on disk, shares facts through the store, and makes the kernel
//! match.
//! It may not serve sockets, read command lines or decide what a label means: that is the agent's
//! and the model's.
//!
//! What it needs of the world comes in through traits, so that the simulation can run a whole
//! cluster of engines without root and without waiting: [`Kernel`], [`Clock`], [`Disk`],
//! [`OpenStore`] and [`Events`].
#![cfg_attr(test, allow(clippy::too_many_lines))]

mod clock;
mod disk;
mod engine;
mod events;
mod kernel;
mod memory;
mod node;
mod retry;
mod sandboxes;
mod session;
mod state;
mod store;
mod task;
#[cfg(test)]
mod testing;
mod wires;

pub use clock::{Clock, SystemClock};
pub use disk::{Directory, Disk, create_private};
pub use engine::{Answer, Command, Commands, Declared, Engine, NewSandbox, Setup, Vitals};
pub use events::{Events, NoEvents};
pub use kernel::Kernel;
pub use node::node_name;
pub use ratchet_store::StoreHealth;
pub use state::{StateDir, boot_id};
pub use store::{OpenStore, open_store};
pub use task::Task;
