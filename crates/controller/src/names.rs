//! Names of Links. They follow from what is declared, so they stay when pods start again.

use std::fmt::Write;

use ratchet_model::{InterfaceName, PodKey};
use sha2::{Digest, Sha256};

/// The most characters of an object's name (RFC 1123 subdomain).
const NAME: usize = 253;

/// So many hex digits of a digest end a Link's name.
const DIGITS: usize = 10;

/// An end as it is declared: namespace, pod or slot, interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DeclaredName {
    /// The pod, by the name that the declaration uses.
    pub pod: PodKey,
    /// The interface.
    pub interface: InterfaceName,
}

impl DeclaredName {
    /// Reads `namespace/pod/interface`.
    pub fn read(text: &str) -> Option<Self> {
        let (pod, interface) = text.rsplit_once('/')?;
        Some(Self {
            pod: pod.parse().ok()?,
            interface: interface.parse().ok()?,
        })
    }
}

impl std::fmt::Display for DeclaredName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.pod, self.interface)
    }
}

/// The name of the Link of a Topology's link. The two ends are in their order.
///
/// A link with a name keeps its Link when its pods are changed. The interfaces of a Link cannot be
/// changed, so they are part of the identity.
pub(crate) fn of_topology(topology: &str, link: Option<&str>, ends: [&DeclaredName; 2]) -> String {
    let identity = match link {
        None => format!("{topology}\n{}\n{}", ends[0], ends[1]),
        Some(link) => {
            let [a, b] = ends.map(|end| format!("{}/{}", end.pod.namespace(), end.interface));
            format!("{topology}\nname {link}\n{a}\n{b}")
        }
    };
    with_digest(topology, &identity)
}

/// The name of the Link of a link that pods declare. The two ends are in their order.
pub(crate) fn of_pods(ends: [&DeclaredName; 2]) -> String {
    with_digest(ends[0].pod.name(), &format!("{}\n{}", ends[0], ends[1]))
}

/// The name of the Link of a link that meshnet's Topologies declare. The two ends are in their
/// order. KNE counts its uids again when a link is taken out, so they are no part of it.
pub(crate) fn of_meshnet(ends: [&DeclaredName; 2]) -> String {
    let identity = format!("meshnet\n{}\n{}", ends[0], ends[1]);
    with_digest(ends[0].pod.name(), &identity)
}

/// A prefix and a digest. Pods can be declared by names that Kubernetes does not allow.
fn with_digest(prefix: &str, identity: &str) -> String {
    let mut name: String = prefix
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c == '_' { '-' } else { c })
        .take(NAME - DIGITS - 1)
        .collect();
    name.truncate(name.trim_end_matches(['-', '.']).len());
    name.push('-');
    for byte in &Sha256::digest(identity)[..DIGITS / 2] {
        let _a_string_takes_all = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> DeclaredName {
        DeclaredName::read(text).unwrap()
    }

    #[test]
    fn a_name_is_the_declarers_and_a_digest_of_the_ends() {
        let (r1, r2, r3) = (end("lab/r1/eth1"), end("lab/r2/eth1"), end("lab/r3/eth1"));
        let name = of_topology("ring", None, [&r1, &r2]);
        assert_eq!(name.len(), "ring-".len() + 10);
        assert!(name.starts_with("ring-"), "{name}");
        assert_ne!(name, of_topology("ring", None, [&r1, &r3]));
        assert_ne!(name, of_topology("rung", None, [&r1, &r2]));
        let named = of_topology("ring", Some("x"), [&r1, &r2]);
        assert_eq!(named, of_topology("ring", Some("x"), [&r1, &r3]));
        let other = end("lab/r2/eth2");
        assert_ne!(named, of_topology("ring", Some("x"), [&r1, &other]));
        assert!(of_pods([&r1, &r2]).starts_with("r1-"));
    }

    #[test]
    fn any_declared_name_makes_a_good_one() {
        let long = "Ab_".repeat(84);
        let name = of_pods([&end(&format!("lab/{long}/eth1")), &end("lab/r2/eth1")]);
        assert!(name.len() <= NAME, "{}", name.len());
        assert!(name.starts_with("ab-ab-ab"), "{name}");
        assert!(!name.contains("--ab") && !name.contains('_'), "{name}");
    }
}
