//! Labels: selectors of pods, and the labels by which an agent finds the Links of its node.

use std::{collections::BTreeMap, fmt::Write};

use ratchet_model::NodeName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::schema;

/// Selects pods by their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSelector {
    /// A pod must have all of these labels.
    #[schemars(schema_with = "schema::match_labels")]
    pub match_labels: BTreeMap<String, String>,
}

impl PodSelector {
    /// Whether it selects a pod with these labels.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let mut wanted = self.match_labels.iter();
        wanted.all(|(key, value)| label(key) == Some(value))
    }
}

/// The label that a Link has for each node with an end of it. Its value is empty.
///
/// The part after the slash may have 63 characters, so longer names of nodes become `h-` and 40
/// hex digits of their SHA-256.
pub fn node_label(node: &NodeName) -> String {
    const PREFIX: &str = "node.ratchet.dev/";
    let name = node.as_str();
    if name.len() <= schema::LABEL {
        return format!("{PREFIX}{name}");
    }
    let mut label = format!("{PREFIX}h-");
    for byte in &Sha256::digest(name)[..20] {
        let _a_string_takes_all = write!(label, "{byte:02x}");
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_node_name_becomes_a_digest() {
        let label = |name: &str| node_label(&name.parse().unwrap());
        let longest = "n".repeat(63);
        assert_eq!(label("n1.example"), "node.ratchet.dev/n1.example");
        assert_eq!(label(&longest), format!("node.ratchet.dev/{longest}"));
        let digest = label(&"n".repeat(64));
        let name = digest.strip_prefix("node.ratchet.dev/h-").unwrap();
        assert_eq!(name.len(), 40);
        assert_ne!(digest, label(&"n".repeat(65)));
    }

    #[test]
    fn a_selector_wants_all_its_labels() {
        let selector = PodSelector {
            match_labels: [("app", "r1"), ("lab", "x")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        let matches = |labels: &[(&str, &'static str)]| {
            selector.matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
        };
        assert!(matches(&[("app", "r1"), ("lab", "x"), ("more", "y")]));
        assert!(!matches(&[("app", "r1")]));
        assert!(!matches(&[("app", "r2"), ("lab", "x")]));
    }
}
