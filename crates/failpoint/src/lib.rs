//! Points at which tests have a process die, to see that whatever was begun can be finished or
//! undone, or stop, to see what others may do meanwhile.
//!
//! A process dies by its own SIGKILL at a point: at that of a name (`RATCHET_FAILPOINT`), or at the
//! n-th of all that it passes (`RATCHET_FAILPOINT_SCRIPT`), so that a test goes through points that
//! it does not know the names of. The script is a file: a number in its first line, and behind it a
//! line for every point passed since. With `stop` after the number the process does not die but
//! stops (SIGSTOP), and goes on when the test says so. While there is no such file, nothing is
//! counted; so a test writes it when it begins with what it is about. A number of 0 only counts.
//!
//! Points stand **after** what they are named for, unless they say `before`. Compiled in with the
//! feature `armed` alone.

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
    "store.before_register_node",
    "store.register_node",
    "store.before_deregister_node",
    "store.deregister_node",
    "store.before_remove_node",
    "store.remove_node",
    "etcd.txn",
];

/// Whether there are points at all in this build.
pub const ARMED: bool = cfg!(feature = "armed");

/// Passes a point.
#[cfg(feature = "armed")]
pub fn pass(name: &str) {
    assert!(
        PLUGIN.contains(&name) || AGENT.contains(&name),
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
        // Fails only if there is no such process, which is us.
        let _ = kill(Pid::this(), signal);
    }
}

/// Whether points are counted now: then what is done in one go is done one by one, with a point
/// after each.
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

    /// Notes a point; what is to happen if it is the one that the script is about.
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
