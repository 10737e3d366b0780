//! The local sandboxes on disk: one file each, written before anything is done for it and removed
//! after all is undone; and what devices leave that are being replaced.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ratchet_failpoint as failpoint;
use ratchet_model::{DeclaredLink, PodKey, SandboxId, leftover::Leftover};
use serde::{Deserialize, Serialize};

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
    /// Its attachments: network and interface.
    pub attachments: BTreeSet<(String, String)>,
    /// Whether it is on its way out. The name of its file says so.
    #[serde(skip)]
    pub leaving: bool,
}

/// The directory with the sandboxes' files.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    sandboxes: PathBuf,
    /// What devices leave that are being replaced; not there when none is.
    leftovers: PathBuf,
    /// While this file is there, no sandbox is missing: it is made once those that the node had
    /// before have been looked for.
    marker: PathBuf,
}

impl StateDir {
    /// Opens it, made if need be, for root only.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let sandboxes = state_dir.join("sandboxes");
        create_private(&sandboxes)?;
        Ok(Self {
            sandboxes,
            leftovers: state_dir.join("replaced.json"),
            marker: state_dir.join("complete"),
        })
    }

    /// Whether no sandbox's state was lost.
    pub fn is_complete(&self) -> bool {
        self.marker.exists()
    }

    /// Notes that no sandbox is missing.
    pub fn set_complete(&self) -> io::Result<()> {
        fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&self.marker)?;
        failpoint::pass("state.complete");
        Ok(())
    }

    /// All sandboxes. A file that cannot be read is set aside (renamed) and reported: the kernel's
    /// aliases still tell which devices are its sandbox's.
    pub fn load(&self) -> io::Result<Vec<SandboxState>> {
        let mut states = Vec::new();
        for entry in fs::read_dir(&self.sandboxes)? {
            let path = entry?.path();
            // What an agent was writing when it was killed.
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(".tmp"))
            {
                fs::remove_file(&path)?;
                continue;
            }
            let leaving = match path.extension().and_then(OsStr::to_str) {
                Some("json") => false,
                Some("leaving") => true,
                _ => continue,
            };
            let read = fs::read(&path).map_err(|e| e.to_string());
            if read.as_ref().is_ok_and(Vec::is_empty) {
                // A power cut came while it was written: see `save`.
                fs::remove_file(&path)?;
                continue;
            }
            match read.and_then(|bytes| {
                serde_json::from_slice::<SandboxState>(&bytes).map_err(|e| e.to_string())
            }) {
                Ok(state) => states.push(SandboxState { leaving, ..state }),
                Err(problem) => {
                    tracing::error!(
                        path = %path.display(), problem,
                        "cannot read the state of a sandbox; set aside"
                    );
                    match fs::remove_file(&self.marker) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                    fs::rename(&path, path.with_extension("unreadable"))?;
                }
            }
        }
        Ok(states)
    }

    /// Writes a sandbox: when this returns, it is on disk, whole, whatever happens next.
    pub fn save(&self, state: &SandboxState) -> io::Result<()> {
        // In one piece: serde would write token by token.
        self.write(
            &self.path(&state.id, state.leaving),
            &serde_json::to_vec(state)?,
        )
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let is_new = !path.exists();
        let mut file = tempfile::NamedTempFile::new_in(&self.sandboxes)?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        if is_new {
            failpoint::pass("state.written");
            // Renamed first, file and name go into one commit of the file system's journal. A power
            // cut in between may leave an empty file under the name, but nothing was done yet that
            // it is needed for.
            let file = file.persist(path).map_err(|e| e.error)?;
            let synced = file
                .sync_all()
                .and_then(|()| path.parent().map_or(Ok(()), sync_dir));
            synced.inspect_err(|_| drop(fs::remove_file(path)))?;
        } else {
            // A power cut leaves the old one or the new one, whole; no sandbox outlives it, so
            // either will do.
            file.as_file().sync_all()?;
            failpoint::pass("state.written");
            file.persist(path).map_err(|e| e.error)?;
        }
        failpoint::pass("state.saved");
        Ok(())
    }

    /// What devices have left that an agent before us was about to replace. What cannot be read is
    /// lost: only what users added by hand is in it.
    pub fn load_leftovers(&self) -> Vec<Leftover> {
        let Ok(bytes) = fs::read(&self.leftovers) else {
            return Vec::new();
        };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::error!(
                path = %self.leftovers.display(), %error,
                "cannot read what devices had that were being replaced"
            );
            Vec::new()
        })
    }

    /// Writes what devices leave that are about to be replaced, like [`StateDir::save`]; with
    /// nothing to write the file goes.
    pub fn save_leftovers(&self, all: &[&Leftover]) -> io::Result<()> {
        if !all.is_empty() {
            return self.write(&self.leftovers, &serde_json::to_vec(all)?);
        }
        let removed = fs::remove_file(&self.leftovers);
        failpoint::pass("state.removed");
        removed
    }

    /// Marks a sandbox as leaving, by the name of its file: nothing has to be written, which also
    /// works on a full disk. It holds when we are killed; a power cut may undo it, and ends the
    /// sandbox itself.
    pub fn set_leaving(&self, id: &SandboxId) -> io::Result<()> {
        fs::rename(self.path(id, false), self.path(id, true))?;
        failpoint::pass("state.leaving");
        Ok(())
    }

    /// Marks one that was saved as leaving as one that stays, likewise: what was saved is on disk.
    pub fn set_staying(&self, id: &SandboxId) -> io::Result<()> {
        fs::rename(self.path(id, true), self.path(id, false))?;
        failpoint::pass("state.staying");
        Ok(())
    }

    /// Removes a sandbox; that it is not there is no error.
    pub fn remove(&self, id: &SandboxId) -> io::Result<()> {
        for leaving in [false, true] {
            match fs::remove_file(self.path(id, leaving)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        failpoint::pass("state.removed");
        Ok(())
    }

    fn path(&self, id: &SandboxId, leaving: bool) -> PathBuf {
        self.sandboxes
            .join(format!("{id}.{}", if leaving { "leaving" } else { "json" }))
    }
}

/// Makes a directory and its parents; the last one is root's alone.
pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// This boot's id.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: &str) -> SandboxState {
        SandboxState {
            id: id.parse().unwrap(),
            pod: PodKey::new("default", "p").unwrap(),
            netns: "/run/netns/p".into(),
            netns_identity: (1, 2),
            boot_id: "b".into(),
            created: 3,
            kubernetes: ("default".into(), "p".into()),
            use_labels: true,
            links: vec![],
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
