//! Texts: names, addresses, endpoints.

use ratchet_model::SandboxId;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::{MESSAGE, REASON, Rule, in_turn};

/// The most characters of the names of most objects: a DNS subdomain (RFC 1123).
pub const NAME: usize = 253;

/// The most characters of a namespace, a label's value and a slot's name: a DNS label (RFC 1123).
pub const LABEL: usize = 63;

/// The most bytes of an interface's name: `IFNAMSIZ` less one (include/uapi/linux/if.h).
pub const INTERFACE: usize = 15;

/// The longest address with a prefix length: IPv6, three digits.
const CIDR: usize = 43;

/// The longest address.
const IP: usize = 39;

/// An Ethernet address.
const MAC: usize = 17;

/// A uid of the API: UUIDs, and for static pods a digest.
const UID: usize = 64;

const NAMESPACE_RULES: &[Rule] = &[(
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "a namespace's name has lower case letters, digits and '-', and no '-' at its ends",
)];

const STATEFUL_SET_RULES: &[Rule] = &[(
    "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
    "a StatefulSet's name has lower case letters, digits, '-' and '.', and a letter or digit at \
     its ends",
)];

const LABEL_RULES: &[Rule] = &[(
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    "a name has lower case letters, digits and '-' here, and no '-' at its ends",
)];

/// `InterfaceName` of the model, and the names that the kernel's settings have for all interfaces
/// (Documentation/networking/ip-sysctl.rst).
const INTERFACE_RULES: &[Rule] = &[
    (
        r"self.matches(r'^[^/:%\s\pZ\p{Cc}]+$') && size(bytes(self)) <= 15",
        "an interface's name has 1 to 15 bytes, and no '/', ':', '%' or white space",
    ),
    (
        "!(self in ['.', '..', 'lo', 'all', 'default'])",
        "this interface name is taken by the system; choose another one",
    ),
];

const ADDRESS_RULES: &[Rule] = &[
    (
        "isCIDR(self)",
        "expected an address with a prefix length, such as 10.0.0.1/24 or fd00::1/64",
    ),
    (
        "cidr(self).ip().isGlobalUnicast() || \
         cidr(self).ip().isLinkLocalUnicast()",
        "an interface cannot have this address: it is unspecified, loopback, broadcast or \
         multicast",
    ),
];

const IP_RULES: &[Rule] = &[(
    "isIP(self)",
    "expected an IPv4 or IPv6 address without a prefix length",
)];

const MAC_RULES: &[Rule] = &[(
    "self.matches('^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$') && self != '00:00:00:00:00:00'",
    "expected the MAC address of one interface, such as 02:00:00:00:00:01; the first byte is even",
)];

const MAC_OR_NONE_RULES: &[Rule] = &[(
    "self == '' || (self.matches('^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$') && \
     self != '00:00:00:00:00:00')",
    "expected the MAC address of one interface, such as 02:00:00:00:00:01, or an empty text for \
     one that Ratchet chooses; the first byte is even",
)];

/// What is before the ':' is ASCII by then.
const ENDPOINT_RULES: &[Rule] = &[
    (
        r"self.matches(r'^([^/:]+/)?[^/:]+:[^/:%\s\pZ\p{Cc}]+$')",
        "expected pod:interface or namespace/pod:interface, such as r1:eth1, without '%' and white \
         space",
    ),
    (
        "self.matches('^[a-z0-9/.-]+:')",
        "names of pods and namespaces have lower case letters, digits, '-' and '.'",
    ),
    (
        "size(bytes(self)) - self.indexOf(':') <= 16",
        "an interface's name has at most 15 bytes",
    ),
    (
        "!(self.endsWith(':lo') || self.endsWith(':all') || self.endsWith(':default') || \
         self.endsWith(':.') || self.endsWith(':..'))",
        "this interface name is taken by the system; choose another one",
    ),
];

/// Where a rule says it better, no least length is given.
fn text(least: usize, most: usize) -> Schema {
    let mut schema = json_schema!({"type": "string", "maxLength": most});
    if least > 0 {
        schema.insert("minLength".to_owned(), least.into());
    }
    schema
}

fn ruled(mut schema: Schema, of: &[Rule]) -> Schema {
    let rule = in_turn("self", of);
    schema.insert("x-kubernetes-validations".to_owned(), rule);
    schema
}

fn pattern(mut schema: Schema, pattern: &str) -> Schema {
    schema.insert("pattern".to_owned(), pattern.into());
    schema
}

