//! A process environment as a value, so that no other code reads or writes the real one.
//!
//! Runtimes set variables that do not apply to the empty string. So an empty variable counts as
//! unset here.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

/// The environment of a plugin, which its embedded plugins inherit.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    vars: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// The variable, if it is set and not empty.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.vars
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// Sets a variable in this value. The process' environment does not change.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.vars.insert(name.into(), value.into());
    }

    /// All variables, empty ones included.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.vars
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// The directories of CNI_PATH, without empty segments, which would mean the working directory.
    pub fn plugin_dirs(&self) -> Vec<PathBuf> {
        let path = self.get("CNI_PATH").unwrap_or_default();
        std::env::split_paths(path)
            .filter(|dir| !dir.as_os_str().is_empty())
            .collect()
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(vars: I) -> Self {
        Self {
            vars: vars
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_unset() {
        let env: Environment = [("A", ""), ("B", "b")].into_iter().collect();
        assert_eq!(env.get("A"), None);
        assert_eq!(env.get("B"), Some(OsStr::new("b")));
        assert_eq!(env.get("C"), None);
        assert_eq!(env.iter().count(), 2);
    }

    #[test]
    fn empty_path_segments_are_skipped() {
        let env: Environment = [("CNI_PATH", ":/a::/b:")].into_iter().collect();
        assert_eq!(
            env.plugin_dirs(),
            [PathBuf::from("/a"), PathBuf::from("/b")]
        );
    }
}
