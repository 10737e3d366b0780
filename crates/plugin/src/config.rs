//! Ratchet's own keys of the network config, including those of 2017.
//!
//! The table of settings in `ratchet-protocol` says which keys there are; [`reader`] checks their
//! values. It does not look at the network: whether an address is on an interface or a store
//! answers is checked by the agent.

mod reader;
mod store;

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};
use ratchet_cni::{Config, Embedded, Error};
use ratchet_protocol::{LocalSettings, Settings};

use reader::Reader;

/// What the config says.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// The settings that agent and config must agree on.
    pub settings: Settings,
    /// How the agent is reached and started.
    pub local: LocalSettings,
    /// The program to start as the agent; `None` is this one.
    pub child_path: Option<PathBuf>,
    pub use_labels: bool,
    pub delegate: Option<Embedded>,
    pub boot_network: Option<Embedded>,
    /// Odd values that are no reason to fail.
    pub warnings: Vec<String>,
}

impl Keys {
    /// Reads the keys. The first wrong one is refused with code 7.
    pub fn strict(config: &Config) -> Result<Self, Error> {
        let (keys, problems) = read(config);
        problems.into_iter().next().map_or(Ok(keys), Err)
    }

    /// Reads what can be read, for DEL: a wrong key is warned about and taken as absent.
    pub fn lenient(config: &Config) -> Self {
        let (mut keys, problems) = read(config);
        keys.warnings.extend(problems.iter().map(Error::to_string));
        keys
    }

    /// The plugin or list that runs first for Ratchet's pods.
    pub fn boot(&self) -> Option<&Embedded> {
        self.boot_network.as_ref().or(self.delegate.as_ref())
    }

    /// All embedded plugins or lists, each once.
    pub fn embedded(&self) -> impl DoubleEndedIterator<Item = &Embedded> {
        self.delegate.iter().chain(&self.boot_network)
    }
}

/// The keys, and what is wrong with them.
fn read(config: &Config) -> (Keys, Vec<Error>) {
    let mut reader = Reader::new(config);
    let keys = Keys {
        settings: reader.part(),
        local: reader.part(),
        child_path: child_path(&mut reader),
        use_labels: reader.text_or_default("use_labels").as_deref() == Some("true"),
        delegate: reader.embedded("delegate"),
        boot_network: reader.embedded("boot_network"),
        warnings: std::mem::take(&mut reader.warnings),
    };
    (keys, reader.problems)
}

/// The program to start as the agent. If it does not exist, that is only a warning: it may still be
/// installed, and this program can be the agent as well.
fn child_path(reader: &mut Reader<'_>) -> Option<PathBuf> {
    let key = "child_path";
    let path = PathBuf::from(reader.text(key)?);
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() && is_executable(&path) => Some(path),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            let path = path.display();
            reader.warnings.push(format!(
                "the config's key {key:?} names {path}, which does not exist; this program is the \
                 agent instead"
            ));
            None
        }
        _ => reader.refuse(key),
    }
}

fn is_executable(path: &Path) -> bool {
    access(path, AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests;
