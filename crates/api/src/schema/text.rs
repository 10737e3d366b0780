//! Texts: names, addresses, endpoints.

use ratchet_model::SandboxId;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::{MESSAGE, REASON, Rule, rules};

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

const NAME_RULES: &[Rule] = &[(
    "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
    "a name has lower case letters, digits, '-' and '.', and a letter or digit at its ends",
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
        "!isCIDR(self) || cidr(self).ip().isGlobalUnicast() || \
         cidr(self).ip().isLinkLocalUnicast()",
        "an interface cannot have this address: it is unspecified, loopback, broadcast or \
         multicast",
    ),
];

const DESTINATION_RULES: &[Rule] = &[
    (
        "isCIDR(self)",
        "expected a network, such as 10.1.0.0/16, fd01::/48 or 0.0.0.0/0",
    ),
    (
        "!isCIDR(self) || cidr(self) == cidr(self).masked()",
        "bits are set after the prefix length: expected a network, such as 10.1.0.0/16",
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

/// The rules after the first are about texts that have the form.
const ENDPOINT_RULES: &[Rule] = &[
    (
        "self.matches('^([^/:]+/)?[^/:]+:[^/:]+$')",
        "expected pod:interface or namespace/pod:interface, such as r1:eth1",
    ),
    (
        "!self.matches('^([^/:]+/)?[^/:]+:[^/:]+$') || self.matches('^([a-z0-9-]+/)?[a-z0-9.-]+:')",
        "names of pods and namespaces have lower case letters, digits and '-', and those of pods \
         also '.'",
    ),
    (
        "!self.matches('^([^/:]+/)?[^/:]+:[^/:]+$') || \
         (self.matches(r':[^%\\s\\pZ\\p{Cc}]+$') && \
         size(bytes(self)) - size(bytes(self.split(':')[0])) <= 16)",
        "an interface's name has 1 to 15 bytes, and no '%' or white space",
    ),
    (
        "!self.matches(':([.]{1,2}|lo|all|default)$')",
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

/// A text with rules. Their messages begin with the text, which the server does not show.
fn ruled(mut schema: Schema, of: &[Rule]) -> Schema {
    let mut rules = rules(of);
    for rule in rules.as_array_mut().into_iter().flatten() {
        // The language has the same quotes and escapes as JSON.
        let message = format!("'\"' + self + '\": ' + {}", rule["message"]);
        rule["messageExpression"] = message.into();
    }
    schema.insert("x-kubernetes-validations".to_owned(), rules);
    schema
}

fn pattern(mut schema: Schema, pattern: &str) -> Schema {
    schema.insert("pattern".to_owned(), pattern.into());
    schema
}

pub(crate) fn namespace(_: &mut SchemaGenerator) -> Schema {
    ruled(text(0, LABEL), NAMESPACE_RULES)
}

/// A name of a pod, a node, a Topology and the like.
pub(crate) fn name(_: &mut SchemaGenerator) -> Schema {
    ruled(text(0, NAME), NAME_RULES)
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

pub(crate) fn destination(_: &mut SchemaGenerator) -> Schema {
    ruled(text(0, CIDR), DESTINATION_RULES)
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
