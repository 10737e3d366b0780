//! VXLAN devices: born in the pod with their socket on the node, pointed elsewhere in place.

use std::os::fd::AsRawFd;

use ratchet_kernel::KernelError;
use ratchet_model::{
    device::{At, Kind, Netns, Operation, SourcePorts, Tunnel},
    link::End,
};

use crate::{
    site::Site,
    world::{alias, at, fresh, new_device, pod, sandbox, sh, tunnel, within},
};

impl Site {
    /// Gives the pod of a node a tunnel to another node.
    fn tunnel(&self, node: usize, vni: u32, local: &str, remote: &str, address: &str) -> At {
        let eth1 = at(pod(0), "eth1");
        let tunnel = tunnel(vni, local, remote, self.parent(node));
        self.nodes[node].do_all([
            Operation::CreateVxlan {
                device: new_device(&eth1, u16::try_from(node).unwrap() + 1),
                tunnel,
                source: None,
            },
            Operation::SetUp(eth1.clone(), true),
            Operation::AddAddress(eth1.clone(), address.parse().unwrap()),
            Operation::Commit(eth1.clone(), alias(End::A, Some(0))),
        ]);
        eth1
    }
}

#[test]
fn frames_pass_between_pods_of_two_nodes() {
    let site = Site::new(2);
    for (vni, one, other) in [(11, "192.0.2.1", "192.0.2.2"), (12, "fd00::1", "fd00::2")] {
        let eth1 = site.tunnel(0, vni, one, other, "10.1.0.1/24");
        site.tunnel(1, vni, other, one, "10.1.0.2/24");
        let device = site.nodes[0].one(&eth1);
        let Tunnel {
            remote,
            local,
            parent,
            ..
        } = tunnel(vni, one, other, site.parent(0));
        assert_eq!(
            device.kind,
            Kind::Vxlan {
                vni,
                remote: Some(remote),
                local: Some(local),
                parent,
                port: 4789
            }
        );
        // The kernel keeps a tunnel's MTU within the parent's (vxlan_config_apply): 70 bytes less
        // over IPv6.
        assert_eq!(
            (device.is_ours(), device.mtu),
            (true, if one.contains(':') { 1430 } else { 1450 })
        );
        sh(&site.nodes[0].pods[0], "ping -c 1 -W 2 10.1.0.2");
        // The socket is on the node.
        assert!(
            sh(
                &site.nodes[0].node,
                "cat /proc/thread-self/net/udp /proc/thread-self/net/udp6"
            )
            .contains(":12B5 ")
        );
        for node in &site.nodes {
            node.do_all([Operation::Delete(eth1.clone())]);
        }
    }
}

/// The root of a pod can make a device that looks like one of ours, but not with a socket on the
/// node. It is no tunnel, so nothing is let through for it.
#[test]
fn a_forged_tunnel_is_none() {
    let site = Site::new(1);
    let eth1 = site.tunnel(0, 11, "192.0.2.1", "192.0.2.2", "10.1.0.1/24");
    let (own, child) = (&site.nodes[0].pods[0], fresh());
    let forged =
        "group 1383359336 type vxlan id 4242 local 192.0.2.1 remote 192.0.2.9 dstport 4789";
    sh(own, &format!("ip link add eth2 {forged}"));
    let path = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        std::os::fd::AsFd::as_fd(own).as_raw_fd()
    );
    let made = format!("ip link add eth3 netns {path} {forged}");
    sh(&child, &made);
    let found = site.nodes[0].all(pod(0));
    for (name, is_tunnel) in [("eth1", true), ("eth2", false), ("eth3", false)] {
        let device = found.iter().find(|device| device.name == name).unwrap();
        assert_eq!(device.is_ours(), is_tunnel, "{device:?}");
        let kind = matches!(device.kind, Kind::Vxlan { .. });
        assert_eq!(kind, is_tunnel, "{device:?}");
        // The same when it is asked for by name.
        assert_eq!(site.nodes[0].one(&at(pod(0), name)), *device);
    }
    assert!(matches!(
        site.nodes[0].one(&eth1).kind,
        Kind::Vxlan { vni: 11, .. }
    ));
}

#[test]
fn a_device_has_source_ports_of_its_own() {
    let site = Site::new(1);
    let ports = |low, high| SourcePorts { low, high };
    for (name, vni, source) in [("eth1", 11, Some(ports(2048, 2112))), ("eth2", 12, None)] {
        let at = at(pod(0), name);
        let tunnel = tunnel(vni, "192.0.2.1", "192.0.2.2", site.parent(0));
        site.nodes[0].do_all([Operation::CreateVxlan {
            device: new_device(&at, 1),
            tunnel: tunnel.clone(),
            source,
        }]);
        assert_eq!(site.nodes[0].one(&at).source, source);
        // They stay when it is pointed elsewhere.
        let tunnel = Tunnel {
            remote: "192.0.2.3".parse().unwrap(),
            ..tunnel
        };
        let there = at.clone();
        site.nodes[0].do_all([Operation::Retarget { at: there, tunnel }]);
        assert_eq!(site.nodes[0].one(&at).source, source);
    }
}

