//! Names that cannot be wrong once they exist: pods, interfaces, sandboxes, nodes, links.
//!
//! Each is a newtype made by parsing, so that a bad name is met at the edge and nowhere else.
//! Clones share their text: an agent holds each name many times over.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why a name was refused. The text names the value and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?}: {expected}")]
pub struct NameError {
    what: &'static str,
    value: String,
    expected: &'static str,
}

impl NameError {
    fn new(what: &'static str, value: &str, expected: &'static str) -> Self {
        Self {
            what,
            value: value.to_owned(),
            expected,
        }
    }
}

/// Serde by way of `FromStr` and `Display`, so that data from outside passes the same checks.
macro_rules! text_serde {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.to_string()
            }
        }
    };
}

/// A pod: namespace and name. Written `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodKey {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl PodKey {
    /// A pod by its namespace and name.
    ///
    /// # Errors
    /// When either is not a DNS subdomain as Kubernetes has it (lower case letters, digits, `-`
    /// and `.`; 253 characters at most). Upper case and `_` are accepted too, since container
    /// names outside Kubernetes have them.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        const EXPECTED: &str =
            "expected 1 to 253 letters, digits, '-', '_' or '.', beginning with a letter or digit";
        for (what, value) in [("pod namespace", namespace), ("pod name", name)] {
            let good = (1..=253).contains(&value.len())
                && value.starts_with(|c: char| c.is_ascii_alphanumeric())
                && value
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if !good {
                return Err(NameError::new(what, value, EXPECTED));
            }
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for PodKey {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (namespace, name) = text
            .split_once('/')
            .ok_or_else(|| NameError::new("pod", text, "expected namespace/name"))?;
        Self::new(namespace, name)
    }
}
text_serde!(PodKey);

/// The name of a network interface that Ratchet may make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(Arc<str>);

impl InterfaceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = NameError;

    /// The kernel's own rules (`dev_valid_name`, net/core/dev.c: fewer than IFNAMSIZ = 16 bytes,
    /// not `.` or `..`, no `/`, `:` or white space) and two of ours: no `%`, which the kernel takes
    /// for a template of names, and not `lo`, which every pod has.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |expected| Err(NameError::new("interface name", text, expected));
        if text.is_empty() || text.len() > 15 {
            return refuse("expected 1 to 15 bytes");
        }
        if text == "." || text == ".." || text == "lo" {
            return refuse("this name is taken by the system; choose another one");
        }
        if text
            .chars()
            .any(|c| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control())
        {
            return refuse("expected no '/', ':', '%', white space or control characters");
        }
        Ok(Self(text.into()))
    }
}
text_serde!(InterfaceName);

/// One runtime instance of a pod: its container id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(Arc<str>);

impl SandboxId {
    /// The longest id that still fits, with the rest of an alias, the kernel's IFALIASZ of 256
    /// bytes (include/uapi/linux/if.h) and, with a suffix, a file name of 255. Runtimes use 64.
    pub const MAX: usize = 128;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SandboxId {
    type Err = NameError;

    /// The CNI specification's rule for container ids (section "Parameters"), and a length.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = (1..=Self::MAX).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if good {
            Ok(Self(text.into()))
        } else {
            Err(NameError::new(
                "container id",
                text,
                "expected 1 to 128 letters, digits, '_', '.' or '-', beginning with a letter or \
                 digit",
            ))
        }
    }
}
text_serde!(SandboxId);

/// A node, by the name its agent goes by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = (1..=253).contains(&text.len())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if good {
            Ok(Self(text.into()))
        } else {
            Err(NameError::new(
                "node name",
                text,
                "expected 1 to 253 letters, digits, '-', '_' or '.'",
            ))
        }
    }
}
text_serde!(NodeName);

/// A link's id: 16 hex digits derived from its two endpoints, so that everybody who knows the
/// endpoints knows the id; or from the object that the store has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkId(u64);

impl LinkId {
    /// Stands for the link of a device of which only is known that it is ours: its maker died
    /// before it wrote the alias.
    pub const UNKNOWN: Self = Self(0);

    /// The id of the link between two endpoints, in whichever order they are given: the first 8
    /// bytes of SHA-256 over `ns/pod/interface`, a newline, `ns/pod/interface`, sorted.
    pub fn derive(one: (&PodKey, &InterfaceName), other: (&PodKey, &InterfaceName)) -> Self {
        let (a, z) = if one <= other {
            (one, other)
        } else {
            (other, one)
        };
        Self::of_text(&format!("{}/{}\n{}/{}", a.0, a.1, z.0, z.1))
    }

    /// The id of a link of which the store has an object: it stays when the pods are replaced by
    /// others. No two endpoints have this id, since no name has a space in it.
    pub fn of_object(namespace: &str, name: &str) -> Self {
        Self::of_text(&format!("object {namespace}/{name}"))
    }

    fn of_text(text: &str) -> Self {
        let digest = Sha256::digest(text);
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(first))
    }

    /// The id as a number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for LinkId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = || NameError::new("link id", text, "expected 16 hexadecimal digits");
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| refuse())
    }
}
text_serde!(LinkId);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{DeclaredEnd, DeclaredLink, End, Identity};

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["in1", "eth0.100", "123456789012345", "ä"] {
            assert!(good.parse::<InterfaceName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "1234567890123456",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a%d",
            "lo",
            "a\u{a0}b",
            "a\tb",
        ] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_link_id_does_not_depend_on_the_order() {
        let one = PodKey::new("default", "r1").unwrap();
        let other = PodKey::new("default", "r2").unwrap();
        let eth1: InterfaceName = "eth1".parse().unwrap();
        let eth2: InterfaceName = "eth2".parse().unwrap();
        let id = LinkId::derive((&one, &eth1), (&other, &eth2));
        assert_eq!(id, LinkId::derive((&other, &eth2), (&one, &eth1)));
        assert_ne!(id, LinkId::derive((&one, &eth2), (&other, &eth1)));
        assert_eq!(id.to_string().parse::<LinkId>().unwrap(), id);
    }

    #[test]
    fn the_id_of_an_object_is_no_pair_of_ends() {
        let id = LinkId::of_object("default", "ring-0579d8c099");
        assert_ne!(id, LinkId::of_object("default", "ring-0579d8c09a"));
        assert_ne!(id, LinkId::of_object("defaul", "t/ring-0579d8c099"));
        // The text that an id is made of has a space, and two ends cannot have one.
        assert!(PodKey::new("object default", "ring-0579d8c099").is_err());
        let link = |local| DeclaredLink {
            identity: Some(Identity { link: id, local }),
            ..DeclaredLink::new(
                DeclaredEnd::bare("lab/z".parse().unwrap(), "eth1".parse().unwrap()),
                DeclaredEnd::bare("lab/a".parse().unwrap(), "eth1".parse().unwrap()),
            )
        };
        let order = |link: &DeclaredLink| link.ends().map(|end| end.pod.name().to_owned());
        assert_eq!(order(&link(End::A)), ["z", "a"]);
        assert_eq!(order(&link(End::Z)), ["a", "z"]);
        assert_eq!(link(End::A).id(), id);
    }

    #[test]
    fn refusals_name_the_value_and_what_was_expected() {
        let error = "a_very_long_interface_name"
            .parse::<InterfaceName>()
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "interface name \"a_very_long_interface_name\": expected 1 to 15 bytes"
        );
        assert!(
            "nonsense"
                .parse::<PodKey>()
                .unwrap_err()
                .to_string()
                .contains("namespace/name")
        );
    }
}
