//! The local sandboxes on disk: one file each, written before anything is done for it and removed
//! after all is undone; and what devices leave that are being replaced.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ratchet_failpoint as failpoint;
use ratchet_kernel::NetnsIdentity;
use ratchet_model::{
    DeclaredLink, InterfaceName, LinkId, NodeName, PodKey, SandboxId, declaration::Accept,
    leftover::Leftover,
};
use serde::{Deserialize, Serialize};

use crate::disk::{Directory, Disk, SANDBOXES};

/// What must be known of a sandbox to wire it, and to undo it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxState {
    /// Its container id.
    pub id: SandboxId,
    /// The pod, under the name by which links know it.
    pub pod: PodKey,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// Device and inode of the namespace: another one at the same path is not this sandbox.
    pub netns_identity: (u64, u64),
    /// /proc/sys/kernel/random/boot_id at its start: after a reboot it cannot live.
    pub boot_id: String,
    /// See `PodRecord::created`.
    pub created: u64,
    /// The pod as Kubernetes names it: namespace and name.
    #[serde(default)]
    pub kubernetes: (String, String),
    /// Whether its labels count.
    #[serde(default)]
    pub use_labels: bool,
    /// What the pod declares.
    pub links: Vec<DeclaredLink>,
    /// The pod that has this one's name, and that pod's node: until it has gone this one has no
    /// links.
    #[serde(default)]
    pub held_by: Option<(String, NodeName)>,
    /// Whose declarations of links with it the pod accepts, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<Accept>,
    /// See `PodRecord::given`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given: BTreeMap<InterfaceName, LinkId>,
    /// Its attachments: network and interface.
    pub attachments: BTreeSet<(String, String)>,
    /// Whether it is leaving. The name of its file says so.
    #[serde(skip)]
    pub leaving: bool,
}

impl SandboxState {
    /// The identity of its namespace.
    pub fn netns_identity(&self) -> NetnsIdentity {
        let (dev, inode) = self.netns_identity;
        NetnsIdentity { dev, inode }
    }
}

/// What devices leave that are being replaced; not there when none is.
const LEFTOVERS: &str = "replaced.json";

/// While this file is there, no sandbox is missing: it is made once those that the node had before
/// have been looked for.
const COMPLETE: &str = "complete";

/// The sandboxes' files, and what else must outlive the process.
#[derive(Debug, Clone)]
pub struct StateDir {
    disk: Arc<dyn Disk>,
}

impl StateDir {
    /// On a disk.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk }
    }

    /// Opens a real directory, made if need be, for root only.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        Ok(Self::new(Arc::new(Directory::open(state_dir)?)))
    }

    /// Whether no sandbox's state was lost.
    pub(crate) fn is_complete(&self) -> bool {
        self.disk.exists(COMPLETE)
    }

    /// Notes that no sandbox is missing.
    pub(crate) fn set_complete(&self) -> io::Result<()> {
        self.disk.touch(COMPLETE)?;
        failpoint::pass("state.complete");
        Ok(())
    }

    /// All sandboxes. A file that cannot be read is set aside (renamed) and reported: the kernel's
    /// aliases still tell which devices are its sandbox's.
    pub(crate) fn load(&self) -> io::Result<Vec<SandboxState>> {
        let mut states = Vec::new();
        for file in self.disk.sandboxes()? {
            let leaving = match file.rsplit_once('.') {
                Some((_, "json")) => false,
                Some((_, "leaving")) => true,
                _ => continue,
            };
            let name = format!("{SANDBOXES}/{file}");
            let read = self.disk.read(&name).map_err(|e| e.to_string());
            if read.as_ref().is_ok_and(Vec::is_empty) {
                // A power cut came while it was written: see `Directory::write`.
                self.disk.remove(&name)?;
                continue;
            }
            let parsed = read.and_then(|bytes| {
                serde_json::from_slice::<SandboxState>(&bytes).map_err(|e| e.to_string())
            });
            match parsed {
                Ok(state) => states.push(SandboxState { leaving, ..state }),
                Err(problem) => self.set_aside(&name, &problem)?,
            }
        }
        Ok(states)
    }

    /// Keeps a file that cannot be read, under another name; a sandbox is missing now.
    fn set_aside(&self, name: &str, problem: &str) -> io::Result<()> {
        tracing::error!(
            file = name,
            problem,
            "cannot read the state of a sandbox; set aside"
        );
        absent_is_fine(self.disk.remove(COMPLETE))?;
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        self.disk.rename(name, &format!("{stem}.unreadable"))
    }

    /// Writes a sandbox: when this returns, it is on disk as a whole, and outlives a power cut.
    pub(crate) fn save(&self, state: &SandboxState) -> io::Result<()> {
        // In one piece: serde would write token by token.
        self.write(&name(&state.id, state.leaving), &serde_json::to_vec(state)?)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk.write(name, bytes)?;
        failpoint::pass("state.saved");
        Ok(())
    }

    /// What devices have left that an agent before us was about to replace. What cannot be read is
    /// lost: only what users added by hand is in it.
    pub(crate) fn load_leftovers(&self) -> Vec<Leftover> {
        let Ok(bytes) = self.disk.read(LEFTOVERS) else {
            return Vec::new();
        };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::error!(
                file = LEFTOVERS, %error,
                "cannot read what devices had that were being replaced"
            );
            Vec::new()
        })
    }

    /// Writes what devices leave that are about to be replaced, like [`StateDir::save`]; with
    /// nothing to write the file goes.
    pub(crate) fn save_leftovers(&self, all: &[&Leftover]) -> io::Result<()> {
        if !all.is_empty() {
            return self.write(LEFTOVERS, &serde_json::to_vec(all)?);
        }
        let removed = self.disk.remove(LEFTOVERS);
        failpoint::pass("state.removed");
        removed
    }

    /// Marks a sandbox as leaving, by the name of its file: nothing has to be written, which also
    /// works on a full disk. It holds when we are killed; a power cut may undo it, and ends the
    /// sandbox itself.
    pub(crate) fn set_leaving(&self, id: &SandboxId) -> io::Result<()> {
        self.disk.rename(&name(id, false), &name(id, true))?;
        failpoint::pass("state.leaving");
        Ok(())
    }

    /// Marks one that was saved as leaving as one that stays, likewise: what was saved is on disk.
    pub(crate) fn set_staying(&self, id: &SandboxId) -> io::Result<()> {
        self.disk.rename(&name(id, true), &name(id, false))?;
        failpoint::pass("state.staying");
        Ok(())
    }

    /// Removes a sandbox; that it is not there is no error.
    pub(crate) fn remove(&self, id: &SandboxId) -> io::Result<()> {
        for leaving in [false, true] {
            absent_is_fine(self.disk.remove(&name(id, leaving)))?;
        }
        failpoint::pass("state.removed");
        Ok(())
    }
}

