//! Rules over several fields of an object.

use super::Rule;
use crate::VNI_BLOCK_SIZE;

/// `namespace` is a word of the language, so the field has underscores around it.
pub(crate) const LINK_RULES: &[Rule] = &[
    (
        "self.a.__namespace__ != self.b.__namespace__ || self.a.interface != self.b.interface || \
         !has(self.a.pod) || !has(self.b.pod) || self.a.pod != self.b.pod",
        "both ends are the same interface: a link needs two",
    ),
    (
        "self.a.__namespace__ == oldSelf.a.__namespace__ && \
         self.a.interface == oldSelf.a.interface",
        "namespace and interface of end a cannot be changed: delete the Link and create another",
    ),
    (
        "self.b.__namespace__ == oldSelf.b.__namespace__ && \
         self.b.interface == oldSelf.b.interface",
        "namespace and interface of end b cannot be changed: delete the Link and create another",
    ),
    (
        "!has(oldSelf.vni) || (has(self.vni) && self.vni == oldSelf.vni)",
        "a VNI stays for as long as the Link exists",
    ),
    (
        "!has(self.a.node) || !has(self.b.node) || self.a.node == self.b.node || has(self.vni)",
        "the ends are on two nodes, so the link needs a vni",
    ),
    (
        "self.declaredBy != 'Topology' || has(self.topology)",
        "a Topology declares the link: topology must name it",
    ),
];

pub(crate) const END_RULES: &[Rule] = &[
    (
        "has(self.node) == has(self.podUID)",
        "node and podUID are set together, when the pod has a node",
    ),
    (
        "has(self.pod) || !has(self.podUID)",
        "podUID is set, so pod must be, too",
    ),
    (
        "has(self.node) || !has(self.vtep)",
        "vtep is set, so node must be, too",
    ),
];

/// In turn.
pub(crate) const ROUTE_RULES: &[Rule] = &[
    (
        "isCIDR(self.dst)",
        "dst must be a network, such as 10.1.0.0/16, fd01::/48 or 0.0.0.0/0",
    ),
    (
        "cidr(self.dst) == cidr(self.dst).masked()",
        "bits of dst are set after the prefix length; expected a network, such as 10.1.0.0/16",
    ),
    (
        "!has(self.via) || isIP(self.via)",
        "via must be an IPv4 or IPv6 address without a prefix length",
    ),
    (
        "!has(self.via) || ip(self.via).family() == cidr(self.dst).ip().family()",
        "dst and via must both be IPv4 or both IPv6",
    ),
];

pub(crate) const SLOT_RULES: &[Rule] = &[(
    "has(self.statefulSet) != has(self.selector)",
    "a slot needs either statefulSet or selector",
)];

/// Two equal keys are an error, which names the key. Comparing each endpoint with all others would
/// exceed what a rule may cost. The function is there from Kubernetes 1.33 on.
pub(crate) const TOPOLOGY_RULES: &[Rule] = &[(
    "!has(self.links) || (self.links.map(l, l.endpoints.size() == 2, l.endpoints[0]) + \
     self.links.map(l, l.endpoints.size() == 2, l.endpoints[1]))\
     .transformMapEntry(i, e, {e: i}).size() >= 0",
    "an endpoint is there twice: each end of a link needs an interface of its own",
)];

pub(crate) fn vni_block_rules() -> [(String, &'static str); 1] {
    let rule = format!(
        "self.entries.all(offset, offset.matches('^(0|[1-9][0-9]{{0,2}})$') && \
         int(offset) < {VNI_BLOCK_SIZE})"
    );
    [(
        rule,
        "the keys of entries are offsets in the block: 0, 1 and so on",
    )]
}
