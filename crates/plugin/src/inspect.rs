//! What a network config says to the plugin, for those who look at a node without calling the
//! plugin.

use std::path::PathBuf;

use ratchet_cni::{Config, Error, Verb, Version};
use ratchet_protocol::Settings;

use crate::config::Keys;

/// What a network config says.
#[derive(Debug, Clone)]
pub struct ConfigSummary {
    /// What agent and config must agree on.
    pub settings: Settings,
    /// The agent's socket.
    pub socket: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// What is odd, but no reason to fail.
    pub warnings: Vec<String>,
}

/// Reads a network config as ADD would: that of one plugin, as a runtime passes it on stdin.
///
/// # Errors
/// What ADD would fail with.
pub fn read_config(text: &str) -> Result<ConfigSummary, Error> {
    let config = Config::parse(text.into(), Verb::Add, &Version::ALL)?;
    let Keys {
        settings,
        socket,
        state_dir,
        warnings,
        ..
    } = Keys::strict(&config)?;
    Ok(ConfigSummary {
        settings,
        socket,
        state_dir,
        warnings,
    })
}