/// The namespace of an object that exists.
pub(crate) fn namespace(_: &mut SchemaGenerator) -> Schema {
    pattern(text(1, LABEL), "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
}

/// A namespace as users write it.
pub(crate) fn granted_namespace(_: &mut SchemaGenerator) -> Schema {
    ruled(text(0, LABEL), NAMESPACE_RULES)
}

/// The name of an object that exists: a pod, a node, a Topology.
pub(crate) fn name(_: &mut SchemaGenerator) -> Schema {
    pattern(text(1, NAME), "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
}

/// A name that a declaration gives to a pod. Labels of 2017 may have capital letters and '_'.
pub(crate) fn slot(_: &mut SchemaGenerator) -> Schema {
    pattern(text(1, NAME), "^[A-Za-z0-9][-_.A-Za-z0-9]*$")
}

pub(crate) fn stateful_set(_: &mut SchemaGenerator) -> Schema {
    ruled(text(0, NAME), STATEFUL_SET_RULES)
}

pub(crate) fn node(generator: &mut SchemaGenerator) -> Schema {
    name(generator)
}

/// The name of a slot or of a link in a Topology.
pub(crate) fn label(_: &mut SchemaGenerator) -> Schema {
    ruled(text(0, LABEL), LABEL_RULES)
}

pub(crate) fn label_value(_: &mut SchemaGenerator) -> Schema {
    text(0, LABEL)
}

pub(crate) fn uid(_: &mut SchemaGenerator) -> Schema {
    text(1, UID)
}

pub(crate) fn sandbox(_: &mut SchemaGenerator) -> Schema {
    text(1, SandboxId::MAX)
}

pub(crate) fn release(_: &mut SchemaGenerator) -> Schema {
    text(1, LABEL)
}

/// `namespace/name` of a Link.
pub(crate) fn link_key(_: &mut SchemaGenerator) -> Schema {
    text(3, LABEL + 1 + NAME)
}

pub(crate) fn timestamp(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

pub(crate) fn interface(_: &mut SchemaGenerator) -> Schema {
    ruled(text(0, INTERFACE), INTERFACE_RULES)
}

pub(crate) fn address(_: &mut SchemaGenerator) -> Schema {
    ruled(text(0, CIDR), ADDRESS_RULES)
}

/// The type [`crate::Route`] has the rules.
pub(crate) fn destination(_: &mut SchemaGenerator) -> Schema {
    text(0, CIDR)
}

/// The type [`crate::Route`] has the rules.
pub(crate) fn next_hop(_: &mut SchemaGenerator) -> Schema {
    text(0, IP)
}

pub(crate) fn ip(_: &mut SchemaGenerator) -> Schema {
    ruled(text(0, IP), IP_RULES)
}

pub(crate) fn mac(_: &mut SchemaGenerator) -> Schema {
    ruled(text(0, MAC), MAC_RULES)
}

pub(crate) fn mac_or_none(_: &mut SchemaGenerator) -> Schema {
    ruled(text(0, MAC), MAC_OR_NONE_RULES)
}

pub(crate) fn endpoint(_: &mut SchemaGenerator) -> Schema {
    let most = LABEL + 1 + NAME + 1 + INTERFACE;
    ruled(text(0, most), ENDPOINT_RULES)
}

/// As Kubernetes writes reasons of conditions.
pub(crate) fn reason(_: &mut SchemaGenerator) -> Schema {
    pattern(text(1, REASON), "^[A-Za-z][A-Za-z0-9]*$")
}

pub(crate) fn message(_: &mut SchemaGenerator) -> Schema {
    text(0, MESSAGE)
}

pub(crate) fn condition_type(_: &mut SchemaGenerator) -> Schema {
    pattern(text(1, LABEL), "^[A-Za-z][A-Za-z0-9]*$")
}

#[cfg(test)]
mod tests {
    use ratchet_model::{InterfaceName, NodeName, PodKey};

    use super::*;

    #[test]
    fn lengths_are_the_models() {
        let name = |length| "n".repeat(length);
        let at_most = |most: usize, is_good: &dyn Fn(&str) -> bool| {
            assert!(is_good(&name(most)));
            assert!(!is_good(&name(most + 1)));
        };
        at_most(INTERFACE, &|text| text.parse::<InterfaceName>().is_ok());
        at_most(NAME, &|text| text.parse::<NodeName>().is_ok());
        at_most(NAME, &|text| PodKey::new("default", text).is_ok());
        assert!(INTERFACE_RULES[0].0.ends_with(&format!("<= {INTERFACE}")));
        assert!(
            ENDPOINT_RULES[2]
                .0
                .ends_with(&format!("<= {}", 1 + INTERFACE))
        );
    }
}
