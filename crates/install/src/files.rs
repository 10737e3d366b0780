//! Files that change at once or not at all.
//!
//! The new content is written beside the file, flushed, and renamed over it. After a kill there is
//! the old file or the new one, and perhaps a temporary file, which no runtime reads.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use ratchet_failpoint::pass;

use crate::{InstallError, system};

/// The program's name, which is also the plugin's type.
pub(crate) const PROGRAM: &str = "ratchet";

/// What tells a file from another one without reading it: device, inode, size, time of change.
pub(crate) type Identity = (u64, u64, u64, (i64, i64));

/// The identity of a file; `None` if there is none.
pub(crate) fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    Some((metadata.dev(), metadata.ino(), metadata.size(), changed))
}

/// Makes the program in a directory equal to `source`. Returns whether it was not.
pub(crate) fn install_program(source: &Path, dir: &Path) -> Result<bool, InstallError> {
    let path = dir.join(PROGRAM);
    let doing = || format!("install {}", path.display());
    if is_same_program(source, &path).map_err(system(doing()))? {
        return Ok(false);
    }
    fs::create_dir_all(dir).map_err(system(doing()))?;
    let mut program = File::open(source).map_err(system(doing()))?;
    replace(&path, &mut program, 0o755, "install.program").map_err(system(doing()))?;
    Ok(true)
}

/// Whether a runtime can run the file, and it is the same program.
fn is_same_program(source: &Path, path: &Path) -> io::Result<bool> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let source = File::open(source)?;
    let is_executable = metadata.permissions().mode() & 0o111 == 0o111;
    if !metadata.is_file() || !is_executable || metadata.len() != source.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(source), BufReader::new(File::open(path)?));
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        if other.read_exact(&mut right[..read]).is_err() || left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

/// Writes a config that only root may read: other plugins' configs may name secrets.
pub(crate) fn write_config(path: &Path, text: &str) -> Result<(), InstallError> {
    replace(path, &mut text.as_bytes(), 0o600, "install.config")
        .map_err(system(format!("write {}", path.display())))
}

/// Removes a file for good.
pub(crate) fn remove(path: &Path) -> Result<(), InstallError> {
    let removed = fs::remove_file(path).and_then(|()| flush_dir(path));
    removed.map_err(system(format!("remove {}", path.display())))
}

fn replace(path: &Path, content: &mut dyn Read, mode: u32, point: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.tmp"));
    // It is left of an agent that was killed. There is one agent a node.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)?;
    pass(&format!("{point}.made"));
    let done = io::copy(content, &mut file)
        // Independent of the umask.
        .and_then(|_| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all());
    // A program that is open for writing cannot be run.
    drop(file);
    pass(&format!("{point}.written"));
    let done = done.and_then(|()| fs::rename(&fresh, path));
    if done.is_err() {
        let _the_error_is_told = fs::remove_file(&fresh);
        return done;
    }
    pass(&format!("{point}.renamed"));
    flush_dir(path)
}

/// Names are the directory's. After this, a loss of power does not undo a change of one.
fn flush_dir(path: &Path) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir)?.sync_all()
}
