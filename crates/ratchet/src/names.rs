//! How this program looks up the names of hosts: in /etc/hosts, then by DNS as /etc/resolv.conf has
//! it, as Go's programs do.
//!
//! glibc would ask further services where /etc/nsswitch.conf names them, each a library to be
//! loaded; a static binary cannot do that with a C library that is not the one it was linked with,
//! and it runs on whatever node it was copied to. Which services there are is settled here and
//! nowhere else.

/// Has names looked up so from now on.
#[cfg(target_env = "gnu")]
pub fn look_up_without_libraries() {
    use std::ffi::{c_char, c_int};

    unsafe extern "C" {
        /// nss.h: what would be said of a database in nsswitch.conf(5).
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }
    for (database, services) in [(c"hosts", c"files dns"), (c"passwd", c"files")] {
        // SAFETY: both are C strings that are never freed, and no other thread is there yet. It
        // fails for names of databases that it does not know.
        unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
    }
}

/// Other C libraries have no other way.
#[cfg(not(target_env = "gnu"))]
pub fn look_up_without_libraries() {}
