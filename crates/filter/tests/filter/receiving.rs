//! What arrives at a node.

use crate::{
    packet::{forge, forge_in_fragments, vxlan},
    world::{FAMILIES, Family, Site, Tunnel, arrived, sh, vtep},
};

const VNI: u32 = 4242;

#[test]
fn only_the_links_other_node_is_heard() {
    for family in FAMILIES {
        let site = Site::new();
        let here = Tunnel::new(family, VNI, 2, 1);
        let (pod, peer) = (site.pod(&here), site.pod(&here.reverse()));
        let forged = || {
            let payload = vxlan(VNI, &pod.frame("forged"));
            let (from, to) = (vtep(family, 3), vtep(family, 2));
            forge(site.node(3), from, to, &payload).unwrap();
        };
        assert_eq!(arrived(&peer, &pod, forged), ["forged"], "{family:?}");
        let mut filter = site.filter(2);
        filter.change(&[here.passage()], &[]).unwrap();
        assert!(arrived(&peer, &pod, forged).is_empty(), "{family:?}");
        filter.change(&[], &[here.passage()]).unwrap();
        assert_eq!(arrived(&peer, &pod, forged), ["forged"], "{family:?}");
    }
}

/// Only to the address at which the tunnel ends.
#[test]
fn another_address_of_the_node_is_no_vtep() {
    for family in FAMILIES {
        let site = Site::new();
        let here = Tunnel::new(family, VNI, 2, 1);
        let (pod, peer) = (site.pod(&here), site.pod(&here.reverse()));
        sh(site.node(2), "ip address add 192.0.2.9/24 dev eth0");
        sh(site.node(2), "ip address add fd00::9/64 dev eth0 nodad");
        site.filter(2).change(&[here.passage()], &[]).unwrap();
        let elsewhere = || {
            let payload = vxlan(VNI, &pod.frame("forged"));
            forge(site.node(1), vtep(family, 1), vtep(family, 9), &payload).unwrap();
        };
        assert!(arrived(&peer, &pod, elsewhere).is_empty(), "{family:?}");
    }
}

/// Cut after the UDP header, in the VXLAN header and behind it.
#[test]
fn fragments_are_no_way_around() {
    for family in FAMILIES {
        let site = Site::new();
        let here = Tunnel::new(family, VNI, 2, 1);
        let (pod, peer) = (site.pod(&here), site.pod(&here.reverse()));
        let payload = vxlan(VNI, &pod.frame("forged"));
        let (from, to) = (vtep(family, 3), vtep(family, 2));
        let mut filter = site.filter(2);
        for first in [8, 16, 24] {
            let forged = || forge_in_fragments(site.node(3), from, to, &payload, first);
            assert_eq!(arrived(&peer, &pod, forged), ["forged"], "{family:?}");
            filter.change(&[here.passage()], &[]).unwrap();
            assert!(
                arrived(&peer, &pod, forged).is_empty(),
                "{family:?} {first}"
            );
            filter.change(&[], &[here.passage()]).unwrap();
        }
    }
}

#[test]
fn the_peers_fragments_pass() {
    for family in FAMILIES {
        let site = Site::new();
        let here = Tunnel::new(family, VNI, 2, 1);
        let (pod, peer) = (site.pod(&here), site.pod(&here.reverse()));
        site.filter(2).change(&[here.passage()], &[]).unwrap();
        let payload = vxlan(VNI, &pod.frame("whole"));
        let (from, to) = (vtep(family, 1), vtep(family, 2));
        let sent = || forge_in_fragments(site.node(1), from, to, &payload, 24);
        assert_eq!(arrived(&peer, &pod, sent), ["whole"], "{family:?}");
    }
}

/// A tunnel over IPv6 is never cut by the node that sends.
#[test]
fn packets_that_the_peers_node_cuts_pass() {
    let site = Site::new();
    let here = Tunnel::new(Family::V4, VNI, 2, 1);
    let (pod, peer) = (site.pod(&here), site.pod(&here.reverse()));
    for node in [&pod, &peer] {
        sh(&node.netns, "ip link set in1 mtu 4000");
    }
    site.filter(2).change(&[here.passage()], &[]).unwrap();
    let mut filter = site.filter(1);
    filter.change(&[here.reverse().passage()], &[]).unwrap();
    let long = "long ".repeat(600);
    assert_eq!(arrived(&peer, &pod, || peer.send(&long)), [long]);
}

#[test]
fn vnis_of_others_are_not_touched() {
    for family in FAMILIES {
        let site = Site::new();
        let ours = Tunnel::new(family, VNI, 2, 1);
        let others = Tunnel::new(family, VNI + 1, 2, 1);
        let (pod, peer) = (site.pod(&others), site.pod(&others.reverse()));
        site.filter(2).change(&[ours.passage()], &[]).unwrap();
        let foreign = || {
            let payload = vxlan(VNI + 1, &pod.frame("others'"));
            let (from, to) = (vtep(family, 3), vtep(family, 2));
            forge(site.node(3), from, to, &payload).unwrap();
        };
        assert_eq!(arrived(&peer, &pod, foreign), ["others'"], "{family:?}");
    }
}
