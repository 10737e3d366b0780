//! Whether programs of pods own the node's network: they have NET_ADMIN in a pod's network
//! namespace, and no user namespace of their own. Such a program can make devices in the node's
//! namespace, with any CNI plugin.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
};

use serde_json::Value;

use crate::Check;

const NAME: &str = "pods' rights";
/// CAP_NET_ADMIN, include/uapi/linux/capability.h.
const NET_ADMIN: u64 = 1 << 12;
/// How many pods a text names.
const NAMED: usize = 4;

/// Device and inode of a namespace.
type Identity = (u64, u64);

/// Looks at the programs in the sandboxes that the state directory knows; `None` when it knows
/// none.
pub(crate) fn look(state_dir: &Path) -> Option<Check> {
    let sandboxes = sandboxes(state_dir);
    let own = identity(Path::new("/proc/self/ns/user"))?;
    (!sandboxes.is_empty()).then(|| judge(&owners(&sandboxes, own)))
}

fn judge(owners: &BTreeSet<&str>) -> Check {
    if owners.is_empty() {
        return Check::ok(NAME, "no pod with links can change the node's network");
    }
    let named: Vec<&str> = owners.iter().take(NAMED).copied().collect();
    let mut names = named.join(", ");
    if owners.len() > NAMED {
        names = format!("{names} and {} more", owners.len() - NAMED);
    }
    Check::warn(
        NAME,
        format!(
            "programs with NET_ADMIN and without a user namespace of their own, which can change \
             the network of the whole node: in {names}"
        ),
        "set `hostUsers: false` on these pods, or take NET_ADMIN (or `privileged`) from them, \
         unless you trust their authors with the node",
    )
}

/// The pods of the sandboxes, by their network namespaces.
fn sandboxes(state_dir: &Path) -> BTreeMap<Identity, String> {
    let files = fs::read_dir(state_dir.join("sandboxes"));
    let files = files.into_iter().flatten().flatten();
    let read = |file: fs::DirEntry| {
        let state: Value = serde_json::from_slice(&fs::read(file.path()).ok()?).ok()?;
        let number = |of: usize| state["netns_identity"][of].as_u64();
        let name = |of: usize| state["kubernetes"][of].as_str();
        let pod = format!("{}/{}", name(0)?, name(1)?);
        Some(((number(0)?, number(1)?), pod))
    };
    files.filter_map(read).collect()
}

/// The pods with a program that has NET_ADMIN in this user namespace.
fn owners(sandboxes: &BTreeMap<Identity, String>, user_namespace: Identity) -> BTreeSet<&str> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let owned = |process: fs::DirEntry| {
        let path = process.path();
        // A process may end at any time; what is no process has none of these.
        let pod = sandboxes.get(&identity(&path.join("ns/net"))?)?;
        let is_owner = identity(&path.join("ns/user"))? == user_namespace
            && has_net_admin(&fs::read_to_string(path.join("status")).ok()?);
        is_owner.then_some(pod.as_str())
    };
    processes.filter_map(owned).collect()
}

/// Reads the effective capabilities of /proc/PID/status.
fn has_net_admin(status: &str) -> bool {
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set & NET_ADMIN != 0)
}

fn identity(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        process::{Child, Command, Stdio},
    };

    use super::*;
    use crate::Verdict;

    /// A program in a network namespace of its own, until it is dropped.
    struct Program(Child);

    impl Program {
        fn start(unshare: &str) -> Self {
            let mut child = Command::new("unshare")
                .args(unshare.split(' '))
                .args(["sh", "-c", "echo r; exec cat"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("unshare");
            let mut ready = [0; 2];
            let output = child.stdout.as_mut().expect("piped");
            output.read_exact(&mut ready).expect("it has started");
            Self(child)
        }

        fn netns(&self) -> Identity {
            let path = format!("/proc/{}/ns/net", self.0.id());
            identity(Path::new(&path)).expect("it runs")
        }
    }

    impl Drop for Program {
        fn drop(&mut self) {
            drop(self.0.stdin.take());
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_program_with_net_admin_and_no_user_namespace_owns_the_node() {
        let owner = Program::start("--net");
        let own_user = Program::start("--user --map-root-user --net");
        let plain = Program::start("--net setpriv --bounding-set -net_admin --inh-caps -net_admin");
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(look(dir.path()), None, "nothing is known");
        let sandboxes = dir.path().join("sandboxes");
        fs::create_dir(&sandboxes).expect("a directory");
        let check = || look(dir.path()).expect("a check");
        let save = |name: &str, program: &Program| {
            let (dev, inode) = program.netns();
            let state = serde_json::json!({
                "netns_identity": [dev, inode],
                "kubernetes": ["default", name],
            });
            let path = sandboxes.join(format!("{name}.json"));
            fs::write(path, state.to_string()).expect("written");
        };
        save("own-user", &own_user);
        save("plain", &plain);
        assert_eq!(check().verdict, Verdict::Ok, "{:?}", check());
        save("owner", &owner);
        let found = check();
        assert_eq!(found.verdict, Verdict::Warn);
        assert!(found.found.ends_with("in default/owner"), "{found}");
    }

    #[test]
    fn a_text_names_four_pods_and_counts_the_rest() {
        let owners = BTreeSet::from(["d/a", "d/b", "d/c", "d/d", "d/e", "d/f"]);
        let found = judge(&owners).found;
        assert!(
            found.ends_with("in d/a, d/b, d/c, d/d and 2 more"),
            "{found}"
        );
    }
}
