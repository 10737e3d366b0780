//! Failpoints: points at which a test can kill or stop a process. A killed process shows whether
//! what it began can be finished or undone; a stopped one, what others may do in the meantime.
//!
//! A process dies (SIGKILL) at the point with a given name (`RATCHET_FAILPOINT`), or at the n-th of
//! all points that it passes (`RATCHET_FAILPOINT_SCRIPT`), so that a test need not know the names
//! of all points. The script is a file. Its first line has the number, and each point that is
//! passed adds a line. With `stop` after the number, the process does not die but stops (SIGSTOP),
//! until the test continues it. While the file does not exist, no points are counted, so a test
//! writes it just before the operation that it tests. The number 0 only counts.
//!
//! A point is **after** the step that it is named for, unless its name says `before`. Points exist
//! only with the feature `armed`.

/// The points of the plugin, in the order in which a call passes them.
pub const PLUGIN: &[&str] = &[
    "add.after_lock",
    "add.after_prepare",
    "add.after_state",
    "add.after_embedded",
    "add.after_attach",
    "add.after_interfaces",
    "add.after_rollback_detach",
    "add.after_rollback_embedded",
    "del.after_lock",
    "del.after_detach",
    "del.after_embedded",
    "del.after_state",
];

/// The points of the agent. One name may be passed many times.
pub const AGENT: &[&str] = &[
    "key.made",
    "kernel.filter",
    "kernel.request",
    "state.written",
    "state.saved",
    "state.leaving",
    "state.staying",
    "state.removed",
    "state.complete",
    "store.open",
    "store.before_publish",
    "store.publish",
    "store.before_remove_pod",
    "store.remove_pod",
    "store.before_read",
    "store.read",
    "store.before_claim",
    "store.claim",
    "store.before_release",
    "store.release",
    "store.before_block",
    "store.block",
    "store.before_register_node",
    "store.register_node",
    "store.before_deregister_node",
    "store.deregister_node",
    "store.before_remove_node",
    "store.remove_node",
    "etcd.txn",
];

/// The points of the installer, in the order in which a first look passes them.
pub const INSTALL: &[&str] = &[
    "install.program.made",
    "install.program.written",
    "install.program.renamed",
    "install.config.made",
    "install.config.written",
    "install.config.renamed",
];

/// Whether this build has points.
pub const ARMED: bool = cfg!(feature = "armed");

/// Passes a point.
#[cfg(feature = "armed")]
pub fn pass(name: &str) {
    assert!(
        [PLUGIN, AGENT, INSTALL]
            .iter()
            .any(|list| list.contains(&name)),
        "{name} is not in the list of failpoints"
    );
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    let is_named = std::env::var_os("RATCHET_FAILPOINT").is_some_and(|wanted| wanted == name);
    if let Some(signal) = is_named
        .then_some(Signal::SIGKILL)
        .or_else(|| script::signal_at(name))
    {
        // Fails only if the process does not exist, and it is this one.
        let _ = kill(Pid::this(), signal);
    }
}

/// Whether points are counted now. Then steps that are usually done together are done one by one,
/// with a point after each.
#[cfg(feature = "armed")]
pub fn is_counting() -> bool {
    script::path().is_some_and(|path| path.exists())
}

/// Without the feature: nothing.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub fn pass(_name: &str) {}

/// Without the feature: never.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub fn is_counting() -> bool {
    false
}

#[cfg(feature = "armed")]
mod script {
    use std::{
        fs::OpenOptions,
        io::{Read, Write},
        path::PathBuf,
        sync::{Mutex, PoisonError},
    };

    use nix::sys::signal::Signal;

    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    pub(super) fn path() -> Option<PathBuf> {
        std::env::var_os("RATCHET_FAILPOINT_SCRIPT").map(PathBuf::from)
    }

    /// Records a point. Returns what to do if it is the script's.
    pub(super) fn signal_at(name: &str) -> Option<Signal> {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .open(path()?)
            .ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        writeln!(file, "{name}").ok()?;
        let mut lines = text.lines();
        let mut first = lines.next()?.split(' ');
        let number: usize = first.next()?.parse().ok()?;
        let signal = if first.next() == Some("stop") {
            Signal::SIGSTOP
        } else {
            Signal::SIGKILL
        };
        (lines.count() + 1 == number).then_some(signal)
    }
}
