//! When everything has settled: devices that are not Ratchet's are as they were made.

use crate::{
    history::{Kind, Wrong},
    network::Inner,
};

/// Checks the strangers whose namespaces are still there.
///
/// # Errors
/// Which of them is gone or another one.
pub fn check(network: &Inner) -> Result<(), Wrong> {
    for (id, made) in network.strangers() {
        let is_as_made = network.device(id).is_some_and(|device| device == made);
        if !is_as_made {
            let text = format!("{} was touched", network.describe(made));
            return Err(Wrong::new(Kind::StrangerTouched, text));
        }
    }
    Ok(())
}
