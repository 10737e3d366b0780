//! What ADD did, kept on disk for DEL, CHECK and GC. Each attachment has one file,
//! `STATE_DIR/attachments/NETWORK/CONTAINER/IFNAME.json`, and, once ADD has succeeded,
//! `IFNAME.appended` beside it.
//!
//! Network and container are directories of their own, so that no two attachments share a file.
//! A lock beside the file (`IFNAME.lock`) is held while a call works on the attachment. It ends
//! with the process. Nothing here decides what a call does with the record.

mod attachments;
mod slot;

use std::{io, path::Path};

use ratchet_cni::{
    Error, Rendered, validate_container_id, validate_interface_name, validate_network_name,
};
use ratchet_model::device::Interface;
use serde::{Deserialize, Serialize};

pub(crate) use attachments::Attachments;
pub(crate) use slot::Slot;

/// The longest file name (NAME_MAX, include/uapi/linux/limits.h).
const NAME_MAX: usize = 255;
/// The files of an attachment, in the order in which they are removed. The lock is the last: while
/// it is there, no other call begins.
const SUFFIXES: [&str; 4] = ["tmp", "appended", "json", "lock"];

/// The role in which ADD ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// A pod that is not Ratchet's: only the delegate ran.
    Delegate,
    /// Ratchet's pod, behind its boot network.
    Boot,
    /// Ratchet's pod, behind another plugin of the runtime's list.
    Chained,
}

impl Mode {
    /// Whether ADD told the agent of the sandbox, or was about to.
    pub fn is_ours(self) -> bool {
        !matches!(self, Self::Delegate)
    }
}

/// What is kept of an ADD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub mode: Mode,
    /// What the embedded plugins were given. DEL gives them the same.
    pub rendered: Rendered,
    /// CNI_ARGS, for the DELs that GC makes: GC itself has none.
    #[serde(default)]
    pub args: String,
    /// CNI_NETNS; for people to read.
    #[serde(default)]
    pub netns: String,
    /// What we appended to the result.
    #[serde(flatten, default)]
    pub appended: Appended,
}

/// What was appended to the embedded plugins' result; for CHECK.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Appended {
    /// Our interfaces.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// The address without interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// CNI's key of an attachment. Its parts are names of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    network: String,
    container_id: String,
    ifname: String,
}

impl Key {
    /// Checks the parts; codes 4 and 7 as for the same checks of the call itself.
    pub fn new(network: &str, container_id: &str, ifname: &str) -> Result<Self, Error> {
        validate_network_name(network)?;
        validate_container_id(container_id)?;
        validate_interface_name(ifname)?;
        if network.len() > NAME_MAX {
            return Err(Error::invalid_config(format!(
                "the network's name is longer than {NAME_MAX} bytes"
            )));
        }
        if container_id.len() > NAME_MAX {
            return Err(Error::invalid_environment(format!(
                "CNI_CONTAINERID is longer than {NAME_MAX} bytes"
            )));
        }
        Ok(Self {
            network: network.into(),
            container_id: container_id.into(),
            ifname: ifname.into(),
        })
    }

    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    pub fn ifname(&self) -> &str {
        &self.ifname
    }
}

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nothing.
    Nothing,
    /// Something that cannot be read as a record, and why.
    Unreadable(String),
    /// A record.
    Record(Box<Record>),
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::io(format!("cannot {what}: {error}")).with_details(format!(
        "path {}; it is below the config's \"state_dir\", which must be writable and have space",
        path.display()
    ))
}

#[cfg(test)]
mod tests;
