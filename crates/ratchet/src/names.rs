//! Host names are looked up in /etc/hosts, then by DNS with /etc/resolv.conf, as programs in Go do.
//!
//! glibc would also use the services of /etc/nsswitch.conf, each in a library that it loads. A
//! static binary can load only libraries of the C library that it was linked with, but this one
//! runs on any node that it is copied to. This module alone decides which services are used.

/// Restricts lookups in this process to files and DNS. Call it before any thread is started.
#[cfg(target_env = "gnu")]
pub fn look_up_without_libraries() {
    use std::ffi::{c_char, c_int};

    unsafe extern "C" {
        /// nss.h: sets the services of a database, as a line of nsswitch.conf(5) does.
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }
    for (database, services) in [(c"hosts", c"files dns"), (c"passwd", c"files")] {
        // SAFETY: both are C strings that are never freed, and no other thread runs yet. The call
        // fails only for an unknown database.
        unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
    }
}

/// Other C libraries use only files and DNS anyway.
#[cfg(not(target_env = "gnu"))]
pub fn look_up_without_libraries() {}
