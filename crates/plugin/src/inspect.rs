//! What a network config says to the plugin, for programs that check a node without calling the
//! plugin.

use ratchet_cni::{Config, Error, Verb, Version};
use ratchet_protocol::{LocalSettings, Settings};

use crate::config::Keys;

/// What a network config says.
#[derive(Debug, Clone)]
pub struct ConfigSummary {
    /// The settings that agent and config must agree on.
    pub settings: Settings,
    /// How the agent is reached and started.
    pub local: LocalSettings,
    /// Odd values that are no reason to fail.
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
        local,
        warnings,
        ..
    } = Keys::strict(&config)?;
    Ok(ConfigSummary {
        settings,
        local,
        warnings,
    })
}
