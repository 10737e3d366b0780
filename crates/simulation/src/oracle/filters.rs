//! When everything has settled: the source filter of each node lets through what its tunnels need,
//! and nothing else.

use super::expected::Expected;
use crate::{
    history::{Kind, Wrong},
    network::{Device, Inner},
};

/// Checks the filters of all nodes.
///
/// # Errors
/// What is missing in one or left in it.
pub fn check(network: &Inner, expected: &Expected<'_>) -> Result<(), Wrong> {
    let sandboxes = &expected.cluster.sandboxes;
    let is_known = |device: &Device| {
        let sandbox = sandboxes
            .iter()
            .find(|sandbox| sandbox.netns == device.netns);
        sandbox.is_some_and(|sandbox| !sandbox.is_unknown)
    };
    for node in 0..expected.cluster.nodes.len() {
        let filter = network.filter(node);
        let mut tunnels = network.tunnels(node);
        let missing = tunnels.find(|(device, needs)| is_known(device) && !filter.contains(needs));
        if let Some((device, _)) = missing {
            let text = format!("the filter of n{node} stops {}", network.describe(device));
            return Err(Wrong::new(Kind::WrongFilter, text));
        }
        let is_needed = |passage| network.tunnels(node).any(|(_, needs)| needs == passage);
        if let Some(left) = filter.iter().find(|passage| !is_needed(**passage)) {
            let tunnels: Vec<String> = network
                .tunnels(node)
                .map(|(device, _)| network.describe(device))
                .collect();
            let text = format!(
                "the filter of n{node} lets through {left:?}, which nothing needs; its tunnels: {}",
                tunnels.join(", ")
            );
            return Err(Wrong::new(Kind::WrongFilter, text));
        }
    }
    Ok(())
}
