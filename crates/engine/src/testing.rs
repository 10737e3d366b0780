//! What several tests of this crate need.

pub(crate) mod kernel;

use ratchet_model::{End, Endpoint, InterfaceName, LinkId, Mac, PodKey, resolve::Link};

/// A link of `pod` with the pod `z`, as it is declared.
pub(crate) fn link(pod: &str, vni: Option<u32>) -> Link {
    let pods = [pod, "z"].map(|name| PodKey::new("default", name).unwrap());
    let eth1: InterfaceName = "eth1".parse().unwrap();
    let id = LinkId::derive((&pods[0], &eth1), (&pods[1], &eth1));
    let [a, z] = [End::A, End::Z].map(|end| Endpoint {
        pod: pods[end as usize].clone(),
        interface: eth1.clone(),
        addresses: Vec::new(),
        mac: Mac::derive(id, end),
        routes: Vec::new(),
    });
    Link {
        id,
        a,
        z,
        mtu: None,
        vni: vni.map(|vni| vni.try_into().unwrap()),
        wiring: None,
        declared_by: Vec::new(),
        problem: None,
        barred: None,
        warnings: Vec::new(),
        remarks: Vec::new(),
    }
}
