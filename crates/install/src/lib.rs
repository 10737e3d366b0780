//! The agent installs itself on its node: this program as the plugin's, and a network config that
//! is the present network's with Ratchet as its last plugin.
//!
//! It owns two files, the program and [`FILE`], and edits no other one. What is written is decided
//! by pure functions ([`config`], [`entry`]); [`files`] replaces files atomically, so that a kill
//! at any moment leaves what was there or what shall be there; [`follow`] does it again whenever
//! the directory of network configs changes.
//!
//! It knows nothing of links, and does not talk to the agent.

mod config;
mod entry;
mod files;
mod follow;

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use ratchet_protocol::{LocalSettings, Settings};

pub use config::FILE;
pub use follow::{Installer, Readiness};

/// The usual directory of network configs.
pub const CONFIGS: &str = "/etc/cni/net.d";

/// The variable for another one.
pub const CONFIGS_VARIABLE: &str = "RATCHET_CNI_DIR";

/// Where a container runtime finds plugins and network configs.
#[derive(Debug, Clone, Args)]
pub struct Directories {
    /// The directory of CNI plugins (--install)
    #[arg(
        long,
        env = "RATCHET_CNI_BIN_DIR",
        value_name = "DIR",
        default_value = "/opt/cni/bin"
    )]
    pub cni_bin_dir: PathBuf,
    /// The directory of network configs (--install)
    #[arg(
        long,
        env = CONFIGS_VARIABLE,
        value_name = "DIR",
        default_value = CONFIGS
    )]
    pub cni_dir: PathBuf,
}

/// Why something could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A system call failed.
    #[error("cannot {doing}: {cause}")]
    System {
        /// What was attempted.
        doing: String,
        /// The system's error.
        cause: io::Error,
    },
    /// A file with our name that we have not made.
    #[error("{0} was not made by `ratchet agent --install`: rename or remove it by hand")]
    Foreign(PathBuf),
}

fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> InstallError {
    let doing = doing.into();
    move |cause| InstallError::System { doing, cause }
}

/// An installer of this program, for an agent with these settings.
pub fn installer(
    directories: &Directories,
    settings: &Settings,
    local: &LocalSettings,
) -> Installer {
    Installer::new(directories.clone(), entry::own(settings, local))
}

/// Removes the network config, and keeps the program: runtimes call it at the DEL of pods that were
/// started with it. Returns whether there was a config.
///
/// # Errors
/// When the file is not ours, or cannot be removed.
pub fn uninstall(cni_dir: &Path) -> Result<bool, InstallError> {
    let path = cni_dir.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) if !config::is_ours(&bytes) => Err(InstallError::Foreign(path)),
        Ok(_) => {
            files::remove(&path)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(system(format!("read {}", path.display()))(error)),
    }
}
