//! Tests of what only older kernels need.

use ratchet_model::{
    device::{Kind, Step},
    names::{LinkId, SandboxId},
};

use super::*;
use crate::{Kernel, NetnsHandle, netns};

fn fresh() -> NetnsHandle {
    let make = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
        NetnsHandle::current().unwrap()
    };
    std::thread::spawn(make).join().unwrap()
}

fn new_device(at: &At) -> NewDevice {
    NewDevice {
        at: at.clone(),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        mtu: 1450.try_into().unwrap(),
        index: None,
    }
}

fn tunnel() -> Tunnel {
    Tunnel {
        vni: 11.try_into().unwrap(),
        remote: "10.0.0.2".parse().unwrap(),
        local: "10.0.0.1".parse().unwrap(),
        parent: 0,
        port: 4789,
    }
}

/// The kernels that need this are not those that tests run on, so the test calls it directly.
#[test]
fn a_vxlan_device_can_be_created_under_another_name_first() {
    let (node, pod) = (fresh(), fresh());
    let body = move || {
        let mut kernel = Kernel::new().unwrap();
        let id: SandboxId = "s1".parse().unwrap();
        kernel.register(id.clone(), pod);
        let at = At {
            netns: Netns::Sandbox(id),
            name: "eth1".into(),
        };
        let (new, tunnel) = (new_device(&at), tunnel());
        let steps = [Step {
            link: LinkId::UNKNOWN,
            operation: Operation::CreateVxlan {
                device: new.clone(),
                tunnel: tunnel.clone(),
                source: None,
            },
        }];
        let run = Run {
            kernel: &kernel,
            steps: &steps,
            outcomes: vec![None],
            broken: Default::default(),
        };
        run.create_renamed(0, &new, (&tunnel, None)).unwrap();
        let device = kernel.find(&[at]).unwrap().pop().flatten().unwrap();
        assert!(matches!(device.kind, Kind::Vxlan { vni: 11, .. }));
        assert!(device.is_ours() && device.name == "eth1");
        Ok(())
    };
    netns::inside(&node, body).unwrap();
}