#[test]
fn a_tunnel_is_pointed_elsewhere_in_place() {
    let site = Site::new(3);
    for (vni, addresses) in [
        (11, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        (12, ["fd00::1", "fd00::2", "fd00::3"]),
    ] {
        let [one, two, three] = addresses;
        let eth1 = site.tunnel(0, vni, one, two, "10.1.0.1/24");
        site.tunnel(1, vni, two, one, "10.1.0.2/24");
        site.tunnel(2, vni, three, one, "10.1.0.3/24");
        let before = site.nodes[0].one(&eth1);
        let pod0 = &site.nodes[0].pods[0];
        sh(pod0, "ping -c 1 -W 2 10.1.0.2");
        let there = tunnel(vni, one, three, site.parent(0));
        site.nodes[0].do_all([Operation::Retarget {
            at: eth1.clone(),
            tunnel: there.clone(),
        }]);
        let after = site.nodes[0].one(&eth1);
        assert_eq!(
            (after.index, &after.addresses, after.up),
            (before.index, &before.addresses, true)
        );
        let Kind::Vxlan {
            remote,
            local,
            parent,
            ..
        } = after.kind
        else {
            panic!("{:?}", after.kind)
        };
        assert_eq!(
            (remote, local, parent),
            (Some(there.remote), Some(there.local), there.parent)
        );
        sh(pod0, "ping -c 1 -W 2 10.1.0.3");
        for node in &site.nodes {
            node.do_all([Operation::Delete(eth1.clone())]);
        }
    }
}

#[test]
fn what_a_tunnel_cannot_be_is_said() {
    let site = Site::new(1);
    let eth1 = site.tunnel(0, 11, "192.0.2.1", "192.0.2.2", "10.1.0.1/24");
    let family = tunnel(11, "fd00::1", "fd00::2", site.parent(0));
    let text = |operation| {
        site.nodes[0]
            .attempt([operation])
            .remove(0)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        text(Operation::SetMtu(eth1.clone(), 1451.try_into().unwrap())),
        "cannot give eth1 in sandbox s0 the MTU 1451: Invalid argument (a tunnel's MTU must leave \
        50 bytes of its \
         parent interface's, 70 over IPv6)"
    );
    let refusal = text(Operation::Retarget {
        at: eth1.clone(),
        tunnel: family,
    });
    assert!(
        refusal.starts_with(
            "cannot point the VXLAN device eth1 in sandbox s0 to fd00::2 (from fd00::1): "
        ),
        "{refusal}"
    );
    let Kind::Vxlan { remote, .. } = site.nodes[0].one(&eth1).kind else {
        panic!()
    };
    assert_eq!(remote, Some("192.0.2.2".parse().unwrap()));
}

/// The parent's index is meant in the namespace of the socket, whatever has this index in the pod.
#[test]
fn the_parent_is_the_nodes_also_when_the_pod_has_that_index() {
    let site = Site::new(2);
    let parent = site.parent(0);
    sh(
        &site.nodes[0].pods[0],
        &format!("ip link add decoy index {parent} type bridge"),
    );
    let eth1 = site.tunnel(0, 11, "192.0.2.1", "192.0.2.9", "10.1.0.1/24");
    site.tunnel(1, 11, "192.0.2.2", "192.0.2.1", "10.1.0.2/24");
    let there = tunnel(11, "192.0.2.1", "192.0.2.2", parent);
    site.nodes[0].do_all([Operation::Retarget {
        at: eth1,
        tunnel: there,
    }]);
    sh(&site.nodes[0].pods[0], "ping -c 1 -W 2 10.1.0.2");
}

#[test]
fn a_taken_vni_and_a_taken_name_are_told_apart() {
    let mut site = Site::new(1);
    let parent = site.parent(0);
    site.tunnel(0, 11, "192.0.2.1", "192.0.2.2", "10.1.0.1/24");
    let node = &mut site.nodes[0];
    let other = fresh();
    node.kernel.register(sandbox(1), other.clone());
    let attempt = |name: &str, number, vni| {
        let at = at(pod(number), name);
        let tunnel = tunnel(vni, "192.0.2.1", "192.0.2.2", parent);
        node.attempt([Operation::CreateVxlan {
            device: new_device(&at, 5),
            tunnel,
            source: None,
        }])
        .remove(0)
    };
    let doing = |at: &str, vni| {
        format!("create the VXLAN device {at} (VNI {vni}, from 192.0.2.1 to 192.0.2.2)")
    };
    let error = attempt("eth1", 0, 12).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot {}: the name eth1 is taken in sandbox s0 by another device",
            doing("eth1 in sandbox s0", 12)
        )
    );
    let error = attempt("eth1", 1, 11).unwrap_err();
    let vni = 11.try_into().unwrap();
    assert_eq!(
        error,
        KernelError::VniTaken {
            doing: doing("eth1 in sandbox s1", 11),
            vni,
            port: 4789
        }
    );
    // The node's own eth0 is no clash.
    assert_eq!(attempt("eth0", 1, 12), Ok(()));
    assert!(within(&other, || std::path::Path::new(
        "/proc/sys/net/ipv4/conf/eth0"
    )
    .exists()));
    assert_eq!(node.all(Netns::Node).len(), 1);
}
