//! What leaves a node.

use std::{
    fs::File,
    io,
    process::{Child, Command, Stdio},
};

use crate::{
    packet::{forge, vxlan},
    world::{FAMILIES, Site, Tunnel, arrived, vtep},
};

const VNI: u32 = 4242;

/// A device whose source ports are its own, and one of a release that gave none.
#[test]
fn what_is_wired_passes() {
    for family in FAMILIES {
        for source in [Some((2048, 2052)), Some((4096, 4160)), None] {
            let site = Site::new();
            let there = Tunnel {
                source,
                ..Tunnel::new(family, VNI, 1, 2)
            };
            let (peer, pod) = (site.pod(&there), site.pod(&there.reverse()));
            site.filter(1).change(&[there.passage()], &[]).unwrap();
            for number in 0..40 {
                let text = format!("text {number}");
                let sent = || peer.send(&text);
                assert_eq!(arrived(&peer, &pod, sent), [text.as_str()]);
            }
        }
    }
}

/// A program of the node has the address of the VTEP and can use any source port.
#[test]
fn programs_of_the_node_do_not_tunnel() {
    for family in FAMILIES {
        let site = Site::new();
        let there = Tunnel::new(family, VNI, 1, 2);
        let (peer, pod) = (site.pod(&there), site.pod(&there.reverse()));
        let mut filter = site.filter(1);
        let passage = ratchet_model::device::Passage {
            source: None,
            ..there.passage()
        };
        for passage in [there.passage(), passage] {
            filter.set([passage]).unwrap();
            let forged = || {
                let payload = vxlan(VNI, &pod.frame("forged"));
                let (from, to) = (vtep(family, 1), vtep(family, 2));
                let refused = forge(site.node(1), from, to, &payload).unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
                let others = vxlan(VNI + 1, &pod.frame("others'"));
                forge(site.node(1), from, to, &others).unwrap();
            };
            assert!(arrived(&peer, &pod, forged).is_empty(), "{family:?}");
        }
    }
}

/// A pod in a user namespace of its own, whose root rules over its devices and nothing else.
struct Owner(Child);

impl Owner {
    fn new() -> Self {
        let command = "echo ready; exec cat";
        let mut child = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self(child)
    }

    fn netns(&self) -> File {
        File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap()
    }

    fn sh(&self, line: &str) {
        let target = self.0.id().to_string();
        let output = Command::new("nsenter")
            .args(["--target", &target, "--user", "--net"])
            .args(line.split(' '))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {text}");
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The root of a pod has its device send another link's VNI to that link's other node.
#[test]
fn a_device_sends_its_own_link_only() {
    for family in FAMILIES {
        let site = Site::new();
        let victim = Tunnel::new(family, VNI, 1, 2);
        let mine = Tunnel {
            source: Some((2052, 2056)),
            ..Tunnel::new(family, VNI + 1, 1, 3)
        };
        let (peer, pod) = (site.pod(&victim), site.pod(&victim.reverse()));
        let owner = Owner::new();
        let forger = site.pod_in(&mine, owner.netns());
        let to = vtep(family, 2);
        owner.sh(&format!(
            "bridge fdb append 02:00:00:00:00:02 dev in1 dst {to} vni {VNI}"
        ));
        owner.sh("ip neighbour add 10.1.0.2 lladdr 02:00:00:00:00:02 dev in1");
        let forged = || forger.send_to("forged", "10.1.0.2:7777");
        assert_eq!(arrived(&peer, &pod, forged), ["forged"], "{family:?}");
        let mut filter = site.filter(1);
        let both = [victim.passage(), mine.passage()];
        filter.change(&both, &[]).unwrap();
        assert!(arrived(&peer, &pod, forged).is_empty(), "{family:?}");
    }
}
