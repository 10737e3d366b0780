//! CNI_ARGS: `KEY=VALUE;KEY2=VALUE2`, in which runtimes say which pod the container belongs to.
//!
//! Read leniently on purpose: runtimes send the keys in any order and append a copy of their own
//! CNI_ARGS, and meta plugins repeat keys. No mistake in it is a reason to fail a DEL.

use std::collections::BTreeMap;

/// The pairs of CNI_ARGS. The last value of a repeated key counts. A piece without `=` is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs {
    raw: String,
    pairs: BTreeMap<String, String>,
}

impl CniArgs {
    /// Reads the value of CNI_ARGS. Only the first `=` of a pair separates.
    pub fn parse(raw: &str) -> Self {
        let pairs = raw.split(';').filter_map(|pair| pair.split_once('='));
        let pairs = pairs
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        Self {
            raw: raw.to_owned(),
            pairs: pairs.collect(),
        }
    }

    /// The value of a key; `None` if it is absent or empty.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The text as it came.
    pub fn raw(&self) -> &str {
        &self.raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_duplicates_and_odd_pieces_do_not_matter() {
        let args = CniArgs::parse("B=2;IgnoreUnknown=1;A=x=y;;junk;=v;B=3;C=;");
        assert_eq!(args.get("A"), Some("x=y"));
        assert_eq!(args.get("B"), Some("3"));
        assert_eq!(args.get("C"), None);
        assert_eq!(args.get("junk"), None);
        assert_eq!(args.get(""), None);
        assert_eq!(CniArgs::parse(""), CniArgs::default());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[A-Z=;\\PC]{0,60}") {
            let args = CniArgs::parse(&text);
            prop_assert_eq!(args.raw(), text.as_str());
        }

        #[test]
        fn what_is_written_is_read(
            pairs in proptest::collection::btree_map("[A-Za-z_0-9]{1,9}", "[^;]{1,9}", 0..6),
        ) {
            let text: String = pairs.iter().map(|(key, value)| format!("{key}={value};")).collect();
            let args = CniArgs::parse(&text);
            for (key, value) in &pairs {
                prop_assert_eq!(args.get(key), Some(value.as_str()));
            }
        }
    }
}
