//! Memory that is not needed any more goes back to the system. Nothing else is here.

/// Gives back what was freed. glibc keeps it otherwise: after a look at ten thousand links that is
/// several times what the agent holds on to between two of them.
pub(crate) fn give_back() {
    // SAFETY: malloc_trim(3) may be called at any time from any thread; it touches free memory
    // only.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
