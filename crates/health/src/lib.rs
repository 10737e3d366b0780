//! Health and metrics of a process over HTTP: `/livez`, `/readyz` and `/metrics`.
//!
//! Agent and controller say how they are ([`Health`]); this crate serves it. Anyone who reaches the
//! port may ask, so nothing here may cost much: connections have a bound in number, by client, in
//! size and in time, and each page is made once a second at most, however often it is asked for.

mod metrics;
mod pages;
mod places;
mod server;

use async_trait::async_trait;

pub use metrics::{Kind, Metrics};
pub use server::Server;

/// Whether something is well; if not, why. The text is for everyone who reaches the port: it names
/// no pods, links or addresses.
pub type Verdict = Result<(), String>;

/// How a process is. An answer that takes longer than a second is taken for a bad one.
#[async_trait]
pub trait Health: Send + Sync + 'static {
    /// Whether the process works, or has to be started again. It must not depend on others.
    async fn live(&self) -> Verdict;

    /// Whether the process can do its work now.
    async fn ready(&self) -> Verdict;

    /// Numbers about it.
    async fn metrics(&self) -> Metrics;
}
