//! Whether users other than root can reach the agent's socket and state.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::Check;

/// The bits of a mode that give rights to others than the owner.
const OTHERS: u32 = 0o077;

/// The check of the node's key: who reads it can forge what says whose a device is.
const NODE_KEY: &str = "node key";

/// Mode and owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owned {
    mode: u32,
    uid: u32,
}

/// Checks the socket, its directory, the state directory and the node's key.
pub(crate) fn look(socket: &Path, state_dir: &Path, node_key: &Path) -> Vec<Check> {
    let mut paths = vec![
        ("socket", socket, 0o600),
        ("state directory", state_dir, 0o700),
        (NODE_KEY, node_key, 0o600),
    ];
    if let Some(dir) = socket.parent() {
        paths.insert(0, ("socket's directory", dir, 0o700));
    }
    paths
        .into_iter()
        .filter_map(|(name, path, wanted)| judge(name, path, wanted, read(path)))
        .collect()
}

fn read(path: &Path) -> Option<Owned> {
    let metadata = fs::metadata(path).ok()?;
    Some(Owned {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
    })
}

/// `None` if the file does not exist yet. The checks of the agent say so.
fn judge(name: &'static str, path: &Path, wanted: u32, found: Option<Owned>) -> Option<Check> {
    let Owned { mode, uid } = found?;
    let shown = format!(
        "{} has mode {mode:04o} and belongs to uid {uid}",
        path.display()
    );
    let is_private = mode & OTHERS == 0 && uid == 0;
    Some(if is_private {
        Check::ok(name, shown)
    } else if name == NODE_KEY {
        let text = format!("{shown}: the agent does not start with it");
        let hint = format!(
            "if others may have read or written it: rm {0}, and start the agent, which makes \
             another one; otherwise chown root {0} && chmod {wanted:04o} {0}",
            path.display()
        );
        Check::fail(name, text, hint)
    } else if mode & 0o022 != 0 || uid != 0 {
        let hint = format!("chown root {0} && chmod {wanted:04o} {0}", path.display());
        Check::fail(
            name,
            format!("{shown}: others could command this node's links"),
            hint,
        )
    } else {
        Check::warn(
            name,
            format!("{shown}: others can read it"),
            format!("chmod {wanted:04o} {}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    #[test]
    fn what_others_can_write_is_a_failure_and_what_they_can_read_a_warning() {
        let verdict = |mode, uid| {
            judge(
                "state directory",
                Path::new("/s"),
                0o700,
                Some(Owned { mode, uid }),
            )
            .map(|check| check.verdict)
        };
        assert_eq!(verdict(0o700, 0), Some(Verdict::Ok));
        assert_eq!(verdict(0o600, 0), Some(Verdict::Ok));
        assert_eq!(verdict(0o755, 0), Some(Verdict::Warn));
        assert_eq!(verdict(0o770, 0), Some(Verdict::Fail));
        assert_eq!(verdict(0o700, 1000), Some(Verdict::Fail));
        assert_eq!(judge("socket", Path::new("/s"), 0o600, None), None);
    }

    /// The agent refuses it, too: `ratchet_kernel::NodeKey::open`.
    #[test]
    fn a_key_that_others_can_read_is_a_failure() {
        let check = |mode| {
            let found = Some(Owned { mode, uid: 0 });
            judge(NODE_KEY, Path::new("/k"), 0o600, found).expect("a check")
        };
        assert_eq!(check(0o600).verdict, Verdict::Ok);
        let wrong = check(0o640);
        assert_eq!(wrong.verdict, Verdict::Fail);
        assert!(
            wrong.to_string().contains("rm /k, and start the agent"),
            "{wrong}"
        );
    }
}
