//! Whether all is as it must be. One module for each question:
//!
//! * [`frames`], at any moment: does a frame arrive where it may not?
//! * [`adds`], when an ADD is answered: does it fail for what another pod declares?
//! * [`connected`], when everything has settled: do the links that must be up carry frames, and are
//!   their ends as declared?
//! * [`filters`], then: do the source filters let through what tunnels need, and nothing else?
//! * [`indexes`], then: has each end the index that it had before?
//! * [`left`], then: is there a device, a record, a VNI or a file that nothing needs?
//! * [`strangers`], then: are the devices that are not Ratchet's as they were?
//!
//! The oracle asks the wire, and not Ratchet. Which links must be up [`expected`] reads from the
//! scenario's declarations by its own short rules.

pub mod adds;
pub mod connected;
pub mod expected;
pub mod filters;
pub mod frames;
pub mod indexes;
pub mod left;
pub mod strangers;

use crate::{cluster::Cluster, history::Wrong};
use expected::Expected;

pub use left::check_empty;

/// Checks everything; returns how many links carry frames.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(cluster: &mut Cluster) -> Result<u64, Wrong> {
    let network = cluster.network.clone();
    let network = network.lock();
    let mut indexes = std::mem::take(&mut cluster.indexes);
    let contents = cluster.store.contents();
    let forgers = cluster.frames.lock().forgers.clone();
    let expected = Expected::new(cluster, &network, &contents);
    left::check_store(&contents, expected.living())?;
    left::check_held(&network, cluster, &contents)?;
    let mut count = 0;
    for link in expected.links_up() {
        connected::check(&network, &link, &forgers)?;
        indexes.check(&network, &link)?;
        count += 1;
    }
    left::check_devices(&network, &expected, &forgers)?;
    filters::check(&network, &expected)?;
    strangers::check(&network)?;
    cluster.indexes = indexes;
    Ok(count)
}
