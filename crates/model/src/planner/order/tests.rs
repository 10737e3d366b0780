//! Tests of the order in which devices are created.

use super::*;
use crate::{
    device::{At, Tunnel, VXLAN_PORT},
    names::LinkId,
};

/// A device in a sandbox.
fn new(sandbox: &str, index: Option<u32>) -> NewDevice {
    NewDevice {
        at: At {
            netns: Netns::Sandbox(sandbox.parse().unwrap()),
            name: "eth1".into(),
        },
        mac: "02:00:00:00:00:01".parse().unwrap(),
        mtu: 1450.try_into().unwrap(),
        index,
    }
}

fn veth(a: (&str, Option<u32>), z: (&str, Option<u32>)) -> Operation {
    Operation::CreateVeth {
        a: new(a.0, a.1),
        z: new(z.0, z.1),
    }
}

fn vxlan(sandbox: &str, index: Option<u32>) -> Operation {
    Operation::CreateVxlan {
        device: new(sandbox, index),
        tunnel: Tunnel {
            vni: 11.try_into().unwrap(),
            remote: "10.0.0.2".parse().unwrap(),
            local: "10.0.0.1".parse().unwrap(),
            parent: 2,
            port: VXLAN_PORT,
        },
        source: None,
    }
}

/// Orders operations. Returns their positions before.
fn order(operations: &[Operation]) -> Vec<usize> {
    let step = |operation: &Operation| Step {
        link: LinkId::UNKNOWN,
        operation: operation.clone(),
    };
    let ordered = creations(operations.iter().map(step).collect());
    let before = |step: &Step| operations.iter().position(|op| *op == step.operation);
    ordered.iter().map(|step| before(step).unwrap()).collect()
}

#[test]
fn what_asks_for_an_index_is_created_before_what_takes_any() {
    let operations = [
        vxlan("s1", None),
        veth(("s1", Some(5)), ("s2", None)),
        vxlan("s3", Some(7)),
    ];
    assert_eq!(order(&operations), [1, 2, 0]);
}

#[test]
fn an_end_that_takes_any_index_waits_for_those_that_ask_in_its_namespace() {
    let operations = [
        veth(("s1", Some(5)), ("s2", None)),
        veth(("s3", None), ("s2", Some(6))),
        vxlan("s3", Some(7)),
        veth(("s4", Some(8)), ("s4", None)),
        vxlan("s3", None),
    ];
    assert_eq!(order(&operations), [2, 3, 1, 0, 4]);
}

#[test]
fn pairs_that_wait_for_each_other_are_created_all_the_same() {
    let operations = [
        veth(("s1", None), ("s2", Some(6))),
        veth(("s1", Some(5)), ("s2", None)),
        veth(("s2", None), ("s3", Some(4))),
    ];
    assert_eq!(order(&operations), [0, 1, 2]);
}
