//! A process environment as a value, so that nothing below it reads or writes the real one.
//!
//! Runtimes set variables that do not apply to empty strings; here an empty CNI variable is an
//! unset one.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

/// The environment a plugin was started with, and that its embedded plugins inherit.
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

    /// Sets a variable of this value; the process is not touched.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.vars.insert(name.into(), value.into());
    }

    /// All variables, empty ones included.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.vars
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// The directories of CNI_PATH. Empty segments would mean the working directory; they are left
    /// out.
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