fn name(id: &SandboxId, leaving: bool) -> String {
    let extension = if leaving { "leaving" } else { "json" };
    format!("{SANDBOXES}/{id}.{extension}")
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// This boot's id.
///
/// # Errors
/// When /proc is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn state(id: &str) -> SandboxState {
        SandboxState {
            held_by: None,
            id: id.parse().unwrap(),
            pod: PodKey::new("default", "p").unwrap(),
            netns: "/run/netns/p".into(),
            netns_identity: (1, 2),
            boot_id: "b".into(),
            created: 3,
            kubernetes: ("default".into(), "p".into()),
            use_labels: true,
            links: vec![],
            accept: None,
            given: BTreeMap::new(),
            attachments: [("net".to_string(), "eth0".to_string())].into(),
            leaving: false,
        }
    }

    #[test]
    fn what_was_saved_is_loaded_and_what_was_removed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let states = StateDir::open(dir.path()).unwrap();
        states.save(&state("one")).unwrap();
        states.save(&state("two")).unwrap();
        states.set_leaving(&"two".parse().unwrap()).unwrap();
        states.remove(&"one".parse().unwrap()).unwrap();
        states.remove(&"one".parse().unwrap()).unwrap();
        assert_eq!(
            states.load().unwrap(),
            [SandboxState {
                leaving: true,
                ..state("two")
            }]
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("sandboxes")), 0o700);
        assert_eq!(mode(&dir.path().join("sandboxes/two.leaving")), 0o600);
        states.remove(&"two".parse().unwrap()).unwrap();
        assert_eq!(
            fs::read_dir(dir.path().join("sandboxes")).unwrap().count(),
            0
        );
    }

    #[test]
    fn what_is_being_replaced_is_loaded_until_it_has_been() {
        let dir = tempfile::tempdir().unwrap();
        let states = StateDir::open(dir.path()).unwrap();
        assert_eq!(states.load_leftovers(), []);
        let leftover = Leftover {
            link: "00000000000000ff".parse().unwrap(),
            end: ratchet_model::End::A,
            sandbox: "one".parse().unwrap(),
            index: 7,
            addresses: vec!["10.0.0.1/24".parse().unwrap()],
            routes: Vec::new(),
        };
        states.save_leftovers(&[&leftover]).unwrap();
        assert_eq!(states.load_leftovers(), [leftover]);
        states.save_leftovers(&[]).unwrap();
        assert_eq!(states.load_leftovers(), []);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join("replaced.json"), "").unwrap();
        assert_eq!(states.load_leftovers(), []);
    }

    #[test]
    fn what_a_power_cut_left_empty_was_never_begun() {
        let dir = tempfile::tempdir().unwrap();
        let states = StateDir::open(dir.path()).unwrap();
        states.set_complete().unwrap();
        states.save(&state("one")).unwrap();
        fs::write(dir.path().join("sandboxes/two.json"), "").unwrap();
        assert_eq!(states.load().unwrap(), [state("one")]);
        assert!(states.is_complete());
        assert_eq!(
            fs::read_dir(dir.path().join("sandboxes")).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let states = StateDir::open(dir.path()).unwrap();
        assert!(!states.is_complete());
        states.set_complete().unwrap();
        fs::write(dir.path().join("sandboxes/bad.json"), "{").unwrap();
        assert!(states.is_complete());
        assert_eq!(states.load().unwrap(), []);
        assert!(!states.is_complete());
        assert!(dir.path().join("sandboxes/bad.unreadable").exists());
    }
}
