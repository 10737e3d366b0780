//! What a node forwards: packets of plain pods, which an address translation behind the filter may
//! give the node's own address.

use std::{fs::File, net::IpAddr, os::fd::AsRawFd};

use crate::{
    packet::{forge, forge_in_fragments, vxlan},
    world::{FAMILIES, Family, Site, Tunnel, arrived, fresh, sh, vtep},
};

const VNI: u32 = 4242;

/// A plain pod on node 1, which is its router.
fn plain_pod(site: &Site) -> File {
    let pod = fresh();
    let node = site.node(1);
    let there = format!("/proc/{}/fd/{}", std::process::id(), pod.as_raw_fd());
    sh(
        node,
        &format!("ip link add plain type veth peer name eth0 netns {there}"),
    );
    sh(node, "ip link set plain up");
    sh(node, "ip address add 198.51.100.1/24 dev plain");
    sh(node, "ip address add fd01::1/64 dev plain nodad");
    sh(node, "sysctl -q -w net.ipv4.ip_forward=1");
    sh(node, "sysctl -q -w net.ipv6.conf.all.forwarding=1");
    sh(&pod, "ip link set eth0 up");
    sh(&pod, "ip address add 198.51.100.2/24 dev eth0");
    sh(&pod, "ip address add fd01::2/64 dev eth0 nodad");
    sh(&pod, "ip route add default via 198.51.100.1");
    sh(&pod, "ip -6 route add default via fd01::1");
    for other in [2, 3] {
        sh(
            site.node(other),
            "ip route add 198.51.100.0/24 via 192.0.2.1",
        );
        sh(site.node(other), "ip -6 route add fd01::/64 via fd00::1");
    }
    pod
}

fn address(family: Family) -> IpAddr {
    let text = match family {
        Family::V4 => "198.51.100.2",
        Family::V6 => "fd01::2",
    };
    text.parse().unwrap()
}

#[test]
fn a_node_forwards_no_tunnel_of_ours() {
    for family in FAMILIES {
        let site = Site::new();
        let there = Tunnel::new(family, VNI, 1, 2);
        let (peer, pod) = (site.pod(&there), site.pod(&there.reverse()));
        let plain = plain_pod(&site);
        let (from, to) = (address(family), vtep(family, 2));
        let payload = vxlan(VNI, &pod.frame("forged"));
        let mut filter = site.filter(1);
        let forged = || forge(&plain, from, to, &payload).unwrap();
        assert_eq!(arrived(&peer, &pod, forged), ["forged"], "{family:?}");
        filter.change(&[there.passage()], &[]).unwrap();
        assert!(arrived(&peer, &pod, forged).is_empty(), "{family:?}");
        for first in [8, 16, 24] {
            let forged = || forge_in_fragments(&plain, from, to, &payload, first);
            assert!(
                arrived(&peer, &pod, forged).is_empty(),
                "{family:?} {first}"
            );
        }
        filter.change(&[], &[there.passage()]).unwrap();
        let forged = || forge_in_fragments(&plain, from, to, &payload, 8);
        assert_eq!(arrived(&peer, &pod, forged), ["forged"], "{family:?}");
    }
}

#[test]
fn vnis_of_others_are_forwarded() {
    for family in FAMILIES {
        let site = Site::new();
        let ours = Tunnel::new(family, VNI, 1, 2);
        let others = Tunnel::new(family, VNI + 1, 1, 2);
        let (peer, pod) = (site.pod(&others), site.pod(&others.reverse()));
        let plain = plain_pod(&site);
        site.filter(1).change(&[ours.passage()], &[]).unwrap();
        let (from, to) = (address(family), vtep(family, 2));
        let payload = vxlan(VNI + 1, &pod.frame("others'"));
        let sent = || forge(&plain, from, to, &payload).unwrap();
        assert_eq!(arrived(&peer, &pod, sent), ["others'"], "{family:?}");
        let sent = || forge_in_fragments(&plain, from, to, &payload, 16);
        assert_eq!(arrived(&peer, &pod, sent), ["others'"], "{family:?}");
    }
}
