//! Links as the API has them, for tests.

use std::collections::{BTreeMap, BTreeSet};

use ratchet_api::{DeclaredBy, Link, LinkEnd, LinkEndStatus, LinkSpec, LinkStatus};
use ratchet_model::{PodKey, SandboxId};

use super::{
    known::{LinkKey, Side},
    links::EndKey,
};

pub(super) const VNI: u32 = 11;

pub(super) fn pod(name: &str) -> PodKey {
    PodKey::new("lab", name).unwrap()
}

pub(super) fn pods<const N: usize>(names: [&str; N]) -> BTreeSet<PodKey> {
    names.map(pod).into()
}

pub(super) fn sandbox(name: &str) -> SandboxId {
    name.parse().unwrap()
}

pub(super) fn end(pod: &str, node: Option<&str>) -> LinkEnd {
    LinkEnd {
        namespace: "lab".to_owned(),
        pod: Some(pod.to_owned()),
        interface: "eth1".to_owned(),
        addresses: vec![format!("10.0.0.{}/24", pod.len())],
        pod_uid: node.map(|_| format!("uid-{pod}")),
        node: node.map(ToOwned::to_owned),
        vtep: node.map(|node| format!("192.0.2.{}", node.len())),
        tunnel_mtu: node.map(|_| 1450),
        ..LinkEnd::default()
    }
}

/// A Link between two pods, as the API has it.
pub(super) fn object(a: LinkEnd, b: LinkEnd) -> Link {
    let mut link = Link::new(
        "a-b",
        LinkSpec {
            topology: None,
            declared_by: DeclaredBy::Topology,
            mtu: None,
            wiring: None,
            vni: Some(VNI),
            a,
            b,
        },
    );
    link.metadata.namespace = Some("lab".to_owned());
    link.metadata.generation = Some(1);
    link
}

pub(super) fn across() -> Link {
    object(end("a", Some("n1")), end("bb", Some("node2")))
}

pub(super) fn ending(mut link: Link) -> Link {
    link.metadata.deletion_timestamp = Some(ratchet_api::Time(Default::default()));
    link
}

/// As the API has it after these statuses were written.
pub(super) fn said(mut link: Link, statuses: &BTreeMap<EndKey, LinkEndStatus>) -> Link {
    let status = |side: Side| {
        let mut found = statuses.iter().filter(|((_, of), _)| *of == side);
        found.next().map(|(_, status)| status.clone())
    };
    let before = link.status.take().unwrap_or_default();
    link.status = Some(LinkStatus {
        a: status(Side::A).or(before.a),
        b: status(Side::B).or(before.b),
        conditions: Vec::new(),
    });
    link
}

pub(super) fn key() -> LinkKey {
    LinkKey {
        namespace: "lab".to_owned(),
        name: "a-b".to_owned(),
    }
}
