//! Points at which tests kill the plugin, to see that any prefix of ADD or DEL can be cleaned up.
//!
//! Compiled in with the feature `failpoints` alone; without it a call is nothing.

/// Kills the process, as a runtime does that has lost its patience, if RATCHET_FAILPOINT is this name.
#[cfg(feature = "failpoints")]
pub(crate) fn failpoint(name: &str) {
    debug_assert!(NAMES.contains(&name), "{name} is not in the list");
    if std::env::var_os("RATCHET_FAILPOINT").is_some_and(|wanted| wanted == name) {
        // Fails only if there is no such process, which is us.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Without the feature: nothing.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn failpoint(_name: &str) {}

/// All points, in the order in which a call passes them.
#[cfg(feature = "failpoints")]
pub const NAMES: &[&str] = &[
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
