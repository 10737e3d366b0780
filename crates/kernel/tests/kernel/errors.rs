//! What is said when something is not there or in the way.

use std::{collections::BTreeMap, fs::File};

use nix::errno::Errno;
use ratchet_kernel::{KernelError, Look, NetnsHandle, probe};
use ratchet_model::device::{Netns, Operation};

use crate::world::{World, at, new_device, pod, sh};

#[test]
fn a_path_that_is_no_namespace_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cni-1234");
    assert_eq!(
        NetnsHandle::open(&path).unwrap_err(),
        KernelError::NetnsGone { path: path.clone() }
    );
    File::create(&path).unwrap();
    let error = NetnsHandle::open(&path).unwrap_err();
    assert_eq!(error, KernelError::NotNetns { path: path.clone() });
    assert!(
        error
            .to_string()
            .starts_with(&format!("{}: expected a network namespace", path.display()))
    );
    // A namespace, but not of the network; a FIFO, which is not waited for.
    assert!(matches!(
        NetnsHandle::open("/proc/self/ns/mnt"),
        Err(KernelError::NotNetns { .. })
    ));
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(
        NetnsHandle::open(&fifo),
        Err(KernelError::NotNetns { .. })
    ));
    let process = NetnsHandle::open("/proc/999999999/ns/net").unwrap_err();
    assert!(process.is_netns_gone(), "{process}");
}

#[test]
fn identity_tells_namespaces_apart() {
    let world = World::new(2);
    assert_ne!(world.pods[0].identity(), world.pods[1].identity());
    assert_eq!(world.kernel.node().identity(), world.node.identity());
    assert_eq!(
        NetnsHandle::current().unwrap().identity(),
        NetnsHandle::open("/proc/self/ns/net").unwrap().identity()
    );
}

#[test]
fn a_vanished_sandbox_fails_only_its_own_links() {
    let mut world = World::new(3);
    world.kernel.forget(&crate::world::sandbox(2));
    let ends = |one: usize, other: usize| (at(pod(one), "eth1"), at(pod(other), "eth1"));
    let (a, z) = ends(0, 1);
    let (b, y) = ends(0, 2);
    let link = crate::world::link;
    let step = |number, operation| ratchet_model::device::Step {
        link: link(number),
        operation,
    };
    let outcomes = world.kernel.execute(&[
        step(
            2,
            Operation::CreateVeth {
                a: new_device(&b, 3),
                z: new_device(&y, 4),
            },
        ),
        step(
            1,
            Operation::CreateVeth {
                a: new_device(&a, 1),
                z: new_device(&z, 2),
            },
        ),
        step(2, Operation::SetUp(y.clone(), true)),
        step(1, Operation::SetUp(z.clone(), true)),
        step(3, Operation::SetUp(y.clone(), true)),
        step(3, Operation::Delete(y.clone())),
    ]);
    let gone = KernelError::Unregistered(crate::world::sandbox(2));
    assert!(gone.is_netns_gone());
    assert_eq!(
        outcomes,
        [
            Err(gone.clone()),
            Ok(()),
            Err(KernelError::Skipped),
            Ok(()),
            Err(gone.clone()),
            Ok(())
        ]
    );
    let scope = BTreeMap::from([(pod(2), Look::All)]);
    assert_eq!(world.kernel.observe(&scope, |_| true), Err(gone));
}

#[test]
fn a_taken_name_is_named_with_its_place() {
    let world = World::new(2);
    sh(&world.pods[1], "ip link add eth1 type veth peer name other");
    // The same name on the node is no clash.
    sh(&world.node, "ip link add eth5 type veth peer name other");
    let (a, z) = (at(pod(0), "eth5"), at(pod(1), "eth1"));
    let error = world
        .attempt([Operation::CreateVeth {
            a: new_device(&a, 1),
            z: new_device(&z, 2),
        }])
        .remove(0)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot create the veth pair eth5 in sandbox s0 and eth1 in sandbox s1: the name eth1 is \
         taken in sandbox s1 by another device"
    );
    assert_eq!(error.errno(), Some(Errno::EEXIST));
    assert!(world.all(pod(0)).is_empty());
    world.do_all([Operation::CreateVeth {
        a: new_device(&a, 1),
        z: new_device(&at(pod(1), "eth2"), 2),
    }]);
    assert_eq!(world.all(Netns::Node).len(), 2);
}

#[test]
fn the_kernel_can_be_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<ratchet_kernel::Kernel>();
    shared::<NetnsHandle>();
}

#[test]
fn this_kernel_has_what_links_are_made_of() {
    let can = probe().unwrap();
    assert!(can.veth && can.vxlan);
}
