//! The rules for names that become file names, device names or programs. They are exactly those of
//! Go's skel.
//!
//! A plugin that makes its own interfaces may have to be stricter: the kernel takes `%` for a
//! template.

use crate::error::Error;

/// The longest interface name in bytes: the kernel's IFNAMSIZ without the final NUL.
pub const MAX_INTERFACE_NAME: usize = 15;

/// `^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`
fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Refuses with code 4 what cannot be a container id.
pub fn validate_container_id(id: &str) -> Result<(), Error> {
    if is_plain(id) {
        return Ok(());
    }
    Err(Error::invalid_environment("invalid characters in CNI_CONTAINERID").with_details(id))
}

/// Refuses with code 7 what cannot be a network's name.
pub fn validate_network_name(name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::invalid_config("missing network name"));
    }
    if is_plain(name) {
        return Ok(());
    }
    Err(Error::invalid_config("invalid characters in network name").with_details(name))
}

/// Refuses with code 4 what cannot be an interface's name.
pub fn validate_interface_name(name: &str) -> Result<(), Error> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_INTERFACE_NAME {
        "is longer than 15 bytes"
    } else if name == "." || name == ".." {
        "is . or .."
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        "contains / or : or white space"
    } else {
        return Ok(());
    };
    Err(Error::invalid_environment(format!("interface name {problem}")).with_details(name))
}

/// Refuses with code 7 what cannot be a plugin's type: a type names a program in CNI_PATH and
/// nowhere else.
pub fn validate_plugin_type(kind: &str) -> Result<(), Error> {
    let problem = if kind.is_empty() {
        "is missing"
    } else if kind == "." || kind == ".." || kind.contains(['/', '\\', '\0']) {
        "is not the bare name of a program"
    } else {
        return Ok(());
    };
    Err(
        Error::invalid_config(format!("the embedded plugin's type {problem}"))
            .with_details(format!("type is {kind:?}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_and_network_names() {
        for bad in ["../x", "-a", "a b", "a/b", "é", "a\n", ".x", "_a"] {
            assert_eq!(validate_container_id(bad).unwrap_err(), {
                Error::invalid_environment("invalid characters in CNI_CONTAINERID")
                    .with_details(bad)
            });
            assert_eq!(validate_network_name(bad).unwrap_err().code, 7);
        }
        for good in ["A", "a.b-c_d", &"0123456789abcdef".repeat(4)] {
            validate_container_id(good).unwrap();
            validate_network_name(good).unwrap();
        }
        assert_eq!(validate_network_name("").unwrap_err().code, 7);
    }

    #[test]
    fn interface_names() {
        for bad in [
            "",
            "abcdefghijklmnop",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\t",
            "a\u{a0}b",
            "éééééééé",
        ] {
            assert_eq!(validate_interface_name(bad).unwrap_err().code, 4, "{bad:?}");
        }
        for good in ["abcdefghijklmno", "eth0", "...", "ééééééé", "a%d"] {
            validate_interface_name(good).unwrap();
        }
    }

    #[test]
    fn plugin_types() {
        for bad in ["", ".", "..", "a/b", "../x", "/bin/sh", "a\\b", "a\0"] {
            assert_eq!(validate_plugin_type(bad).unwrap_err().code, 7, "{bad:?}");
        }
        for good in ["bridge", "host-local", "...", "a b"] {
            validate_plugin_type(good).unwrap();
        }
    }
}
