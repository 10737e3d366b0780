//! The node's key, under which the agent signs the aliases of its devices.
//!
//! A pod's root reads and writes the aliases in its network namespace. So an alias says whose a
//! device is only with a message authentication code, of what it says and of where the device is:
//! the namespace, by device and inode, and the index there. A copy of it is worth nothing on
//! another device, in another place, or with another word.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ratchet_failpoint as failpoint;
use ratchet_model::device::Alias;
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use subtle::ConstantTimeEq;

use crate::netns::NetnsIdentity;

/// The bytes of a key.
const KEY_BYTES: usize = 32;
/// The bytes of a code: HMAC-SHA256, cut to 128 bits (RFC 2104, section 5).
const CODE_BYTES: usize = 16;
/// What else is ever signed with the key must begin differently.
const PURPOSE: &[u8] = b"ratchet alias 1\0";
/// Between what an alias says and its code.
const MARK: &str = " mac=";

/// The key of a node.
#[derive(Clone)]
pub struct NodeKey(hmac::Key);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not one that only root can have written and read.
    #[error(
        "the node key {}: {found}, expected {expected}; if others may have read or written it, \
         remove it, and the agent makes another one and signs its devices again",
        path.display()
    )]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// It cannot be read or made.
    #[error("cannot {doing} the node key {}", path.display())]
    Io {
        /// Read or make.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The kernel gives no random bytes.
    #[error("cannot make a node key: the system has no random numbers")]
    Random,
}

/// Where a device is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location {
    pub netns: NetnsIdentity,
    pub index: u32,
}

impl NodeKey {
    /// A key that is nowhere else: what others have signed is not proven by it.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> Result<Self, KeyError> {
        Ok(Self::of(&random_bytes()?))
    }

    fn of(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The key in a file. Where there is none, one is made: it is on disk, whole, when this
    /// returns.
    ///
    /// # Errors
    /// When the file is not root's alone or not a key. It is never replaced.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        if let Some(bytes) = read(path)? {
            return Ok(Self::of(&bytes));
        }
        let bytes = random_bytes()?;
        let failed = |cause| KeyError::Io {
            doing: "make",
            path: path.to_owned(),
            cause,
        };
        match make(path, &bytes) {
            Ok(()) => {
                failpoint::pass("key.made");
                Ok(Self::of(&bytes))
            }
            // Another agent of this node was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match read(path)? {
                Some(bytes) => Ok(Self::of(&bytes)),
                None => Err(failed(error)),
            },
            Err(error) => Err(failed(error)),
        }
    }

    /// An alias with its code, for a device in this place.
    pub(crate) fn sign(&self, alias: &Alias, location: Location) -> String {
        let text = alias.to_string();
        let code = u128::from_be_bytes(self.code(&text, location));
        format!("{text}{MARK}{code:032x}")
    }

    /// Whether this key has signed an alias, for a device in this place.
    pub(crate) fn has_signed(&self, text: &str, location: Location) -> bool {
        let Some((said, hex)) = text.rsplit_once(MARK) else {
            return false;
        };
        let is_code = hex.len() == 2 * CODE_BYTES && hex.bytes().all(|c| c.is_ascii_hexdigit());
        let Ok(given) = u128::from_str_radix(hex, 16) else {
            return false;
        };
        let code = self.code(said, location);
        is_code && bool::from(code.ct_eq(&given.to_be_bytes()))
    }

    fn code(&self, text: &str, location: Location) -> [u8; CODE_BYTES] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(PURPOSE);
        context.update(&location.netns.dev.to_be_bytes());
        context.update(&location.netns.inode.to_be_bytes());
        context.update(&location.index.to_be_bytes());
        context.update(text.as_bytes());
        let mut code = [0; CODE_BYTES];
        code.copy_from_slice(&context.sign().as_ref()[..CODE_BYTES]);
        code
    }
}

fn random_bytes() -> Result<[u8; KEY_BYTES], KeyError> {
    let mut bytes = [0; KEY_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

/// Reads a key; none if there is no file.
fn read(path: &Path) -> Result<Option<[u8; KEY_BYTES]>, KeyError> {
    let failed = |cause| KeyError::Io {
        doing: "read",
        path: path.to_owned(),
        cause,
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let meta = file.metadata().map_err(failed)?;
    if let Some((found, expected)) = fault(&meta) {
        return Err(KeyError::Wrong {
            path: path.to_owned(),
            found,
            expected,
        });
    }
    let mut bytes = [0; KEY_BYTES];
    file.read_exact(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// What is wrong with the file of a key, and what was expected; none if nothing is.
fn fault(meta: &fs::Metadata) -> Option<(String, String)> {
    let (mode, uid, length) = (meta.mode() & 0o7777, meta.uid(), meta.len());
    let own = nix::unistd::geteuid().as_raw();
    if !meta.is_file() {
        Some(("it is no regular file".to_owned(), "one".to_owned()))
    } else if mode != 0o600 {
        Some((format!("its mode is {mode:04o}"), "0600".to_owned()))
    } else if uid != own {
        Some((format!("it belongs to uid {uid}"), format!("uid {own}")))
    } else if length != KEY_BYTES as u64 {
        let expected = format!("{KEY_BYTES} bytes");
        Some((format!("it has {length} bytes"), expected))
    } else {
        None
    }
}

/// Writes a key under another name and links it, so that no crash leaves a part of one.
fn make(path: &Path, bytes: &[u8; KEY_BYTES]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    // Made with O_EXCL and mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
